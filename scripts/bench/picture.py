"""Draws results as bars, in SVG. It knows what is shown, not how it was had."""

ROW, TITLE, LEFT, PANEL, GAP = 24, 62, 132, 216, 30
OURS, THEIRS, INK, PALE = "#c2410c", "#64748b", "#1e293b", "#64748b"

# What, title, which is better, form, scale; three a row.
PANELS = [
    ("one", "One TCP stream, Gb/s", "more is better", "{:.2f}", 1),
    ("cpu", "CPU seconds per GB", "less is better", "{:.1f}", 1),
    ("most", "64-byte datagrams, 1000/s", "more is better", "{:.0f}", 1e-3),
    ("idle_mean_added", "Ping every 2 ms: added, µs", "less is better; mean", "{:.0f}", 1),
    ("back_mean_added", "Ping back to back: added, µs", "less is better; mean", "{:.0f}", 1),
    ("loaded_p99", "Ping beside a stream, ms", "less is better; p99", "{:.1f}", 1e-3),
]


def text(x, y, words, size=13, colour=INK, anchor="start", weight="normal"):
    words = words.replace("&", "&amp;").replace("<", "&lt;")
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"'
            f' font-weight="{weight}">{words}</text>')


def is_ours(system):
    return system.startswith("frejus")


def panel(results, order, left, top, what, title, better, form, scale):
    values = {s: results.of(s, what) for s in order}
    values = {s: max(0.0, v * scale) for s, v in values.items() if v is not None}
    wire = results.of("veth", what)
    note = better + (f"; bare wire {form.format(wire * scale)}" if wire is not None else "")
    parts = [text(left, top + 22, title, 14, weight="bold"), text(left, top + 40, note, 11, PALE)]
    longest = max(values.values(), default=1) or 1
    for i, s in enumerate(order):
        y = top + TITLE - 8 + i * ROW
        if s not in values:
            parts.append(text(left, y + 13, "–", 12, PALE))
            continue
        width = max(1.0, values[s] / longest * (PANEL - 44))
        colour = OURS if is_ours(s) else THEIRS
        parts.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{ROW - 8}" rx="2" fill="{colour}"/>')
        parts.append(text(left + width + 5, y + 13, form.format(values[s]), 12))
    return parts


def picture(results, names):
    """All panels, the systems in the order of their single stream."""
    order = [s for s in results.running() if s != "veth" and results.of(s, "idle_mean") is not None]
    order.sort(key=lambda s: -(results.of(s, "one") or 0))
    rows = (len(PANELS) + 2) // 3
    high = TITLE + len(order) * ROW + 14
    width, height = LEFT + 3 * PANEL + 2 * GAP + 14, rows * high + 26
    m = results.machine
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
             ' font-family="Helvetica, Arial, sans-serif" role="img">',
             "<title>frejus beside other VPNs: throughput, CPU time, round trips, small packets</title>",
             f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for row in range(rows):
        for i, s in enumerate(order):
            y = row * high + TITLE - 8 + i * ROW + 13
            ours = is_ours(s)
            parts.append(text(LEFT - 10, y, names(s), 12, OURS if ours else INK, "end", "bold" if ours else "normal"))
    for place, shown in enumerate(PANELS):
        left, top = LEFT + place % 3 * (PANEL + GAP), place // 3 * high
        parts += panel(results, order, left, top, *shown)
    foot = (f"{m['cores']} cores, {m['kernel']}, {m['date']}; both ends and the source of traffic on one machine;"
            f" medians of {m['rounds']} interleaved rounds")
    parts.append(text(LEFT, height - 10, foot, 11, PALE))
    return "\n".join(parts + ["</svg>", ""])
