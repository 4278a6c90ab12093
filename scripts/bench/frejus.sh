# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# frejus: S founds the network and stays; A and B are enrolled once, and start each round with what they remember.
#   frejus            as installed
#   frejus-chacha     the cipher is ChaCha20-Poly1305, whatever is fastest here
#   frejus-wireguard  WireGuard's own keys, as towards a stock WireGuard peer
#   frejus-relay      A and B do not reach each other: S relays
#   frejus-null       a build without a cipher, the ceiling of this design (docs/benchmarks.md says how to make one)

frejus_version() { "$frejus_bin" --version | awk '{ print $2 }'; }

frejus_do() { local name=$1; shift; on "$name" "$frejus_bin" "$@" --state "$box/frejus-$name-state"; }

# Whether this binary's `up` has the option.
frejus_knows() { "$frejus_bin" up --help | grep -q -- "$1"; }

frejus_prepare() {
    frejus_bin=$(realpath -m "${FREJUS_BIN:-$target/release/frejus}")
    [[ -x $frejus_bin ]] || die "no binary at $frejus_bin: cargo build --release, or name one in FREJUS_BIN"
    frejus_found || return 1
    local name
    for name in a b; do
        frejus_do s invite >"$box/frejus-code" || { refuse "no code: $(last_words s)"; return 1; }
        # The code travels in a file of ours, never in an argument.
        frejus_do "$name" join - --name "$name" <"$box/frejus-code" >"$box/frejus-$name-joined" 2>&1 ||
            { refuse "no passport: $(tail -n 1 "$box/frejus-$name-joined")"; return 1; }
    done
    rm -f "$box/frejus-code"
}

# A relay gives each node 1 Gb/s; what is measured is the relay, so its budget is lifted where it can be.
frejus_found() {
    local lifted=()
    ! frejus_knows --relay-rate || lifted=(--relay-rate 100000)
    launch_for_good s "$frejus_bin" up --create bench --name s --state "$box/frejus-s-state" "${lifted[@]}"
    frejus_s=$launched
    frejus_do s wait --timeout 15s >/dev/null 2>&1 || { refuse "S not ready: $(last_words s)"; return 1; }
}

# frejus_variant: what is different about this one; refuses what this binary can't do.
frejus_variant() {
    frejus_options=() frejus_path=--direct frejus_as=$frejus_bin
    case $system in
    frejus-chacha) frejus_options=(--cipher chacha20-poly1305) ;;
    frejus-wireguard) frejus_options=(--transport wireguard) ;;
    frejus-relay)
        frejus_path=''
        frejus_knows --relay-rate || { refuse "this build has no --relay-rate: its relay stops at 1 Gb/s"; return 1; }
        ;;
    frejus-null)
        frejus_as=${FREJUS_CEILING_BIN:-}
        [[ -x $frejus_as ]] || { refuse "FREJUS_CEILING_BIN names no build without a cipher"; return 1; }
        ;;
    esac
    [[ ${#frejus_options[@]} -eq 0 ]] || frejus_knows "${frejus_options[0]}" ||
        { refuse "this build has no option ${frejus_options[0]}"; return 1; }
}

frejus_up() {
    frejus_variant || return 1
    launch "$1" env FREJUS_NO_CIPHER=insecure "$frejus_as" up --state "$box/frejus-$1-state" "${frejus_options[@]}"
    [[ $1 == b ]] || return 0
    frejus_do b wait --timeout 15s >/dev/null 2>&1 || { refuse "B not ready: $(last_words b)"; return 1; }
    far=$(frejus_do b status --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["node"]["addresses"][0])')
}

# The path that is compared stands, and what the nodes say of it is kept.
frejus_settle() {
    # shellcheck disable=SC2086 # an option or none
    frejus_do a wait --peer b $frejus_path --timeout 20s >/dev/null 2>&1 || { refuse "no path within 20 s"; return 1; }
    [[ $system != frejus-relay ]] || relay=$frejus_s
    frejus_do a status --json >"$turn.status" 2>/dev/null || true
    frejus_do a peers --json >"$turn.peers" 2>/dev/null || true
}
