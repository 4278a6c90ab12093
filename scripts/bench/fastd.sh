# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# fastd with the method that its manual recommends for speed, salsa2012+umac.

fastd_version() { "$fastd_bin" --version | awk '{ print $2 }'; }

fastd_prepare() {
    find_program FASTD fastd fastd || return 1
    fastd_bin=$found
    local name
    for name in a b; do
        "$fastd_bin" --generate-key >"$box/fastd-$name.keys" 2>&1
        awk '/^Secret/ { print $2 }' "$box/fastd-$name.keys" >"$box/fastd-$name.secret"
        awk '/^Public/ { print $2 }' "$box/fastd-$name.keys" >"$box/fastd-$name.public"
        rm -f "$box/fastd-$name.keys"
    done
    fastd_config a b
    fastd_config b a
}

fastd_config() {
    cat >"$box/fastd-$1.conf" <<CONFIG
log level warn;
mode tun;
interface "fd0";
method "salsa2012+umac";
mtu 1426;
bind ${outer[$1]}:10000;
secret "$(cat "$box/fastd-$1.secret")";
peer "$2" { key "$(cat "$box/fastd-$2.public")"; remote ${outer[$2]}:10000; }
CONFIG
}

fastd_up() {
    launch "$1" "$fastd_bin" --config "$box/fastd-$1.conf"
    local number=1
    [[ $1 == a ]] || number=2
    far=10.97.8.2
    dress "$1" fd0 "10.97.8.$number"
}

fastd_settle() { :; }
