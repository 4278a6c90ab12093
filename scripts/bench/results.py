"""Reads the raw answers that scripts/bench.sh keeps, and makes medians of them. It knows nothing of pages and pictures."""

import json
import os
import random
import re
import statistics
from pathlib import Path

DISTURBED = 15  # percent of the machine used by others, just before or after a turn
STOLEN = 2  # percent of the machine taken by the hypervisor during the single stream
STREAMS = ["one", "four", "many", "reverse", "both"]


def read(path):
    return path.read_text(errors="replace") if path.exists() else ""


def parsed(path):
    try:
        return json.loads(read(path))
    except ValueError:
        return {}


def present(values):
    return [v for v in values if v is not None]


def median(values):
    values = present(values)
    return statistics.median(values) if values else None


def share(sorted_values, part):
    """The value below which that part of them lies (nearest rank)."""
    return sorted_values[min(len(sorted_values) - 1, int(part * len(sorted_values)))]


def interval(values, draws=2000):
    """What lies between the 5th and the 95th of a hundred medians of values drawn again (bootstrap)."""
    source = random.Random(1)
    medians = sorted(statistics.median(source.choices(values, k=len(values))) for _ in range(draws))
    return share(medians, 0.05), share(medians, 0.95)


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
    """Round trips in µs, the shortest first."""
    return sorted(float(t) * 1000 for t in re.findall(r"time=([0-9.]+) ms", read(path)))


def streams(at, found):
    for kind in STREAMS:
        end = parsed(at(f"{kind}.json")).get("end", {})
        size, found[kind] = received(end)
        if kind != "one" or not size:
            continue
        found["retransmits"] = end.get("sum_sent", {}).get("retransmits")
        if used := between(at("cpu0"), at("cpu1")):
            found["cpu"] = used[0] / (size / 1e9)
            found["steal"] = used[2] / max(sum(used), 0.01) * 100
        if read(at("relay1")).strip():
            spent = int(read(at("relay1"))) - int(read(at("relay0")))
            found["relay_cpu"] = spent / os.sysconf("SC_CLK_TCK") / (size / 1e9)


def round_trips(at, found):
    for kind in ("idle", "back", "loaded"):
        if times := pings(at(kind)):
            found[f"{kind}_mean"] = statistics.mean(times)
            found[f"{kind}_p50"], found[f"{kind}_p99"] = share(times, 0.5), share(times, 0.99)
            found[f"{kind}_max"] = times[-1]


def counted(at, kind):
    """Sent, received and reordered datagrams; None if the source or the counter failed."""
    sent, came = parsed(at(f"{kind}.sent")), parsed(at(f"{kind}.count"))
    if not sent.get("sent") or "received" not in came:
        return None
    return sent["sent"], came["received"], came["reordered"], sent["seconds"]


def datagrams(at, rates, found):
    reordered = 0
    for kind in ("large", "small"):
        if figures := counted(at, kind):
            found[f"{kind}_loss"] = max(0.0, 100 * (1 - figures[1] / figures[0]))
            reordered += figures[2]
    for rate in rates:
        if figures := counted(at, f"most.{rate}"):
            found["most"] = max(found.get("most", 0.0), figures[1] / figures[3])
            reordered += figures[2]
    if "most" in found:
        found["reordered"] = reordered


def memory(at, found):
    for when in ("before", "after"):
        rows = dict(line.split() for line in read(at(f"{when}.rss")).splitlines())
        if "VmRSS:" in rows:
            found[f"rss_{when}"] = int(rows["VmRSS:"]) / 1024


def sealing(at, found):
    rows = [json.loads(line) for line in read(at("seal")).splitlines()]
    if rows:
        found["seal_chacha"] = statistics.mean(row["chacha20-poly1305"] for row in rows)
        found["seal_aes"] = statistics.mean(row["aes-256-gcm"] for row in rows)


def turn(raw, system, number, rates):
    """All figures of one system in one round, by name; what is missing is absent."""
    at = lambda ending: raw / f"{system}.{number}.{ending}"
    found = {}
    streams(at, found)
    round_trips(at, found)
    datagrams(at, rates, found)
    memory(at, found)
    sealing(at, found)
    if read(at("start")).strip():
        found["start"] = int(read(at("start"))) / 1e9
    for peer in parsed(at("peers")).get("peers", []):
        if peer.get("name") == "b":
            found["cipher"] = peer.get("cipher")
    rests = [between(at(f"{when}.rest0"), at(f"{when}.rest1")) for when in ("before", "after")]
    found["foreign"] = max((r[0] / max(sum(r), 0.01) * 100 for r in rests if r), default=0.0)
    return found


def is_calm(turn):
    return turn["foreign"] <= DISTURBED and (turn.get("steal") or 0) <= STOLEN


def calm(turns):
    """Without the figures of turns that others disturbed, unless that were all of them."""
    if not any(is_calm(t) and t.get("one") for t in turns):
        return turns
    return [t if is_calm(t) else {"foreign": t["foreign"]} for t in turns]


class Results:
    def __init__(self, raw):
        raw = Path(raw)
        self.machine = dict(line.split("=", 1) for line in read(raw / "machine").splitlines())
        self.systems = self.machine["systems"].split()
        rounds = range(1, int(self.machine["rounds"]) + 1)
        rates = self.machine["small_rates"].split()
        self.turns = {s: calm([turn(raw, s, r, rates) for r in rounds]) for s in self.systems}
        for s in self.systems:
            self.add_differences(s)
        self.refused = {s: read(raw / f"{s}.refused").strip() for s in self.systems if (raw / f"{s}.refused").exists()}
        self.versions = {path.stem: read(path).strip() for path in raw.glob("*.version")}
        self.disturbed = sum(1 for turns in self.turns.values() for t in turns if t.keys() == {"foreign"})

    def add_differences(self, system):
        """What the tunnel adds to a round trip: less the bare wire's in the same round."""
        for mine, wire in zip(self.turns[system], self.turns.get("veth", [])):
            for kind in ("idle", "back"):
                for figure in ("mean", "p50", "p99"):
                    what = f"{kind}_{figure}"
                    if system != "veth" and what in mine and what in wire:
                        mine[f"{what}_added"] = mine[what] - wire[what]

    def ran(self, system):
        return self.of(system, "one") is not None

    def running(self):
        return [s for s in self.systems if self.ran(s)]

    def values(self, system, what):
        return present(t.get(what) for t in self.turns.get(system, []))

    def of(self, system, what):
        return median(self.values(system, what))

    def ratios(self, system, what, base, base_what=None):
        """Ratios taken within a round."""
        pairs = zip(self.turns.get(system, []), self.turns.get(base, []))
        base_what = base_what or what
        return [a[what] / b[base_what] for a, b in pairs if a.get(what) and b.get(base_what)]

    def all(self, what):
        return [t[what] for turns in self.turns.values() for t in turns if t.get(what) is not None]
