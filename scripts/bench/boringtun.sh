# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# boringtun-cli, Cloudflare's program on the library that frejus uses for its handshakes.

boringtun_version() { "$boringtun_bin" --version | awk '{ print $NF }'; }

boringtun_prepare() {
    if [[ $with_boringtun == yes && -z ${BORINGTUN_CLI:-} ]] && ! has boringtun-cli; then
        install_rust
        as_builder cargo install --quiet --locked --root "$target/bench-tools" boringtun-cli >"$box/boringtun-build.log" 2>&1 ||
            { refuse "cargo could not install it"; return 1; }
        PATH=$target/bench-tools/bin:$PATH
    fi
    find_program BORINGTUN_CLI boringtun-cli || return 1
    boringtun_bin=$found
    wireguard_keys
}

boringtun_up() {
    launch "$1" "$boringtun_bin" --foreground --disable-drop-privileges "bt$$$1"
    wireguard_set "$1" "bt$$$1" 10.97.2
}

boringtun_settle() { :; }
