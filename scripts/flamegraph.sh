#!/usr/bin/env bash
# Where the time goes during one TCP stream: writes docs/flamegraph.svg, and the shares into docs/benchmarks.md.
#
#   sudo scripts/flamegraph.sh [NAME]        NAME as in scripts/bench.sh --only; frejus if there is none
#     --seconds N   how long (5)
#     --out DIR     write there, and leave docs/ alone
#
# perf looks at the whole machine 999 times a second: both daemons, both iperf3, and the kernel between them. For names
# of functions that the compiler has put into others, name a binary with line tables in FREJUS_BIN:
#   CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=line-tables-only cargo build --release --bin frejus
set -euo pipefail
umask 077
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/bench/stage.sh
. scripts/bench/stage.sh
# shellcheck source=scripts/bench/measure.sh
. scripts/bench/measure.sh

usage='usage: scripts/flamegraph.sh [NAME] [--seconds N] [--out DIR]'
what=frejus seconds=5 out=docs
# shellcheck disable=SC2034 # the systems read it
with_boringtun=no
while [[ $# -gt 0 ]]; do
    case $1 in
    --seconds) seconds=${2:?$usage}; shift ;;
    --out) out=${2:?$usage}; shift ;;
    -*) die "$usage" ;;
    *) what=$1 ;;
    esac
    shift
done
is_root || die "perf and network namespaces need root: sudo scripts/flamegraph.sh"
[[ $seconds =~ ^[1-9][0-9]?$ ]] || die "$usage"
take "$what"
[[ -f scripts/bench/$base.sh ]] || die "no system called $what: see scripts/bench"
for file in scripts/bench/*.sh; do
    # shellcheck source=/dev/null # each is checked by itself
    . "$file"
done
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

install_missing ip:iproute2 ping:iputils-ping iperf3:iperf3 python3:python3 perf:linux-perf ethtool:ethtool nft:nftables
box=$(mktemp -d /tmp/frejus-flame.XXXXXX)
raw=$box/raw turn=$box/raw/turn
mkdir "$raw"

fell_out() { die "$system: $(cat "$raw/$system.refused" "$raw/$base.refused" 2>/dev/null)"; }

set_the_stage
system=$base
"${fn}_prepare" </dev/null || fell_out
take "$what"
relay='' daemon=''
{ set_the_scene "$scene" && "${fn}_up" b </dev/null && start_and_time </dev/null && "${fn}_settle"; } || fell_out
serve
stream warm 1
on a iperf3 -c "$far" -t $((seconds + 2)) -J >"$turn.one.json" 2>/dev/null &
round_pids+=("$!")
sleep 1
# cpu-clock: virtual machines have no counters. The stacks are unwound from copies: the binary has no frame pointers.
perf record -q -a -e cpu-clock -F 999 --call-graph dwarf,8192 -o "$box/perf.data" -- sleep "$seconds" 2>"$box/perf.log" ||
    die "perf: $(tail -n 1 "$box/perf.log")"
wait "$!" || true
perf script -i "$box/perf.data" -F comm,ip,sym --no-inline >"$box/stacks" 2>/dev/null
daemons=(iperf3)
if [[ -n $daemon ]]; then
    # Threads have names of their own.
    mapfile -t threads < <(cat "/proc/$daemon/task/"*/comm | sort -u)
    daemons+=("${threads[@]}")
fi
version=$("${fn}_version" 2>/dev/null || true)
mkdir -p "$out"
umask 022
python3 -B scripts/bench/flamegraph.py "$box/stacks" "$out" "$what $version, $(uname -sr), one TCP stream, $seconds s" "${daemons[@]}"
echo "written: $out/flamegraph.svg"
