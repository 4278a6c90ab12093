"""What the project wants of itself, and whether a run shows it. It measures nothing and forgives nothing."""

from results import STREAMS, median

SAID = {"four": "4 streams", "many": "32 streams", "reverse": "reverse", "both": "both directions at once"}


def ratio(system, what, base, base_what=None):
    return lambda r: median(r.ratios(system, what, base, base_what))


def figure(system, what, scale=1.0):
    def of(r):
        value = r.of(system, what)
        return None if value is None else value * scale

    return of


def worst(system, what):
    return lambda r: max(r.values(system, what), default=None)


def beyond_libp2p(r):
    held, libp2p = r.of("frejus", "rss_after"), r.machine.get("libp2p_mb")
    return held - float(libp2p) if held and libp2p else None


def at_least(limit):
    return lambda value: value >= limit


def at_most(limit):
    return lambda value: value <= limit


# What, the target in words, how the figure is had, the form in which it is shown, and when it is met.
TARGETS = [
    ("one TCP stream, as installed", "≥ 12 × boringtun-cli", ratio("frejus", "one", "boringtun"), "{:.1f} ×", at_least(12)),
    ("", "≥ 3.3 × wireguard-go", ratio("frejus", "one", "wireguard-go"), "{:.1f} ×", at_least(3.3)),
    ("the same, ChaCha20-Poly1305", "≥ 8.5 × boringtun-cli", ratio("frejus-chacha", "one", "boringtun"), "{:.1f} ×",
     at_least(8.5)),
    ("", "≥ 2.4 × wireguard-go", ratio("frejus-chacha", "one", "wireguard-go"), "{:.1f} ×", at_least(2.4)),
    *[(SAID[kind], "≥ 85 % of one stream", ratio("frejus", kind, "frejus", "one"), "{:.0%}", at_least(0.85))
      for kind in STREAMS[1:]],
    ("CPU seconds per GB, whole machine, as installed", "≤ 2.5", figure("frejus", "cpu"), "{:.2f}", at_most(2.5)),
    ("the same, ChaCha20-Poly1305", "≤ 3.4", figure("frejus-chacha", "cpu"), "{:.2f}", at_most(3.4)),
    ("ping added, every 2 ms, mean", "≤ 110 µs", figure("frejus", "idle_mean_added"), "{:.0f} µs", at_most(110)),
    ("ping added, back to back, mean", "≤ 36 µs", figure("frejus", "back_mean_added"), "{:.0f} µs", at_most(36)),
    ("ping under a saturating stream, mean", "≤ 2.5 ms", figure("frejus", "loaded_mean", 1e-3), "{:.2f} ms", at_most(2.5)),
    ("the same, maximum", "≤ 8 ms", figure("frejus", "loaded_max", 1e-3), "{:.2f} ms", at_most(8)),
    ("UDP, 1200 bytes at 500 Mb/s, worst round", "no loss", worst("frejus", "large_loss"), "{:.3f} %", at_most(0)),
    ("UDP, 64 bytes at 200,000/s, worst round", "no loss", worst("frejus", "small_loss"), "{:.3f} %", at_most(0)),
    ("64-byte datagrams delivered", "≥ 400,000/s", figure("frejus", "most"), "{:,.0f}/s", at_least(400_000)),
    ("without UDP segmentation on the wire, one stream", "≥ 60 % of with", ratio("frejus-card", "one", "frejus"), "{:.0%}",
     at_least(0.6)),
    ("the same, 4 streams", "≥ 60 % of with", ratio("frejus-card", "four", "frejus"), "{:.0%}", at_least(0.6)),
    ("through a relay on this machine, one stream", "≥ 80 % of direct", ratio("frejus-relay", "one", "frejus"), "{:.0%}",
     at_least(0.8)),
    ("CPU seconds per GB of the relay itself", "≤ 0.4", figure("frejus-relay", "relay_cpu"), "{:.2f}", at_most(0.4)),
    ("resident memory after all that, beyond libp2p's own", "≤ 16 MB", beyond_libp2p, "{:.1f} MB", at_most(16)),
]


def rows(results):
    """What, target, measured, verdict."""
    version = results.versions.get("wireguard-go", "")
    for what, target, had, form, met in TARGETS:
        value = had(results)
        target = target.replace("wireguard-go", f"wireguard-go {version}".rstrip())
        if value is None:
            yield what, target, "–", "not measured"
            continue
        verdict = met(value)
        yield what, target, form.format(value), "met" if verdict else "**not met**"
