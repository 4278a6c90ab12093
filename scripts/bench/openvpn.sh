# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# openvpn, point to point over UDP, TLS with certificates known by their fingerprints, AES-256-GCM, in user space.

openvpn_version() { "$openvpn_bin" --version | awk 'NR == 1 { print $2 }'; }

openvpn_prepare() {
    find_program OPENVPN openvpn openvpn || return 1
    openvpn_bin=$found
    local name
    for name in a b; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$name" \
            -keyout "$box/openvpn-$name.key" -out "$box/openvpn-$name.crt" 2>/dev/null
        openssl x509 -in "$box/openvpn-$name.crt" -noout -fingerprint -sha256 | cut -d= -f2 >"$box/openvpn-$name.print"
    done
    openvpn_config a b 1 2 'tls-client'
    openvpn_config b a 2 1 $'tls-server\ndh none'
}

# openvpn_config NAME OTHER NUMBER OTHER_NUMBER ROLE
openvpn_config() {
    cat >"$box/openvpn-$1.conf" <<CONFIG
dev ov0
dev-type tun
proto udp4
local ${outer[$1]}
remote ${outer[$2]}
port 1194
ifconfig 10.97.4.$3 10.97.4.$4
$5
cert $box/openvpn-$1.crt
key $box/openvpn-$1.key
peer-fingerprint $(cat "$box/openvpn-$2.print")
data-ciphers AES-256-GCM
verb 1
CONFIG
}

openvpn_up() {
    launch "$1" "$openvpn_bin" --config "$box/openvpn-$1.conf"
    far=10.97.4.2
    [[ $1 == a ]] || sleep 0.3 # its device comes only with the first client
}

openvpn_settle() { :; }
