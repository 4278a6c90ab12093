"""Turns the raw answers of scripts/bench.sh into a page and a picture. It measures nothing.

Usage: report.py RAW OUT, from the repository's root. OUT gets benchmarks.md and benchmarks.svg; what
scripts/flamegraph.sh wrote into the last page is kept.
"""

import re
import sys
from pathlib import Path

import targets
from picture import is_ours, picture
from results import DISTURBED, STOLEN, STREAMS, Results, interval, median

YARDSTICK = "boringtun"
NAMES = {
    "veth": "bare veth", "boringtun": "boringtun-cli", "frejus-chacha": "frejus, ChaCha20",
    "frejus-wireguard": "frejus, WireGuard's keys", "frejus-relay": "frejus, relayed", "frejus-null": "frejus, no cipher",
}
BEGIN, END = "<!-- flame graph: begin -->", "<!-- flame graph: end -->"


def name(system):
    if system.endswith("-card"):
        return name(system.removesuffix("-card")) + ", card"
    return NAMES.get(system, system)


def shown(value, form="{:.2f}"):
    return "–" if value is None else form.format(value)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " --: |" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def strong(system, cells):
    return [f"**{c}**" if is_ours(system) and c != "–" else c for c in cells]


def ranged(values, form="{:.2f}"):
    """The median, and the interval that it would lie in if the rounds were drawn again."""
    if not values:
        return "–"
    if len(values) < 2:
        return form.format(values[0])
    low, high = interval(values)
    return f"{form.format(median(values))} ({form.format(low)}–{form.format(high)})"


def in_full(results):
    return [s for s in results.running() if results.of(s, "idle_mean") is not None]


def in_part(results):
    return [s for s in results.running() if results.of(s, "idle_mean") is None]


def refusals(systems, results, width):
    missing = [s for s in systems if not results.ran(s)]
    return [[name(s), "refused"] + ["–"] * (width - 2) for s in missing]


def seals(results, system):
    return f"{shown(results.of(system, 'seal_chacha'), '{:.0f}')} / {shown(results.of(system, 'seal_aes'), '{:.0f}')}"


def speeds(results):
    head = ["system", "1 stream", f"× {name(YARDSTICK)}", "4 streams", "32 streams", "reverse", "both directions",
            "CPU s/GB", "retransmits", "seal ns"]
    rows = []
    for s in in_full(results):
        cells = [name(s), shown(results.of(s, "one")), ranged(results.ratios(s, "one", YARDSTICK))]
        cells += [shown(results.of(s, k)) for k in STREAMS[1:]] + [shown(results.of(s, "cpu"))]
        cells += [shown(results.of(s, "retransmits"), "{:.0f}")]
        rows.append(strong(s, cells) + [seals(results, s)])
    plain = [s for s in results.systems if not s.endswith("-card") and s not in
             ("frejus-relay", "frejus-wireguard", "frejus-null")]
    return table(head, rows + refusals(plain, results, len(head)))


def variants(results):
    """Each beside its own plain form, in the same round."""
    head = ["system", "1 stream", "of the plain one", "4 streams", "reverse", "CPU s/GB", "relay alone, CPU s/GB", "retransmits",
            "seal ns"]
    rows = []
    for s in in_part(results):
        base = s.removesuffix("-card") if s.endswith("-card") else "frejus"
        cells = [name(s), shown(results.of(s, "one")), ranged(results.ratios(s, "one", base), "{:.0%}")]
        cells += [shown(results.of(s, k)) for k in ("four", "reverse", "cpu", "relay_cpu")]
        cells += [shown(results.of(s, "retransmits"), "{:.0f}")]
        rows.append(strong(s, cells) + [seals(results, s)])
    some = [s for s in results.systems if s.endswith("-card") or s in ("frejus-relay", "frejus-wireguard", "frejus-null")]
    rows += refusals(some, results, len(head))
    return table(head, rows) if rows else "None in this run."


def delays(results):
    head = ["system", "every 2 ms: p50", "p99", "mean", "back to back: p50", "p99", "mean", "beside a stream: mean ms", "max ms"]
    rows = []
    for s in in_full(results):
        added = "" if s == "veth" else "_added"
        cells = [name(s)]
        for kind in ("idle", "back"):
            cells += [shown(results.of(s, f"{kind}_{k}{added}"), "{:.0f}") for k in ("p50", "p99", "mean")]
        for k in ("loaded_mean", "loaded_max"):
            v = results.of(s, k)
            cells.append(shown(v / 1000 if v is not None else None))
        rows.append(strong(s, cells))
    return table(head, rows)


def datagrams(results):
    head = ["system", "1200 bytes at 500 Mb/s: loss %", "64 bytes at 200,000/s: loss %", "64 bytes: delivered/s", "out of order"]
    rows = []
    for s in in_full(results):
        cells = [name(s), shown(results.of(s, "large_loss")), shown(results.of(s, "small_loss"))]
        cells += [shown(results.of(s, "most"), "{:,.0f}"), shown(results.of(s, "reordered"), "{:.0f}")]
        rows.append(strong(s, cells))
    return table(head, rows)


def memory(results):
    """What each holds, and how much of ours is libp2p's."""
    head = ["system", "resident before traffic, MB", "and after all of it, MB", "start to first answer, s"]
    rows = []
    for s in in_full(results):
        if s != "veth":
            cells = [shown(results.of(s, k), "{:.1f}") for k in ("rss_before", "rss_after")]
            rows.append(strong(s, [name(s), *cells, shown(results.of(s, "start"))]))
    libp2p = results.machine.get("libp2p_mb")
    share = f"\n\nOf frejus's, libp2p by itself holds {libp2p} MB." if libp2p else ""
    return table(head, rows) + share


def reasons(results):
    if not results.refused:
        return "Everybody ran."
    return "Refused to run, or fell out:\n\n" + "\n".join(f"- {name(s)}: {why}" for s, why in results.refused.items())


def conditions(results):
    m = results.machine
    versions = [f"{name(s)} {results.versions[s]}" for s in results.systems if results.versions.get(s) and s != "veth"]
    lines = [
        f"- {m['date']}: {m['cores']} × {m['cpu']}, {int(m['memory_mb']) / 1024:.1f} GB, {m['kernel']}; sources at"
        f" {m['commit'] or 'an unknown commit'}.",
        "- Versions: " + ", ".join(versions) + f", iperf3 {m['iperf3']}.",
    ]
    chacha, aes = results.all("seal_chacha"), results.all("seal_aes")
    if chacha:
        lines.append(f"- To seal 1420 bytes ring, the library that frejus uses, needed {median(chacha):.0f} ns with"
                     f" ChaCha20-Poly1305 and {median(aes):.0f} ns with AES-256-GCM on one core (from turn to turn"
                     f" {min(chacha):.0f} to {max(chacha):.0f}, {min(aes):.0f} to {max(aes):.0f}).")
    ciphers = {c for t in results.turns.get("frejus", []) if (c := t.get("cipher"))}
    if ciphers:
        lines.append("- frejus as installed picked " + " and ".join(sorted(ciphers)) + ".")
    foreign, steal = results.all("foreign"), results.all("steal")
    if foreign and steal:
        lines.append(f"- Used by others just before or after a turn: {median(foreign):.0f} % of the machine (median; at most"
                     f" {max(foreign):.0f} %). Turns left out because that was more than {DISTURBED} %, or because the"
                     f" hypervisor took more than {STOLEN} %: {results.disturbed} of {len(foreign)}.")
    return "\n".join(lines)


PAGE = """# Benchmarks

Written by `{command}`; no figure here was typed by hand.

![Throughput, CPU time, small packets and round trips of each system](benchmarks.svg)

{conditions}

## Targets

{targets}

Shares and multiples are medians of ratios taken within a round; what is no ratio depends on the machine, so see the time
that sealing took above. The targets were set against wireguard-go's head of 2025, which has offloads.

## Throughput, Gb/s

{speeds}

## Other wires, other keys, Gb/s

{variants}

## Round trips, µs

{delays}

The bare wire's own, and of everybody else what the tunnel adds to the bare wire's in the same round; beside a stream, the
whole round trip in ms.

## Datagrams

{datagrams}

## Memory, start

{memory}

{reasons}

{flames}

## What was measured

Two network namespaces joined by one veth pair, MTU 1500; both ends, both daemons and the source of traffic share the
machine's cores. frejus's super peer and n2n's supernode stand in a third namespace with wires of its own. Every system
has its own defaults: the WireGuard programs' devices have an MTU of 1420, nebula's 1300. The others are what the
versions above say, mostly the distribution's packages: wireguard-go since 2023 and nebula since August 2026 have
offloads and are several times as fast as their older selves.

{rounds} rounds, interleaved; each cell is the median of the rounds, and in brackets stands the interval in which nine of
ten medians lie when the rounds are drawn again (bootstrap). The slower systems and some variants took part in every
second round only. The single TCP stream runs {seconds} s, every other TCP run {side} s, every run of datagrams at most 1 s.

- *seal ns*: what ring needs to seal 1420 bytes with ChaCha20-Poly1305 / AES-256-GCM, just before and after the turn.
- *CPU s/GB*: what the whole machine used during the single stream (`/proc/stat`, without idle and stolen time),
  per 10⁹ bytes received: both daemons, both iperf3 and the kernel, and whatever else ran.
- *every 2 ms*: {pings} pings, nothing else going on. *Back to back*: `ping -A` as root, the next request as soon as the
  answer is here. *Beside a stream*: ping every 10 ms beside the single stream.
- *64 bytes: delivered*: the best of several offered rates ({rates} a second, and as fast as the source can); at the highest
  the source itself takes the CPU that the tunnel needs. Payload of 64 bytes; source and counter are `benches/tools`.
- *card*: UDP segmentation switched off at the sender and GRO on at the receiver: a veth else hands super-packets
  through uncut, which no real network card does.
- *relayed*: A and B can't reach each other, S relays: three nodes on the same cores. The relay's budget is lifted.
- *no cipher*: the ceiling, a build that seals nothing. It is insecure and can't be made by accident, see below.
- *resident*: the daemon of the sending side, code included. *libp2p by itself*: what a process holds more after it has started
  a directory alone, met another, stored a record there and found it again.
- *start*: from starting one side, the other being up, to the first answered ping. Both have been enrolled before.
- *retransmits*: TCP segments of the single stream.

## Repeat it

```sh
cargo build --release
sudo scripts/bench.sh --with-boringtun    # --quick shows a table in three minutes
cargo bench --bench micro                 # the hot functions by the clock
scripts/instructions.sh                   # and by their instructions, compared with benches/instructions.txt
sudo scripts/flamegraph.sh                # where the time goes
```

The script installs the distribution's packages of the others; a variable such as `WIREGUARD_GO` names another binary.
{ceiling}"""

CEILING = """The ceiling is built apart, and named to the benchmark:

```sh
sudo FREJUS_CEILING_BIN="$(scripts/ceiling.sh)" scripts/bench.sh
```
"""


def flames():
    """What scripts/flamegraph.sh put into the last page."""
    page = Path("docs/benchmarks.md")
    found = re.search(re.escape(BEGIN) + ".*?" + re.escape(END), page.read_text() if page.exists() else "", re.S)
    return found[0] if found else f"{BEGIN}\n{END}"


def page(results):
    m = results.machine
    rows = [list(row) for row in targets.rows(results)]
    rates = ", ".join(f"{int(rate):,}" for rate in m["small_rates"].split() if rate != "0")
    return PAGE.format(
        command=m["command"].strip(), conditions=conditions(results), targets=table(["what", "target", "measured", ""], rows),
        speeds=speeds(results), variants=variants(results), delays=delays(results), datagrams=datagrams(results),
        memory=memory(results), reasons=reasons(results), flames=flames(), rounds=m["rounds"], seconds=m["seconds"],
        side=m["side"], pings=m["pings"], rates=rates, ceiling=CEILING)


def main():
    raw, out = map(Path, sys.argv[1:3])
    results = Results(raw)
    (out / "benchmarks.md").write_text(page(results))
    (out / "benchmarks.svg").write_text(picture(results, name))


main()
