# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# What the two WireGuard programs share. Their control sockets are not in the namespace, so a device's name is unique.

# wireguard_keys: a pair for A and one for B, in files of ours.
wireguard_keys() {
    has wg || (install_missing wg:wireguard-tools) >/dev/null 2>&1 || { refuse "no wg: install wireguard-tools"; return 1; }
    [[ -c /dev/net/tun ]] || { refuse "no /dev/net/tun"; return 1; }
    local name
    for name in a b; do
        wg genkey >"$box/$base-$name.key"
        wg pubkey <"$box/$base-$name.key" >"$box/$base-$name.pub"
    done
}

# wireguard_set NAME DEVICE SUBNET: dressed only once it has its keys, so that nothing goes astray.
wireguard_set() {
    local other=b number=1
    [[ $1 == a ]] || { other=a number=2; }
    for _ in {1..500}; do
        on "$1" wg show "$2" >/dev/null 2>&1 && break
        kill -0 "$launched" 2>/dev/null || break
        sleep 0.01
    done
    on "$1" wg set "$2" listen-port 51820 private-key "$box/$base-$1.key" peer "$(cat "$box/$base-$other.pub")" \
        allowed-ips "$3.0/24" endpoint "${outer[$other]}:51820" 2>/dev/null ||
        { refuse "no device: $(last_words "$1")"; return 1; }
    far=$3.2
    dress "$1" "$2" "$3.$number" 1420
}
