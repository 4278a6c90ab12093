"""Turns what `perf script` says into a flame graph, and into the share of time of each area.

Usage: flamegraph.py STACKS OUT TITLE PROCESS..., from the repository's root. Writes OUT/flamegraph.svg; the shares go into
OUT/benchmarks.md between two marks, or to standard output where there is no such page. Counted are those processes whose
names begin so, and the kernel's own; others that happened to run are left out.
"""

import re
import sys
from collections import Counter
from pathlib import Path

BEGIN, END = "<!-- flame graph: begin -->", "<!-- flame graph: end -->"

# The first that matches a sample's innermost function says what the time was spent on.
AREAS = [
    ("sealing and opening", r"chacha20|poly1305|aes_gcm|aesni|gcm_|ghash|aes_hw|vaes|^ring |ring::|boringtun|aead|LessSafeKey"),
    ("copies by the kernel", r"copy_user|rep_movs|copyin|copyout|_copy_to_iter|_copy_from_iter|copy_page|memcpy_(orig|erms)|skb_copy"),
    ("checksums by the kernel", r"csum"),
    ("copies and clearing in user space", r"__?mem(move|cpy|set)|memset_"),
    ("cutting, joining, summing", r"frejus_overlay::packet"),
    ("locks", r"lock_contended|futex"),
    ("the rest of forwarding", r"::"),
    ("entering and leaving the kernel", r"entry_SYSCALL|syscall_(enter|exit)|do_syscall|exit_to_user|clear_bhb|verw|entry_SAFE_STACK|"
     r"syscall_return|srso|x64_sys_call|fdget|fget|__x64_sys|ret_from|__fput|swapgs|asynccancel|nocancel|^__GI_|^__libc_|"
     r"^(read|writev?|__poll|recvmmsg|sendmsg|sendmmsg)$"),
    ("waking and scheduling", r"sched|wake|switch|pick_|queue_work|poll|hrtimer|tick_|finish_task|select_task|enqueue_|dequeue_|"
     r"update_(curr|load|cfs)|native_write_msr|kvm|smp_|_call_function|unlock_irq"),
    ("memory of the kernel", r"alloc|free|kmem|slab|page_|get_page|put_page|folio|build_skb|lru_"),
]
REST = "the kernel's network: TCP, UDP, IP, veth, TUN"
KERNELS_OWN = ("swapper", "ksoftirqd", "kworker", "rcu", "migration")


def stacks(path, processes):
    """Samples as (process, frames from the outermost in), without the idle and without strangers."""
    for block in path.read_text(errors="replace").split("\n\n"):
        lines = [line for line in block.splitlines() if line.strip()]
        if len(lines) < 2:
            continue
        process = lines[0].split()[0] if lines[0][0] != "\t" else "?"
        frames = [tidy(line.split(None, 1)[1] if " " in line.strip() else "[unknown]") for line in lines[1:]]
        if not process.startswith((*processes, *KERNELS_OWN)):
            continue
        if process == "swapper" and any("idle" in f or "halt" in f for f in frames):
            continue
        yield process, [f for f in reversed(frames) if f != "[unknown]"] or ["[unknown]"]


def tidy(symbol):
    """Without the compiler's hashes and parameters."""
    symbol = re.sub(r"::h[0-9a-f]{16}$", "", symbol.strip())
    symbol = re.sub(r"\.llvm\.\d+|\+0x[0-9a-f]+|\.isra\.\d+|\.constprop\.\d+|\.part\.\d+", "", symbol)
    return re.sub(r"^ring_core_[0-9_]+__?", "ring ", symbol)


def area(frames):
    for name, pattern in AREAS:
        if re.search(pattern, frames[-1]):
            return name
    return REST


# --- the page ------------------------------------------------------------------------------------------------------


def section(samples, title):
    total = sum(samples.values())
    shares, processes = Counter(), Counter()
    for (process, frames), count in samples.items():
        shares[area(frames)] += count
        processes[process] += count
    lines = [BEGIN, "## Where the time goes", "", f"{title}; `scripts/flamegraph.sh`, {total} samples of both cores without idling.",
             "[The flame graph](flamegraph.svg): from the bottom up, a box is as wide as its function's share. What the kernel does",
             "with interrupts off is seen where it lets them in again, mostly when it wakes somebody.", "",
             "| area, by the innermost function | share |", "| --- | --: |"]
    lines += [f"| {name} | {100 * count / total:.1f} % |" for name, count in shares.most_common()]
    main = [f"{name} {100 * count / total:.0f} %" for name, count in processes.most_common(6)]
    return "\n".join([*lines, "", "By thread: " + ", ".join(main) + ".", END])


def put(page, text):
    if not page.exists():
        print(text)
        return
    old = page.read_text()
    if BEGIN in old:
        new = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: text, old, flags=re.S)
    else:
        new = old.rstrip("\n") + "\n\n" + text + "\n"
    page.write_text(new)


# --- the picture ---------------------------------------------------------------------------------------------------

WIDTH, ROW, MARGIN, TOP = 1280, 17, 10, 46
LEAST = 0.5  # pixels; what is narrower is left out
COLOURS = {"ours": "#f0a35e", "cipher": "#d9534f", "kernel": "#8fb3d9", "other": "#c9c2b6"}


class Box:
    def __init__(self):
        self.count, self.inner = 0, {}

    def add(self, frames, count):
        self.count += count
        if frames:
            self.inner.setdefault(frames[0], Box()).add(frames[1:], count)

    def depth(self, scale):
        return 1 + max((b.depth(scale) for b in self.inner.values() if b.count * scale >= LEAST), default=0)


def colour(symbol):
    if re.search(AREAS[0][1], symbol):
        return COLOURS["cipher"]
    if "frejus" in symbol:
        return COLOURS["ours"]
    if "::" in symbol or symbol.startswith("[") or re.match(r"_?_?(libc|start|clone|GI_)", symbol):
        return COLOURS["other"]
    return COLOURS["kernel"]


def escaped(words):
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def draw(box, symbol, left, bottom, scale, total, parts):
    width = box.count * scale
    if width < LEAST:
        return
    said = f"{symbol}: {100 * box.count / total:.1f} %"
    room = int((width - 6) / 6.2)
    label = symbol if len(symbol) <= room else symbol[: max(0, room - 1)] + "…"
    parts.append(f'<g><title>{escaped(said)}</title><rect x="{left:.1f}" y="{bottom}" width="{max(width - 0.4, 0.4):.1f}"'
                 f' height="{ROW - 1}" fill="{colour(symbol)}" rx="1"/>')
    if room >= 3:
        parts.append(f'<text x="{left + 3:.1f}" y="{bottom + 12}">{escaped(label)}</text>')
    parts.append("</g>")
    for name in sorted(box.inner):
        draw(box.inner[name], name, left, bottom - ROW, scale, total, parts)
        left += box.inner[name].count * scale


def picture(samples, title):
    root = Box()
    for (process, frames), count in samples.items():
        root.add([process, *frames], count)
    scale = (WIDTH - 2 * MARGIN) / root.count
    height = TOP + root.depth(scale) * ROW + MARGIN
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
             ' font-family="Menlo, Consolas, monospace" font-size="10.5" fill="#1e293b" role="img">',
             f"<title>{escaped(title)}</title>", f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
             f'<text x="{MARGIN}" y="20" font-size="14" font-weight="bold">{escaped(title)}</text>',
             f'<text x="{MARGIN}" y="37" fill="#64748b">width: share of busy time on both cores; red: ciphers, orange: frejus,'
             ' blue: the kernel; point at a box for its name</text>']
    draw(root, "all", MARGIN, height - MARGIN - ROW, scale, root.count, parts)
    return "\n".join(parts + ["</svg>", ""])


def main():
    raw, out, title, *processes = sys.argv[1:]
    raw, out = Path(raw), Path(out)
    samples = Counter((process, tuple(frames)) for process, frames in stacks(raw, processes))
    if not samples:
        sys.exit("flamegraph.py: perf saw nothing: is there a cpu-clock event?")
    (out / "flamegraph.svg").write_text(picture(samples, title))
    put(out / "benchmarks.md", section(samples, title))


main()
