#!/usr/bin/env bash
# frejus beside the bare wire and other VPNs, on this machine, in network namespaces of its own.
#
#   sudo scripts/bench.sh                    about twelve minutes; writes docs/benchmarks.md and its pictures
#   sudo scripts/bench.sh --quick            about three minutes; only shows the table
#     --rounds N        how often everybody has a turn (5)
#     --seconds N       how long the single TCP stream runs; the other runs take a third of that (3)
#     --only NAME,...   these systems alone; only shows the table
#     --with-boringtun  build boringtun-cli with cargo where there is none
#     --keep-raw DIR    leave the raw answers there
#
# Systems are the files of scripts/bench/ and their variants: NAME-card is any of them over a wire like a network card's
# that can't cut UDP; scripts/bench/frejus.sh has frejus's own. The turns are interleaved (A B C ... A B C ...), and
# ratios are taken within a round: this machine's speed changes by the minute. The slower ones have a turn in every
# second round only. FREJUS_BIN, FREJUS_CEILING_BIN, BORINGTUN_CLI, WIREGUARD_GO, OPENVPN, NEBULA and NEBULA_CERT,
# TINCD, N2N_EDGE and N2N_SUPERNODE, FASTD name other binaries than those in the search path; missing packages are
# installed.
set -euo pipefail
umask 077
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/bench/stage.sh
. scripts/bench/stage.sh
# shellcheck source=scripts/bench/measure.sh
. scripts/bench/measure.sh

usage='usage: scripts/bench.sh [--quick] [--rounds N] [--seconds N] [--only NAME,...] [--with-boringtun] [--keep-raw DIR]'
# In every round, and in every second one.
systems=(veth frejus frejus-chacha boringtun wireguard-go frejus-wireguard frejus-relay frejus-null
    veth-card frejus-card wireguard-go-card openvpn nebula tinc n2n fastd)
seldom=' openvpn nebula tinc n2n fastd frejus-wireguard frejus-null veth-card wireguard-go-card '

# shellcheck disable=SC2034 # the systems read it
rounds=5 seconds=3 with_boringtun=no write=yes keep_raw=''

number() { [[ ${1:-} =~ ^[1-9][0-9]{0,2}$ ]] || die "$usage"; echo "$1"; }

# shellcheck disable=SC2034 # the systems read with_boringtun
while [[ $# -gt 0 ]]; do
    case $1 in
    --quick) rounds=1 seconds=1 write=no ;;
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
# shellcheck disable=SC2034 # measure.sh's: how many pings, and the rates at which small datagrams are offered
idle_pings=400 flood_pings=2000 small_rates='300000 450000 0'

is_root || die "network namespaces need root: sudo scripts/bench.sh"

for system in "${systems[@]}"; do
    take "$system"
    [[ -f scripts/bench/$base.sh && $base != stage && $base != measure && $base != wireguard ]] ||
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

# Each base once; a variant of one that refuses is out as well.
prepare_one() {
    take "$1"
    if [[ " ${prepared[*]} " != *" $base "* ]]; then
        prepared+=("$base")
        local variant=$system
        system=$base
        "${fn}_prepare" </dev/null || true
        "${fn}_version" >"$raw/$base.version" 2>/dev/null || true
        take "$variant"
    fi
    if [[ -e $raw/$base.refused ]]; then
        [[ $base == "$system" ]] || cp "$raw/$base.refused" "$raw/$system.refused"
        printf '%s refuses: %s\n' "$system" "$(cat "$raw/$system.refused")"
    fi
}

prepare() {
    install_missing ip:iproute2 ping:iputils-ping iperf3:iperf3 python3:python3 openssl:openssl ethtool:ethtool nft:nftables
    tools
    [[ -c /dev/net/tun ]] || die "no /dev/net/tun: modprobe tun, or let this container have the device"
    box=$(mktemp -d /tmp/frejus-bench.XXXXXX)
    raw=$box/raw
    mkdir "$raw"
    set_the_stage
    local name prepared=()
    for name in "${systems[@]}"; do prepare_one "$name"; done
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
        echo "commit=$(git rev-parse --short HEAD 2>/dev/null || true)"
        echo "load_before=$(cut -d' ' -f1 /proc/loadavg)"
        echo "libp2p_mb=$("$libp2p" | sed -n 's/.*"mb":\([0-9.]*\).*/\1/p')"
        echo "rounds=$rounds"
        echo "seconds=$seconds"
        echo "side=$side"
        echo "pings=$idle_pings"
        echo "small_rates=$small_rates"
        echo "systems=${systems[*]}"
        echo "command=scripts/bench.sh --rounds $rounds --seconds $seconds"
    } >"$raw/machine"
}

play() {
    local name
    for ((round = 1; round <= rounds; round++)); do
        for name in "${systems[@]}"; do
            take "$name"
            [[ $((round % 2)) -eq 1 || $seldom != *" $system "* ]] || continue
            [[ ! -e $raw/$system.refused ]] || continue
            printf '%sround %s of %s, after %s s: %s%s\n' "$dim" "$round" "$rounds" "$SECONDS" "$system" "$plain"
            measure </dev/null || printf '%s is out: %s\n' "$system" "$(cat "$raw/$system.refused" 2>/dev/null)"
        done
    done
}

report() {
    local out=$box/report
    mkdir "$out"
    python3 -B scripts/bench/report.py "$raw" "$out"
    if [[ -n $keep_raw ]]; then
        mkdir -p "$keep_raw"
        cp -r "$raw/." "$out/." "$keep_raw/"
    fi
    if [[ $write == yes ]]; then
        install -m 644 "$out"/* docs/
        echo "written: docs/benchmarks.md, docs/benchmarks.svg"
    else
        cat "$out/benchmarks.md"
    fi
}

prepare
describe
play
report
