# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# The benchmark's stage: namespaces, the wires between them, the processes in them, and how all of it goes away.
# Sourced, never run.

tag=frbench-$$
box=
spaces=()
pids=()     # alive until the end
round_pids=() # alive until this system's turn is over

# Whatever happens: our processes by their ids, our namespaces by their names, our directory.
clean_up() {
    local status=$? space
    trap - EXIT INT TERM
    set +e
    stop "${round_pids[@]}" "${pids[@]}"
    for space in "${spaces[@]}"; do ip netns del "$space" 2>/dev/null; done
    [[ -z $box ]] || rm -rf "$box"
    exit "$status"
}

# stop PID...: asks, waits up to five seconds each, then insists.
stop() {
    local pid
    for pid in "$@"; do kill -TERM "$pid" 2>/dev/null; done
    for pid in "$@"; do
        for _ in {1..100}; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.05
        done
        kill -KILL "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    return 0
}

space() {
    ip netns add "$tag-$1"
    spaces+=("$tag-$1")
    ip -n "$tag-$1" link set lo up
}

on() { local name=$1; shift; ip netns exec "$tag-$name" "$@"; }

# The outer addresses: A and B are compared, S is the third that some systems need in order to meet.
declare -A outer=([a]=203.0.113.1 [b]=203.0.113.2 [s]=203.0.113.101)

# wire NAME DEVICE OTHER DEVICE: a veth pair of MTU 1500 between two namespaces.
wire() {
    ip link add "$2" netns "$tag-$1" mtu 1500 type veth peer name "$4" netns "$tag-$3"
    ip -n "$tag-$1" link set "$2" up
    ip -n "$tag-$3" link set "$4" up
}

# A and B are joined by one veth pair and nothing else, since a bridge between them would halve the bare wire. S has one
# address, and a wire of its own to each.
set_the_stage() {
    local name
    for name in a b s; do space "$name"; done
    wire a eth0 b eth0
    for name in a b; do
        ip -n "$tag-$name" addr add "${outer[$name]}/24" dev eth0
        wire "$name" eth1 s "to-$name"
        # Of several with one address the kernel answers on all wires.
        [[ $name == b ]] || ip -n "$tag-s" addr add "${outer[s]}/32" dev to-a
        ip -n "$tag-$name" route add "${outer[s]}/32" dev eth1 src "${outer[$name]}"
        ip -n "$tag-s" route add "${outer[$name]}/32" dev "to-$name" src "${outer[s]}"
    done
    ip -n "$tag-s" route add default dev to-a
}

# set_the_scene NAME: what is different about the wire for this turn.
#   plain   as the kernel makes it: super-packets cross a veth uncut
#   card    no UDP segmentation at the sender, GRO at the receiver: as between two network cards that can't cut UDP
#   apart   A and B do not reach each other
set_the_scene() {
    local name other udp=on gro=off
    [[ $1 != card ]] || { udp=off gro=on; }
    for name in a b; do
        on "$name" ethtool -K eth0 tx-udp-segmentation "$udp" gro "$gro" >/dev/null 2>&1 ||
            { refuse "ethtool can't switch tx-udp-segmentation of a veth"; return 1; }
        on "$name" nft delete table inet apart 2>/dev/null || true
        [[ $1 != apart ]] || {
            other=b
            [[ $name == a ]] || other=a
            on "$name" nft "add table inet apart; add chain inet apart in { type filter hook input priority 0; };
                add rule inet apart in iifname eth0 ip saddr ${outer[$other]} drop"
        }
    done
}

# launch NAME COMMAND...: in the background of this turn; its words go to a log. The id is in $launched.
launch() {
    local name=$1
    shift
    ip netns exec "$tag-$name" "$@" >"$box/$system-$name.log" 2>&1 <&0 &
    launched=$!
    round_pids+=("$launched")
    [[ $name != a ]] || daemon=$launched
}

# The same until the end of everything.
launch_for_good() {
    launch "$@"
    unset 'round_pids[-1]'
    pids+=("$launched")
}

# The words with which the process on NAME explains itself, in one line for a table.
last_words() { grep -v '^ *$' "$box/$system-$1.log" 2>/dev/null | tail -n 1 | tr '|\n' '/ ' | cut -c 1-160; }

# dress NAME DEVICE ADDRESS [MTU]: waits for the device that a daemon makes; then an address in a /24 of its own.
dress() {
    for _ in {1..500}; do
        if on "$1" test -e "/sys/class/net/$2"; then
            [[ -z ${4:-} ]] || ip -n "$tag-$1" link set "$2" mtu "$4"
            ip -n "$tag-$1" addr add "$3/24" dev "$2" && ip -n "$tag-$1" link set "$2" up
            return
        fi
        kill -0 "$launched" 2>/dev/null || break
        sleep 0.01
    done
    refuse "no device $2: $(last_words "$1")"
}

# refuse REASON: this system is out, and the table says why.
refuse() {
    printf '%s\n' "$*" >"$raw/$system.refused"
    return 1
}

# find_program VARIABLE PROGRAM [PACKAGE]: the path of a program, from the environment, or the search path, or the package that
# the distribution has; in $found.
find_program() {
    found=${!1:-}
    if [[ -n $found ]]; then
        [[ -x $found ]] || { refuse "$1 names no program: $found"; return 1; }
        return 0
    fi
    if ! has "$2" && [[ -n ${3:-} ]]; then
        (install_missing "$2:$3") >/dev/null 2>&1 || { refuse "no package $3 that apt-get could install"; return 1; }
    fi
    found=$(command -v "$2") || { refuse "no $2 in the search path (or name it in $1)"; return 1; }
}

# take NAME: this system's turn. What it is made of: the functions in the file of its base, the wire between A and B, and
# how much of it is measured.
take() {
    system=$1 base=$1 scene=plain scope=everything
    case $1 in
    *-card) base=${1%-card} scene=card scope=the_streams ;;
    frejus-chacha) base=frejus ;;
    frejus-relay) base=frejus scene=apart scope=the_streams ;;
    frejus-wireguard | frejus-null) base=frejus scope=the_streams ;;
    esac
    fn=${base//-/_}
}

# Our own source and counter of datagrams, the yardstick, and libp2p by itself; built where they are missing or old.
tools() {
    local directory=${FREJUS_BENCH_TOOLS:-$target/release}
    if [[ -z ${FREJUS_BENCH_TOOLS:-} ]]; then
        install_rust
        as_builder cargo build --quiet --locked --release -p frejus-bench || die "cargo could not build frejus-bench"
    fi
    flood=$directory/frejus-flood seal=$directory/frejus-seal libp2p=$directory/frejus-libp2p
    [[ -x $flood && -x $seal && -x $libp2p ]] || die "no frejus-flood, frejus-seal and frejus-libp2p in $directory"
}
