# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# n2n: a supernode on S that stays, two edges with a common key.

n2n_version() { "$n2n_bin" -h 2>&1 | sed -n 's/.*v\.\([0-9][0-9.]*\).*/\1/p' | head -n 1; }

n2n_prepare() {
    find_program N2N_SUPERNODE supernode n2n || return 1
    local super=$found
    find_program N2N_EDGE edge n2n || return 1
    n2n_bin=$found
    n2n_key=$(openssl rand -hex 16)
    launch_for_good s "$super" -l 7654
}

n2n_up() {
    local number=1
    [[ $1 == a ]] || number=2
    # The key goes by the environment: an argument would be seen by everyone.
    N2N_KEY=$n2n_key launch "$1" "$n2n_bin" -d n2n0 -c bench -a "10.97.7.$number" -l "${outer[s]}:7654"
    far=10.97.7.2
    [[ $1 == a ]] || sleep 0.5
}

n2n_settle() { :; }
