"""Turns the raw answers of scripts/bench.sh into a page and a picture. It measures nothing.

Usage: report.py RAW PAGE.md PICTURE.svg
"""

import json
import os
import re
import statistics
import sys
from pathlib import Path

YARDSTICK = "boringtun"
NAMES = {"veth": "bare veth", "boringtun": "boringtun-cli"}
DISTURBED = 15  # percent of the machine used by others, just before or after a turn
STREAMS = ["one", "four", "many", "reverse", "both"]


def read(path):
    return path.read_text(errors="replace") if path.exists() else ""


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def share(sorted_values, part):
    """The value below which that part of them lies (nearest rank)."""
    return sorted_values[min(len(sorted_values) - 1, int(part * len(sorted_values)))]


def end_of(path):
    try:
        return json.loads(read(path)).get("end", {})
    except ValueError:
        return {}


def received(end):
    """Bytes and Gb/s at the receivers, both directions added."""
    sums = [end.get("sum_received"), end.get("sum_received_bidir_reverse")]
    sums = [s for s in sums if s and s.get("bytes")]
    if not sums:
        return None, None
    return sum(s["bytes"] for s in sums), sum(s["bits_per_second"] for s in sums) / 1e9


def ticks(path):
    """Busy, idle and stolen seconds of the whole machine (proc(5), /proc/stat)."""
    fields = [int(f) for f in read(path).split()[1:9]]
    if len(fields) < 8:
        return None
    user, nice, system, idle, wait, irq, softirq, stolen = fields
    hertz = os.sysconf("SC_CLK_TCK")
    return [t / hertz for t in (user + nice + system + irq + softirq, idle + wait, stolen)]


def between(before, after):
    a, b = ticks(before), ticks(after)
    return [y - x for x, y in zip(a, b)] if a and b else None


def pings(path):
    """Round trips in µs, and how many were asked and never answered."""
    text = read(path)
    times = sorted(float(t) * 1000 for t in re.findall(r"time=([0-9.]+) ms", text))
    sent = re.search(r"(\d+) packets transmitted, (\d+)", text)
    lost = int(sent[1]) - int(sent[2]) if sent else None
    return times, lost


def turn(raw, system, number):
    """All figures of one system in one round, by name; what is missing is absent."""
    at = lambda ending: raw / f"{system}.{number}.{ending}"
    found = {}
    for kind in STREAMS:
        size, speed = received(end_of(at(f"{kind}.json")))
        found[kind] = speed
        if kind == "one" and size:
            found["retransmits"] = end_of(at("one.json")).get("sum_sent", {}).get("retransmits")
            used = between(at("cpu0"), at("cpu1"))
            if used:
                found["cpu"] = used[0] / (size / 1e9)
                found["steal"] = used[2] / max(sum(used), 0.01) * 100
    datagrams = end_of(at("udp.json")).get("sum", {})
    if datagrams.get("packets"):
        found["loss"] = datagrams["lost_packets"] / datagrams["packets"] * 100
        found["udp_rate"] = datagrams["bits_per_second"] / 1e6
    idle, found["idle_lost"] = pings(at("idle"))
    if idle:
        found.update(mean=statistics.mean(idle), p50=share(idle, 0.5), p99=share(idle, 0.99))
    loaded, found["loaded_lost"] = pings(at("loaded"))
    if loaded:
        found.update(loaded_mean=statistics.mean(loaded), loaded_max=loaded[-1])
    if read(at("rss")).strip():
        found["rss"] = int(read(at("rss"))) / 1024
    if read(at("start")).strip():
        found["start"] = int(read(at("start"))) / 1e9
    rests = [between(at(f"{when}.rest0"), at(f"{when}.rest1")) for when in ("before", "after")]
    found["foreign"] = max((r[0] / max(sum(r), 0.01) * 100 for r in rests if r), default=0.0)
    return found


def calm(turns):
    """Without the figures of turns that others disturbed, unless that were all of them."""
    if all(t["foreign"] > DISTURBED for t in turns):
        return turns
    return [t if t["foreign"] <= DISTURBED else {"foreign": t["foreign"]} for t in turns]


class Results:
    def __init__(self, raw):
        self.machine = dict(line.split("=", 1) for line in read(raw / "machine").splitlines())
        self.systems = self.machine["systems"].split()
        rounds = range(1, int(self.machine["rounds"]) + 1)
        self.turns = {s: calm([turn(raw, s, r) for r in rounds]) for s in self.systems}
        self.refused = {s: read(raw / f"{s}.refused").strip() for s in self.systems if (raw / f"{s}.refused").exists()}
        self.versions = {s: read(raw / f"{s}.version").strip() for s in self.systems}
        self.seals = [s for s in (seal_time(raw / f"seal.{r}") for r in rounds) if s]

        self.disturbed = sum(1 for turns in self.turns.values() for t in turns if t.keys() == {"foreign"})

    def running(self):
        return [s for s in self.systems if median([t.get("one") for t in self.turns[s]]) is not None]

    def of(self, system, what):
        return median([t.get(what) for t in self.turns[system]])

    def ratio(self, system, what):
        """The median of ratios taken within a round."""
        pairs = zip(self.turns[system], self.turns.get(YARDSTICK, []))
        return median([a[what] / b[what] for a, b in pairs if a.get(what) and b.get(what)])

    def all(self, what):
        return [t[what] for turns in self.turns.values() for t in turns if t.get(what) is not None]


def seal_time(path):
    """ns for 1420 bytes, from the last line of `openssl speed -mr`: +F:index:name:bytes a second."""
    rows = [line for line in read(path).splitlines() if line.startswith("+F:")]
    try:
        return 1420 / float(rows[-1].split(":")[-1]) * 1e9
    except (IndexError, ValueError, ZeroDivisionError):
        return None


def shown(value, form="{:.2f}"):
    return "–" if value is None else form.format(value)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " --: |" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def name(system):
    return NAMES.get(system, system)


def bold(system, text):
    return f"**{text}**" if system == "frejus" and text != "–" else text


def speeds(results):
    head = ["system", "1 stream", f"× {name(YARDSTICK)}", "4 streams", "32 streams", "reverse", "both directions", "CPU s/GB"]
    rows = []
    for s in results.running():
        cells = [name(s), shown(results.of(s, "one")), shown(results.ratio(s, "one"))]
        cells += [shown(results.of(s, k)) for k in STREAMS[1:]] + [shown(results.of(s, "cpu"), "{:.2f}")]
        rows.append([bold(s, c) for c in cells])
    return table(head, rows + absent(results, len(head)))


def delays(results):
    head = ["system", "mean µs", "p50 µs", "p99 µs", "loaded mean ms", "loaded max ms", "UDP loss %", "resident MB",
            "start s", "retransmits"]
    rows = []
    for s in results.running():
        cells = [name(s)] + [shown(results.of(s, k), "{:.0f}") for k in ("mean", "p50", "p99")]
        for k in ("loaded_mean", "loaded_max"):
            v = results.of(s, k)
            cells.append(shown(v / 1000 if v is not None else None, "{:.2f}"))
        cells += [shown(results.of(s, "loss"), "{:.2f}"), shown(results.of(s, "rss"), "{:.1f}")]
        cells += ["–" if s == "veth" else shown(results.of(s, "start")), shown(results.of(s, "retransmits"), "{:.0f}")]
        rows.append([bold(s, c) for c in cells])
    return table(head, rows + absent(results, len(head)))


def absent(results, width):
    return [[name(s), "refused"] + ["–"] * (width - 2) for s in results.systems if s not in results.running()]


def reasons(results):
    if not results.refused:
        return "Everybody ran."
    return "Refused to run, or fell out:\n\n" + "\n".join(f"- {name(s)}: {why}" for s, why in results.refused.items())


def conditions(results):
    m = results.machine
    foreign, steal = results.all("foreign"), results.all("steal")
    lines = [
        f"- {m['date']}: {m['cores']} × {m['cpu']}, {int(m['memory_mb']) / 1024:.1f} GB, {m['kernel']}; sources at {m['commit'] or 'an unknown commit'}.",
        "- Versions: " + ", ".join(f"{name(s)} {v}" for s, v in results.versions.items() if v and s != "veth")
        + f", iperf3 {m['iperf3']}.",
    ]
    if results.seals:
        low, high = min(results.seals), max(results.seals)
        lines.append(f"- To seal 1420 bytes with ChaCha20-Poly1305, OpenSSL {m['openssl']} (not the library that frejus"
                     f" uses) needed {median(results.seals):.0f} ns on one core ({low:.0f} to {high:.0f} from round to round).")
    if foreign:
        lines.append(f"- Used by others just before or after a turn: {median(foreign):.0f} % of the machine (median; at most"
                     f" {max(foreign):.0f} %). Turns left out because that was more than {DISTURBED} %:"
                     f" {results.disturbed} of {len(foreign)}. Stolen by the hypervisor during the single stream: {median(steal):.1f} %"
                     f" (at most {max(steal):.1f} %).")
    return "\n".join(lines)


PAGE = """# Benchmarks

Written by `{command}`; no figure here was typed by hand.

![One TCP stream, CPU time and round trips of each system](benchmarks.svg)

{conditions}

## Throughput, Gb/s

{speeds}

## Delay, loss, memory, start

{delays}

{reasons}

## What was measured

Two network namespaces on one bridge, MTU 1500; both ends, both daemons and the traffic generator share the machine's
cores. frejus's super peer and n2n's supernode stand in a third namespace; frejus was measured once its path was direct.
Every system has its own defaults: frejus's device has an MTU of 1280, the WireGuard programs' 1420, nebula's 1300.
The others are what the versions above say, mostly the distribution's packages: wireguard-go since 2023 and nebula since
August 2026 have offloads and are several times as fast as their older selves. veth hands
super-packets through unsegmented, which helps whoever sends them: a real network card is another test.

{rounds} rounds, interleaved; each cell is the median of the rounds, and the ratio to {yardstick} the median of ratios
taken within a round. The single TCP stream runs {seconds} s, every other run {side} s.

- *CPU s/GB*: what the whole machine used during the single stream (`/proc/stat`, without idle and stolen time),
  per 10⁹ bytes received: both daemons, both iperf3 and the kernel, and whatever else ran.
- *mean, p50, p99*: ping every 2 ms, nothing else going on, {pings} of them, tunnel and wire together.
- *loaded*: ping every 10 ms beside the single stream.
- *UDP loss*: datagrams of 1200 bytes at 500 Mb/s.
- *resident*: the daemon of the sending side, after all of that.
- *start*: from starting one side, the other being up, to the first answered ping. Both have been enrolled before.
- *retransmits*: TCP segments of the single stream.

## Repeat it

```sh
cargo build --release
sudo scripts/bench.sh --with-boringtun    # --quick shows a table in two minutes
```

The script installs the distribution's packages of the others; a variable such as `WIREGUARD_GO` names another binary.
"""


def page(results):
    m = results.machine
    return PAGE.format(command=m["command"].strip(), conditions=conditions(results), speeds=speeds(results),
                       delays=delays(results), reasons=reasons(results), rounds=m["rounds"], seconds=m["seconds"],
                       side=m["side"], yardstick=name(YARDSTICK), pings=500)


# --- the picture ---------------------------------------------------------------------------------------------------

ROW, TOP, LEFT, PANEL, GAP = 26, 78, 118, 232, 34
OURS, THEIRS, INK, PALE = "#c2410c", "#64748b", "#1e293b", "#64748b"


def text(x, y, words, size=13, colour=INK, anchor="start", weight="normal"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"'
            f' font-weight="{weight}">{words}</text>')


def panel(results, order, left, what, title, better, form, scale):
    values = {s: results.of(s, what) for s in order}
    values = {s: v * scale for s, v in values.items() if v is not None}
    wire = results.of("veth", what) if "veth" in results.running() else None
    note = better + (f"; the bare wire: {form.format(wire * scale)}" if wire is not None else "")
    parts = [text(left, 40, title, 14, weight="bold"), text(left, 58, note, 11, PALE)]
    longest = max(values.values(), default=1) or 1
    for i, s in enumerate(order):
        y = TOP + i * ROW
        if s not in values:
            parts.append(text(left, y + 13, "–", 12, PALE))
            continue
        width = max(1.0, values[s] / longest * (PANEL - 48))
        colour = OURS if s == "frejus" else THEIRS
        parts.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{ROW - 9}" rx="2" fill="{colour}"/>')
        parts.append(text(left + width + 5, y + 13, form.format(values[s]), 12))
    return parts


def picture(results):
    order = [s for s in results.running() if s != "veth"]
    order.sort(key=lambda s: -(results.of(s, "one") or 0))
    width = LEFT + 3 * PANEL + 2 * GAP + 10
    height = TOP + len(order) * ROW + 30
    m = results.machine
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
             ' font-family="Helvetica, Arial, sans-serif" role="img">',
             "<title>frejus beside other VPNs: one TCP stream, CPU time, round trip</title>",
             f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for i, s in enumerate(order):
        ours = s == "frejus"
        parts.append(text(LEFT - 10, TOP + i * ROW + 13, name(s), 13, OURS if ours else INK, "end", "bold" if ours else "normal"))
    step = PANEL + GAP
    parts += panel(results, order, LEFT, "one", "One TCP stream, Gb/s", "more is better", "{:.2f}", 1)
    parts += panel(results, order, LEFT + step, "cpu", "CPU seconds per GB", "less is better", "{:.1f}", 1)
    parts += panel(results, order, LEFT + 2 * step, "mean", "Ping every 2 ms, mean, µs", "less is better", "{:.0f}", 1)
    foot = f"{m['cores']} cores, {m['kernel']}, {m['date']}; both ends on one machine; medians of {m['rounds']} interleaved rounds"
    parts.append(text(LEFT, height - 12, foot, 11, PALE))
    return "\n".join(parts + ["</svg>", ""])


def main():
    raw, page_at, picture_at = map(Path, sys.argv[1:4])
    results = Results(raw)
    page_at.write_text(page(results))
    picture_at.write_text(picture(results))


main()
