# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# frejus: S founds the network and stays; A and B are enrolled once, and start each round with what they remember.

frejus_version() { "$frejus_bin" --version | awk '{ print $2 }'; }

frejus_do() { local name=$1; shift; on "$name" "$frejus_bin" "$@" --state "$box/frejus-$name-state"; }

frejus_prepare() {
    frejus_bin=$(realpath "${FREJUS_BIN:-$target/release/frejus}")
    [[ -x $frejus_bin ]] || die "no binary at $frejus_bin: cargo build --release, or name one in FREJUS_BIN"
    launch_for_good s "$frejus_bin" up --create bench --name s --state "$box/frejus-s-state"
    frejus_do s wait --timeout 15s >/dev/null 2>&1 || { refuse "S not ready: $(last_words s)"; return 1; }
    local name
    for name in a b; do
        frejus_do s invite >"$box/frejus-code" || { refuse "no code: $(last_words s)"; return 1; }
        # The code travels in a file of ours, never in an argument.
        frejus_do "$name" join - --name "$name" <"$box/frejus-code" >"$box/frejus-$name-joined" 2>&1 ||
            { refuse "no passport: $(tail -n 1 "$box/frejus-$name-joined")"; return 1; }
    done
    rm -f "$box/frejus-code"
}

frejus_up() {
    launch "$1" "$frejus_bin" up --state "$box/frejus-$1-state"
    [[ $1 == b ]] || return 0
    frejus_do b wait --timeout 15s >/dev/null 2>&1 || { refuse "B not ready: $(last_words b)"; return 1; }
    far=$(frejus_do b status --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["node"]["addresses"][0])')
}

# The direct path is what is compared.
frejus_settle() {
    frejus_do a wait --peer b --direct --timeout 20s >/dev/null 2>&1 || { refuse "no direct path within 20 s"; return 1; }
    frejus_do a status --json >"$turn.status" 2>/dev/null || true
}
