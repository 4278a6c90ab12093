#!/usr/bin/env bash
# frejus beside the bare wire and other VPNs, on this machine, in network namespaces of its own.
#
#   sudo scripts/bench.sh                    about ten minutes; writes docs/benchmarks.md and docs/benchmarks.svg
#   sudo scripts/bench.sh --quick            under two minutes; only shows the table
#     --rounds N        how often everybody has a turn (5)
#     --seconds N       how long the single TCP stream runs; the other runs take a third of that (5)
#     --only NAME,...   these systems alone; only shows the table
#     --with-boringtun  build boringtun-cli with cargo where there is none
#     --keep-raw DIR    leave the raw answers there
#
# The turns are interleaved (A B C ... A B C ...), and ratios are taken within a round: this machine's speed changes by
# the minute. FREJUS_BIN, BORINGTUN_CLI, WIREGUARD_GO, OPENVPN, NEBULA and NEBULA_CERT, TINCD, N2N_EDGE and
# N2N_SUPERNODE, FASTD name other binaries than those in the search path; missing packages are installed.
set -euo pipefail
umask 077
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/bench/stage.sh
. scripts/bench/stage.sh
# shellcheck source=scripts/bench/measure.sh
. scripts/bench/measure.sh

usage='usage: scripts/bench.sh [--quick] [--rounds N] [--seconds N] [--only NAME,...] [--with-boringtun] [--keep-raw DIR]'
systems=(veth frejus boringtun wireguard-go openvpn nebula tinc n2n fastd)
# shellcheck disable=SC2034 # the systems read it
rounds=5 seconds=5 with_boringtun=no write=yes keep_raw=''

number() { [[ ${1:-} =~ ^[1-9][0-9]{0,2}$ ]] || die "$usage"; echo "$1"; }

# shellcheck disable=SC2034 # the systems read with_boringtun
while [[ $# -gt 0 ]]; do
    case $1 in
    --quick) rounds=1 seconds=2 write=no ;;
    --rounds) rounds=$(number "${2:-}"); shift ;;
    --seconds) seconds=$(number "${2:-}"); shift ;;
    --only) IFS=, read -ra systems <<<"${2:?$usage}"; write=no; shift ;;
    --with-boringtun) with_boringtun=yes ;;
    --keep-raw) keep_raw=${2:?$usage}; shift ;;
    *) die "$usage" ;;
    esac
    shift
done
side=$((seconds / 3 > 0 ? seconds / 3 : 1))
# shellcheck disable=SC2034 # measure.sh's
idle_pings=500

is_root || die "network namespaces need root: sudo scripts/bench.sh"
for system in "${systems[@]}"; do
    [[ -f scripts/bench/$system.sh && $system != stage && $system != measure && $system != wireguard ]] ||
        die "no system called $system: see scripts/bench"
done
for file in scripts/bench/*.sh; do
    # shellcheck source=/dev/null # each is checked by itself
    . "$file"
done

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The version of the package that a program came in, for programs that don't know their own.
package_version() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || echo unknown; }

take() {
    system=$1
    fn=${1//-/_}
}

prepare() {
    install_missing ip:iproute2 ping:iputils-ping iperf3:iperf3 python3:python3 openssl:openssl
    [[ -c /dev/net/tun ]] || die "no /dev/net/tun: modprobe tun, or let this container have the device"
    box=$(mktemp -d /tmp/frejus-bench.XXXXXX)
    raw=$box/raw
    mkdir "$raw"
    set_the_stage
    local name
    for name in "${systems[@]}"; do
        take "$name"
        if "${fn}_prepare" </dev/null; then
            "${fn}_version" >"$raw/$system.version" 2>/dev/null || true
        else
            printf '%s refuses: %s\n' "$system" "$(cat "$raw/$system.refused" 2>/dev/null)"
        fi
    done
}

describe() {
    local model
    model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
    {
        echo "date=$(date -u +%Y-%m-%d)"
        echo "cpu=${model:-$(uname -m)}"
        echo "cores=$(nproc)"
        echo "memory_mb=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)"
        echo "kernel=$(uname -sr)"
        echo "iperf3=$(iperf3 --version | awk 'NR == 1 { print $2 }')"
        echo "openssl=$(openssl version | awk '{ print $2 }')"
        echo "commit=$(git rev-parse --short HEAD 2>/dev/null || true)"
        echo "load_before=$(cut -d' ' -f1 /proc/loadavg)"
        echo "rounds=$rounds"
        echo "seconds=$seconds"
        echo "side=$side"
        echo "systems=${systems[*]}"
        echo "command=scripts/bench.sh --rounds $rounds --seconds $seconds"
    } >"$raw/machine"
}

play() {
    local name
    for ((round = 1; round <= rounds; round++)); do
        yardstick
        for name in "${systems[@]}"; do
            take "$name"
            [[ ! -e $raw/$system.refused ]] || continue
            printf '%sround %s of %s, after %s s: %s%s\n' "$dim" "$round" "$rounds" "$SECONDS" "$system" "$plain"
            measure </dev/null || printf '%s is out: %s\n' "$system" "$(cat "$raw/$system.refused" 2>/dev/null)"
        done
    done
}

report() {
    local out=$box/report
    mkdir "$out"
    python3 scripts/bench/report.py "$raw" "$out/benchmarks.md" "$out/benchmarks.svg"
    if [[ -n $keep_raw ]]; then
        mkdir -p "$keep_raw"
        cp -r "$raw/." "$out/." "$keep_raw/"
    fi
    if [[ $write == yes ]]; then
        install -m 644 "$out/benchmarks.md" "$out/benchmarks.svg" docs/
        echo "written: docs/benchmarks.md, docs/benchmarks.svg"
    else
        cat "$out/benchmarks.md"
    fi
}

prepare
describe
play
report
