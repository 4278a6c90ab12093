# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# wireguard-go. Distributions often have one from before its offloads (2023): WIREGUARD_GO names a newer one.

wireguard_go_version() {
    local said
    said=$("$wireguard_go_bin" --version 2>/dev/null | sed -n '1s/^wireguard-go v\?//p')
    # Debian's says "unspecified" of itself.
    [[ ${said:-unspecified} != unspecified ]] || said=$(package_version wireguard-go)
    echo "$said"
}

wireguard_go_prepare() {
    find_program WIREGUARD_GO wireguard-go wireguard-go || return 1
    wireguard_go_bin=$found
    wireguard_keys
}

wireguard_go_up() {
    launch "$1" "$wireguard_go_bin" -f "wgo$$$1"
    wireguard_set "$1" "wgo$$$1" 10.97.3
}

wireguard_go_settle() { :; }
