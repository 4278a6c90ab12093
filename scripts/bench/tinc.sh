# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# tinc in router mode, A connecting to B, defaults for everything else.

tinc_version() { "$tinc_bin" --version | awk 'NR == 1 { print $3 }'; }

tinc_prepare() {
    find_program TINCD tincd tinc || return 1
    tinc_bin=$found
    local name number=0
    for name in a b; do
        number=$((number + 1))
        mkdir -p "$box/tinc-$name/hosts"
        printf 'Name = %s\nMode = router\nInterface = tinc0\nAddressFamily = ipv4\n' "$name" >"$box/tinc-$name/tinc.conf"
        printf 'Address = %s\nSubnet = 10.97.6.%s/32\n' "${outer[$name]}" "$number" >"$box/tinc-$name/hosts/$name"
        "$tinc_bin" -c "$box/tinc-$name" -K 2048 </dev/null >"$box/tinc-$name.keys" 2>&1 ||
            { refuse "no keys: $(tail -n 1 "$box/tinc-$name.keys")"; return 1; }
    done
    printf 'ConnectTo = b\n' >>"$box/tinc-a/tinc.conf"
    cp "$box/tinc-a/hosts/a" "$box/tinc-b/hosts/"
    cp "$box/tinc-b/hosts/b" "$box/tinc-a/hosts/"
}

tinc_up() {
    launch "$1" "$tinc_bin" -c "$box/tinc-$1" -D --pidfile="$box/tinc-$1.pid"
    local number=1
    [[ $1 == a ]] || number=2
    far=10.97.6.2
    dress "$1" tinc0 "10.97.6.$number"
}

tinc_settle() { :; }
