#!/usr/bin/env bash
# Every pair of NAT classes, in both directions of the first packet: on the kernel through the laboratory, and in the
# simulator. Writes docs/nat-matrix.md.
#
#   sudo scripts/nat-matrix.sh            five runs of each of 49 cells on the kernel, twenty seeds in the simulator; and
#                                         as many of each pair with careless routers
#   sudo scripts/nat-matrix.sh 20         twenty runs of each
#
# FREJUS_BIN names a binary to take instead of building one. Every run is a line in target/nat-matrix/, and a campaign
# that is broken off leaves those that it has; the page is written from them all the same.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

repetitions=${1:-5}
[[ $repetitions =~ ^[1-9][0-9]*$ ]] || die "usage: scripts/nat-matrix.sh [REPETITIONS]"
is_root || die "network namespaces need root: sudo scripts/nat-matrix.sh"

install_missing nft:nftables ip:iproute2 ping:iputils-ping tcpdump:tcpdump conntrack:conntrack sysctl:procps \
    gcc:gcc,libc6-dev
install_rust

export CARGO_TARGET_DIR=$target
if [[ -z ${FREJUS_BIN:-} ]]; then
    as_builder cargo build --release --locked --bin frejus
    export FREJUS_BIN=$target/release/frejus
fi
# The driver waits most of the time; the simulator does not.
as_builder cargo build --locked -p frejus-netns --bin frejus-matrix
as_builder cargo build --release --locked -p frejus-sim --bin frejus-sim-matrix
as_builder cargo test --locked --no-run -p frejus-netns --test modifiers

lines=$target/nat-matrix
mkdir -p "$lines"
seeds=$((repetitions > 20 ? repetitions : 20))
printf '%ssimulator%s: %d seeds\n' "$bold" "$plain" "$seeds"
"$target/release/frejus-sim-matrix" "$seeds" >"$lines/simulator.jsonl"
printf '%skernel%s: %d runs of 49 cells\n' "$bold" "$plain" "$repetitions"
NETNS=required "$target/debug/frejus-matrix" run "$repetitions" >"$lines/kernel.jsonl" ||
    printf '%sthe campaign was broken off%s\n' "$yellow" "$plain"

# Five pairs: one such router on either side, two at 4 and at 20 ms, two with a hop between.
printf '%skernel%s: %d runs of 5 pairs with careless routers\n' "$bold" "$plain" "$repetitions"
NETNS=required NAT_RUNS=$repetitions cargo test --locked -p frejus-netns --test modifiers careless -- --test-threads=1 \
    --nocapture >"$lines/careless.txt" 2>&1 ||
    printf '%sa pair with careless routers was not direct%s: %s\n' "$yellow" "$plain" "$lines/careless.txt"
careless=$(grep -c ', run [0-9]*: direct ' "$lines/careless.txt" || true)

commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
cat "$lines/simulator.jsonl" "$lines/kernel.jsonl" |
    "$target/debug/frejus-matrix" report \
        "runs of each cell=$repetitions on the kernel, $seeds in the simulator" \
        "pairs with careless routers=$careless of $((5 * repetitions)) runs direct" \
        "kernel=Linux $(uname -r), $(nproc) cores, two laboratories at a time" \
        "frejus=$("$FREJUS_BIN" version | head -n 1), $commit" >"$lines/page.md"
mv "$lines/page.md" docs/nat-matrix.md
printf 'docs/nat-matrix.md\n'
