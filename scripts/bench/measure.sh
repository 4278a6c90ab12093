# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# What is measured of each system in each round; only raw answers are kept, report.py reads them. Sourced, never run.

now() { date +%s%N; }

# The machine's CPU time so far, in ticks, as the kernel tells it.
ticks() { head -n 1 /proc/stat; }

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

serve() {
    ip netns exec "$tag-b" iperf3 -s >/dev/null 2>&1 &
    round_pids+=("$!")
    for _ in {1..100}; do
        [[ -z $(on b ss -Htln 'sport = :5201') ]] || return 0
        sleep 0.02
    done
    die "iperf3 does not listen: is it there and whole?"
}

# foreign_load WHEN: what others use of the machine, while nothing of ours runs.
foreign_load() {
    ticks >"$turn.$1.rest0"
    sleep 0.4
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
    for ((tries = 0; tries < 60; tries++)); do
        foreign_load before
        (($(foreign_share before) > 15)) || return 0
    done
}

# The stream that counts most: with its CPU time, and pings beside it.
one_stream() {
    ip netns exec "$tag-a" ping -n -i 0.01 -w "$seconds" "$far" >"$turn.loaded" 2>/dev/null &
    local pinger=$!
    ticks >"$turn.cpu0"
    stream one "$seconds"
    ticks >"$turn.cpu1"
    wait "$pinger" || true
}

# measure: one turn of one system.
measure() {
    turn=$raw/$system.$round
    round_pids=()
    daemon=
    await_quiet
    if ! { "${fn}_up" b && start_and_time && "${fn}_settle"; }; then
        stop "${round_pids[@]}"
        round_pids=()
        return 1
    fi
    on a ping -n -i 0.002 -c "$idle_pings" "$far" >"$turn.idle" 2>/dev/null || true
    serve
    one_stream
    stream four "$side" -P 4
    stream many "$side" -P 32
    stream reverse "$side" -R
    stream both "$side" --bidir
    stream udp "$side" -u -b 500M -l 1200
    [[ -z $daemon ]] || awk '/^VmRSS/ { print $2 }' "/proc/$daemon/status" >"$turn.rss" 2>/dev/null || true
    stop "${round_pids[@]}"
    round_pids=()
    foreign_load after
}

# The yardstick of this machine at this minute: bytes a second of OpenSSL's ChaCha20-Poly1305 in pieces of 1420 bytes.
yardstick() {
    openssl speed -mr -seconds 1 -bytes 1420 -evp chacha20-poly1305 2>/dev/null >"$raw/seal.$round" || true
}
