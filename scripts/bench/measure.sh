# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# What is measured of each system in each round; only raw answers are kept, report.py reads them. Sourced, never run.

now() { date +%s%N; }

# The machine's CPU time so far, in ticks, as the kernel tells it.
ticks() { head -n 1 /proc/stat; }

# One process's CPU time so far, in ticks: user and system (proc(5); its name has no space in it).
process_ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat" 2>/dev/null; }

# start_and_time FAR: starts A, whose partner waits already, and stops the clock at the first answer from FAR.
start_and_time() {
    local began
    began=$(now)
    "${fn}_up" a || return 1
    for _ in {1..1000}; do
        if on a ping -n -q -c 1 -w 15 -i 0.01 "$far" >/dev/null 2>&1; then
            echo $(($(now) - began)) >"$turn.start"
            return 0
        fi
        (($(now) - began < 15000000000)) || break
        sleep 0.005
    done
    refuse "no answer through the tunnel within 15 s: $(last_words a)"
}

# stream KIND SECONDS OPTION...: one iperf3 run from A to B; its JSON is kept.
stream() {
    local kind=$1 seconds=$2
    shift 2
    on a timeout $((seconds + 10)) iperf3 -c "$far" -t "$seconds" -J "$@" >"$turn.$kind.json" 2>/dev/null || true
}

# wait_for_port NAME tcp|udp PORT
wait_for_port() {
    local kind=-Htln
    [[ $2 == tcp ]] || kind=-Huln
    for _ in {1..100}; do
        [[ -z $(on "$1" ss "$kind" "sport = :$3") ]] || return 0
        sleep 0.02
    done
    return 1
}

serve() {
    ip netns exec "$tag-b" iperf3 -s >/dev/null 2>&1 &
    round_pids+=("$!")
    wait_for_port b tcp 5201 || die "iperf3 does not listen: is it there and whole?"
}

# datagrams KIND SIZE RATE MILLISECONDS: our own source on A, our own counter on B; iperf3 is too slow for small ones.
datagrams() {
    local counter
    ip netns exec "$tag-b" "$flood" count 0.0.0.0:5300 >"$turn.$1.count" 2>/dev/null &
    counter=$!
    round_pids+=("$counter")
    wait_for_port b udp 5300 || true
    on a timeout 20 "$flood" send "$far:5300" "$2" "$3" "$4" >"$turn.$1.sent" 2>/dev/null || true
    wait "$counter" || true
    unset 'round_pids[-1]'
}

# foreign_load WHEN: what others use of the machine, while nothing of ours runs.
foreign_load() {
    ticks >"$turn.$1.rest0"
    sleep 0.3
    ticks >"$turn.$1.rest1"
}

# Of the machine's cores, in percent, what others used in that moment; iowait is idle.
foreign_share() {
    paste -d ' ' "$turn.$1.rest0" "$turn.$1.rest1" |
        tr -s ' ' | awk '{ for (i = 2; i <= 9; i++) { d = $(i + NF / 2) - $i; all += d; if (i == 5 || i == 6) idle += d } }
            END { if (all) printf "%d", 100 - 100 * idle / all; else print 0 }'
}

# Gives others up to half a minute to finish what they do.
await_quiet() {
    local tries
    for ((tries = 0; tries < ${quiet_tries:-60}; tries++)); do
        foreign_load before
        (($(foreign_share before) > 15)) || return 0
    done
}

# The stream that counts most, with the CPU time of the machine and of the relay, and pings beside it.
one_stream() {
    ip netns exec "$tag-a" ping -n -i 0.01 -w "$seconds" "$far" >"$turn.loaded" 2>/dev/null &
    local pinger=$!
    round_pids+=("$pinger")
    ticks >"$turn.cpu0"
    [[ -z $relay ]] || process_ticks "$relay" >"$turn.relay0"
    stream one "$seconds"
    ticks >"$turn.cpu1"
    [[ -z $relay ]] || process_ticks "$relay" >"$turn.relay1"
    wait "$pinger" || true
    unset 'round_pids[-1]'
}

# Nobody else talks: every 2 ms, and back to back (-A as root: the next as soon as the answer is here).
idle_round_trips() {
    on a ping -n -i 0.002 -c "$idle_pings" "$far" >"$turn.idle" 2>/dev/null || true
    on a timeout 10 ping -n -A -c "$flood_pings" "$far" >"$turn.back" 2>/dev/null || true
}

# small_packets: 64 bytes of payload. At a rate that must not lose any; then how many can be delivered at most, which is not at
# full speed, where the source takes the CPU that the tunnel needs: the best of several rates counts.
small_packets() {
    local rate
    datagrams small 64 200000 1000
    for rate in $small_rates; do datagrams "most.$rate" 64 "$rate" 400; done
}

# memory WHEN
memory() {
    [[ -z $daemon ]] || awk '/^VmRSS|^RssAnon/ { print $1, $2 }' "/proc/$daemon/status" >"$turn.$1.rss" 2>/dev/null || true
}

everything() {
    idle_round_trips
    serve
    one_stream
    stream four "$side" -P 4
    stream many "$side" -P 32
    stream reverse "$side" -R
    stream both "$side" --bidir
    datagrams large 1200 52083 1000 # 500 Mb/s
    small_packets
}

# For variants of a system that has been measured in full.
the_streams() {
    serve
    one_stream
    stream four "$side" -P 4
    stream reverse "$side" -R
}

# measure: one turn of one system.
measure() {
    turn=$raw/$system.$round
    round_pids=()
    daemon='' relay=''
    await_quiet
    yardstick
    if ! { set_the_scene "$scene" && "${fn}_up" b && start_and_time && "${fn}_settle"; }; then
        stop "${round_pids[@]}"
        round_pids=()
        return 1
    fi
    memory before
    "$scope"
    memory after
    yardstick
    stop "${round_pids[@]}"
    round_pids=()
    foreign_load after
}

# The yardstick of this machine at this minute: nanoseconds in which ring seals 1420 bytes, with either cipher.
yardstick() { "$seal" >>"$turn.seal"; }
