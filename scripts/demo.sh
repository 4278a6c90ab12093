#!/usr/bin/env bash
# The story of frejus, played before your eyes: two machines behind two NATs share a network.
#
#   sudo scripts/demo.sh          builds, plays, cleans up; under a minute once built
#   sudo scripts/demo.sh --keep   leaves it up until you press Enter, with the commands to play on
#
# All of it lives in network namespaces of its own. Nothing of it stays: no namespace, process or file.
# FREJUS_BIN names a binary to take instead of building one.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1:-} in
'') keep=no ;;
--keep) keep=yes ;;
*) die "usage: scripts/demo.sh [--keep]" ;;
esac

is_root || die "network namespaces need root: sudo scripts/demo.sh"

# --- the stage ---------------------------------------------------------------------------------------------------

tag=frdemo-$$
box=
pids=()
watchers=()
spaces=()
ended=no

# Whatever happens: our processes by their ids, our namespaces by their names, our directory.
clean_up() {
    local status=$? pid space
    trap - EXIT INT TERM
    set +e
    for pid in "${watchers[@]}"; do kill -TERM "$pid" 2>/dev/null; done
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null; done
    for pid in "${pids[@]}"; do
        for _ in {1..50}; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    wait # for those that showed the lines of others
    for space in "${spaces[@]}"; do ip netns del "$space" 2>/dev/null; done
    [[ -z $box ]] || rm -rf "$box"
    [[ $ended == no ]] || scene "The end, after $SECONDS s. Nothing of it is left on this machine."
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

space() {
    ip netns add "$tag-$1"
    spaces+=("$tag-$1")
    ip -n "$tag-$1" link set lo up
}

on() { local name=$1; shift; ip netns exec "$tag-$name" "$@"; }

# wire A DEVICE_A B DEVICE_B
wire() {
    ip link add "$2" netns "$tag-$1" type veth peer name "$4" netns "$tag-$3"
    ip -n "$tag-$1" link set "$2" up
    ip -n "$tag-$3" link set "$4" up
}

# Plugs a device of NAME into the internet, ten milliseconds away where the kernel can do that.
plug() {
    wire "$1" "$2" wan "to-$1"
    ip -n "$tag-wan" link set "to-$1" master br0
    tc -n "$tag-wan" qdisc add dev "to-$1" root netem delay 5ms 2>/dev/null || true
    tc -n "$tag-$1" qdisc add dev "$2" root netem delay 5ms 2>/dev/null || true
}

# home NAME NUMBER: a machine behind a router of the most common kind. Its mapping depends on the inner port alone, and
# lets in exactly whom the machine has spoken to (port-restricted cone). The router itself takes no packet from outside:
# a stray one would become a connection of its own and push the mapping to another port.
home() {
    local router=router-$1
    space "$router"
    space "$1"
    plug "$router" wan0
    wire "$router" lan0 "$1" eth0
    ip -n "$tag-$router" addr add "203.0.113.$2/24" dev wan0
    ip -n "$tag-$router" addr add "192.168.$2.1/24" dev lan0
    ip -n "$tag-$1" addr add "192.168.$2.2/24" dev eth0
    ip -n "$tag-$1" route add default via "192.168.$2.1"
    on "$router" sysctl -qw net.ipv4.ip_forward=1
    on "$router" nft -f - <<'RULES'
table ip boxnat {
  chain outbound { type nat hook postrouting priority srcnat; oifname "wan0" masquerade; }
}
table ip boxfilter {
  chain gate { type filter hook forward priority 0;
    iifname "wan0" ct state established,related accept
    iifname "wan0" drop
  }
  chain self { type filter hook input priority 0; iifname "wan0" drop; }
}
RULES
}

set_the_stage() {
    space wan
    ip -n "$tag-wan" link add br0 type bridge mcast_snooping 0
    ip -n "$tag-wan" link set br0 up
    space s
    plug s eth0
    ip -n "$tag-s" addr add 203.0.113.101/24 dev eth0
    ip -n "$tag-s" route add default dev eth0
    home a 10
    home b 11
}

# The line between the two homes, dead without a word; both still reach S.
cut_line() {
    on router-a nft -f - <<'RULES'
table ip cut {
  chain dead { type filter hook forward priority -200; ip daddr 203.0.113.11 drop; ip saddr 203.0.113.11 drop; }
}
RULES
}

mend_line() { on router-a nft delete table ip cut; }

# --- the players ---------------------------------------------------------------------------------------------------

frejus() { local name=$1; shift; on "$name" "$binary" "$@" --state "$box/$name"; }

# start NAME ARGUMENT...: runs `frejus up`, its lines on the screen as they come, codes shortened. Standard input is ours.
start() {
    local name=$1
    shift
    : >"$box/$name.log"
    ip netns exec "$tag-$name" "$binary" up "$@" --name "$name" --state "$box/$name" >"$box/$name.log" 2>&1 <&0 &
    pids+=("$!")
    tail -n +1 -s 0.2 -f --pid="$!" "$box/$name.log" 2>/dev/null \
        > >(sed -uE "s/(frejus1[a-z2-7]{9})[a-z2-7]+/\\1…/; s/^/    $dim${name^^} │$plain /") &
    watchers+=("$!")
}

# Waits until NAME, started last, is ready; or shows why it is not.
ready() {
    local pid=${pids[-1]}
    for _ in {1..15}; do
        if frejus "$1" wait --timeout 2s >/dev/null 2>&1; then
            sleep 0.3 # for its last lines
            return 0
        fi
        kill -0 "$pid" 2>/dev/null || break
    done
    die "${1^^} did not become ready: see its lines above"
}

# The first word like a code in a file.
code_in() { grep -oE 'frejus1[a-z2-7]+' "$1" | head -n 1; }

# field NAME VERB PYTHON: what the expression makes of the verb's JSON `j`.
field() {
    frejus "$1" "$2" --json | python3 -c "import json,sys; j=json.load(sys.stdin); print($3)"
}

# The path from A to B in a line: "direct to 203.0.113.11:51860", "relay through s".
path_of_a() {
    field a peers "next((p['path']['kind'] + (' through ' + p['path']['via'] if p['path']['via'] else ' to ' + p['path']['remote']) for p in j['peers'] if p['name'] == 'b' and p.get('path')), 'none')" 2>/dev/null || echo none
}

now() { date +%s%N; }

since() { awk -v then="$1" -v now="$(now)" 'BEGIN { printf "%.1f s", (now - then) / 1e9 }'; }

# watch_path KIND SECONDS: says each change of A's path to B, until it is of that kind.
watch_path() {
    local began path last='' i
    began=$(now)
    for ((i = 0; i < $2 * 10; i++)); do
        path=$(path_of_a)
        if [[ $path != "$last" ]]; then
            say "$(printf '%-6s after %s: %s%s%s' 'path' "$(since "$began")" "$bold" "$path" "$plain")"
            last=$path
        fi
        [[ $path != "$1"* ]] || return 0
        sleep 0.05
    done
    die "the path did not become $1 within $2 s"
}

bytes_of_s() { on s cat /sys/class/net/eth0/statistics/rx_bytes; }

say() { printf '    %s\n' "$*"; }
scene() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
shown() { printf '    %s$ %s%s\n' "$dim" "$*" "$plain"; }

# --- the play --------------------------------------------------------------------------------------------------------

prepare() {
    install_missing nft:nftables ip:iproute2 ping:iputils-ping python3:python3 curl:curl,ca-certificates \
        sysctl:procps gcc:gcc,libc6-dev
    [[ -c /dev/net/tun ]] || die "no /dev/net/tun: modprobe tun, or let this container have the device"
    if [[ -n ${FREJUS_BIN:-} ]]; then
        binary=$(realpath "$FREJUS_BIN")
    else
        install_rust
        scene "Building (minutes the first time, nothing later)"
        as_builder cargo build --release --locked --bin frejus
        binary=$target/release/frejus
    fi
    [[ -x $binary ]] || die "no binary at $binary: cargo build --release"
    box=$(mktemp -d /tmp/frejus-demo.XXXXXX)
}

draw() {
    cat <<'MAP'

                          S  203.0.113.101
                          |  public: founds the network
          ----------------+-------------------- the "Internet"
          |                                   |
     203.0.113.10                        203.0.113.11
     [ home router ]                     [ home router ]   port-restricted NATs
          |                                   |
     A  192.168.10.2                     B  192.168.11.2   runs a web server
MAP
}

found_and_join() {
    scene "1. S founds a network"
    shown "frejus up --create mymed"
    start s --create mymed
    ready s
    local code='' i
    for ((i = 0; i < 100 && ${#code} == 0; i++)); do
        code=$(code_in "$box/s.log" || true)
        sleep 0.1
    done
    [[ -n $code ]] || die "S printed no code: see its lines above"
    scene "2. A and B join with codes: nothing else is configured anywhere"
    shown "frejus up --join -        # the code on standard input, where ps can't see it"
    # printf is the shell's own: the code is in no process's arguments.
    start a --join - < <(printf '%s\n' "$code")
    ready a
    frejus s invite >"$box/second-code"
    start b --join - <"$box/second-code"
    ready b
}

first_packet() {
    ipv4=$(field b status "j['node']['addresses'][0]")
    ipv6=$(field b status "j['node']['addresses'][1]")
    scene "3. The first packet from A to B: nobody knows anybody yet"
    shown "ping -c 1 $ipv4"
    local answer
    answer=$(on a ping -n -c 1 -W 5 "$ipv4") || die "the first packet was lost"
    say "$(grep 'bytes from' <<<"$answer")"
    say "S carried it at once, while both sides punched their NATs:"
    ip netns exec "$tag-a" ping -n -i 0.1 "$ipv4" >"$box/ping.log" 2>&1 &
    pids+=("$!")
    watch_path direct 20
    shown "frejus peers"
    frejus a peers | sed 's/^/    /'
}

# An IPv6 address stands in brackets in a URL (RFC 3986, section 3.2.2).
url_of() { if [[ $1 == *:* ]]; then echo "http://[$1]:8080/"; else echo "http://$1:8080/"; fi; }

page() {
    scene "4. An unmodified web server on B's virtual addresses"
    mkdir "$box/www"
    printf '<h1>Hello from B, at home, behind a NAT</h1>\n' >"$box/www/index.html"
    head -c 10000000 /dev/urandom >"$box/www/file"
    local at url i
    for at in "$ipv4" "$ipv6"; do
        ip netns exec "$tag-b" python3 -m http.server 8080 --bind "$at" --directory "$box/www" >/dev/null 2>&1 &
        pids+=("$!")
        for ((i = 0; i < 100; i++)); do
            on b curl -s -o /dev/null "$(url_of "$at")" && break
            sleep 0.1
        done
    done
    local before
    for at in "$ipv4" "$ipv6"; do
        url=$(url_of "$at")
        shown "curl $url"
        say "$(on a curl -sS --max-time 20 "$url")"
    done
    before=$(bytes_of_s)
    on a curl -sS --max-time 30 -o /dev/null "$(url_of "$ipv4")file"
    say "Then 10,000,000 bytes more. S saw $(($(bytes_of_s) - before)) bytes meanwhile, and could read none."
}

lost_pings() { python3 -c '
import re, sys
seen = [int(n) for n in re.findall(r"icmp_seq=(\d+)", open(sys.argv[1]).read())]
print(len(set(range(int(sys.argv[2]), max(seen) + 1)) - set(seen)) if seen else 0)' "$box/ping.log" "$1"; }

last_ping() { grep -oE 'icmp_seq=[0-9]+' "$box/ping.log" | tail -n 1 | cut -d= -f2; }

cut_and_mend() {
    scene "5. The line between the homes dies without a word"
    local mark
    mark=$(last_ping)
    cut_line
    watch_path relay 10
    sleep 1
    say "Of ten pings a second, $(lost_pings "$mark") were lost. Everything goes on, through S."
    scene "6. The line is mended"
    mend_line
    watch_path direct 40
}

play_on() {
    scene "It stays up. In another terminal, as root:"
    say "ip netns exec $tag-a $binary peers --state $box/a"
    say "ip netns exec $tag-a $binary status --state $box/a"
    say "ip netns exec $tag-a ping $ipv6"
    say "ip netns exec $tag-a curl http://$ipv4:8080/"
    say "ip netns exec $tag-wan tcpdump -n -i br0 udp"
    if [[ -t 0 ]]; then
        read -r -p "    Press Enter to take all of it down. "
    else
        say "It goes when this process ($$) is told to: kill $$"
        sleep infinity &
        pids+=("$!")
        wait "$!"
    fi
}

prepare
SECONDS=0
draw
set_the_stage
found_and_join
first_packet
page
cut_and_mend
[[ $keep == no ]] || play_on
ended=yes
