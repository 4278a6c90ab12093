# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# nebula: a CA, two hosts that know each other's outer address, defaults for everything else.

nebula_version() { "$nebula_bin" -version | awk '{ print $NF }'; }

nebula_prepare() {
    find_program NEBULA nebula nebula || return 1
    nebula_bin=$found
    find_program NEBULA_CERT nebula-cert nebula || return 1
    local cert=$found name number other
    (cd "$box" && "$cert" ca -name bench -out-crt nebula-ca.crt -out-key nebula-ca.key) >/dev/null 2>&1 ||
        { refuse "nebula-cert made no CA"; return 1; }
    for name in a b; do
        number=1 other=b
        [[ $name == a ]] || { number=2 other=a; }
        (cd "$box" && "$cert" sign -name "$name" -ip "10.97.5.$number/24" -ca-crt nebula-ca.crt -ca-key nebula-ca.key \
            -out-crt "nebula-$name.crt" -out-key "nebula-$name.key") >/dev/null 2>&1 ||
            { refuse "nebula-cert signed nothing"; return 1; }
        nebula_config "$name" "10.97.5.$((3 - number)): ['${outer[$other]}:4242']"
    done
}

# nebula_config NAME WHERE_THE_OTHER_IS
nebula_config() {
    cat >"$box/nebula-$1.yml" <<CONFIG
pki: { ca: $box/nebula-ca.crt, cert: $box/nebula-$1.crt, key: $box/nebula-$1.key }
static_host_map: { $2 }
lighthouse: { am_lighthouse: false, hosts: [] }
listen: { host: 0.0.0.0, port: 4242 }
tun: { dev: neb0 }
logging: { level: warning, format: text }
firewall:
  outbound: [{ port: any, proto: any, host: any }]
  inbound: [{ port: any, proto: any, host: any }]
CONFIG
}

nebula_up() {
    launch "$1" "$nebula_bin" -config "$box/nebula-$1.yml"
    far=10.97.5.2
    [[ $1 == a ]] || sleep 0.3
}

nebula_settle() { :; }
