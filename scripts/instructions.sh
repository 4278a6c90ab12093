#!/usr/bin/env bash
# Instructions of the hot functions, counted by callgrind: the same on a busy machine as on a quiet one.
#
#   scripts/instructions.sh            compares with benches/instructions.txt; shows what changed by more than 2 %
#     --accept      writes the counts of today there
#     --strict      ends with 1 if something needs more than 2 % more
#     NAME...       these functions alone, or those whose names begin so
#
# The counts belong to one compiler, one target and one version of valgrind, which stand in the file: with others
# compare two runs of your own. valgrind knows no AVX-512, so ciphers run as on a machine that has AVX2 only.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

baseline=benches/instructions.txt
accept=no strict=no wanted=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --accept) accept=yes ;;
    --strict) strict=yes ;;
    -*) die "usage: scripts/instructions.sh [--accept] [--strict] [NAME...]" ;;
    *) wanted+=("$1") ;;
    esac
    shift
done

install_missing valgrind:valgrind python3:python3
install_rust
counted=$(mktemp)
trap 'rm -f "$counted"' EXIT

# Where cargo put the program; it has a number of its own in its name.
program=$(as_builder cargo bench --quiet --locked --bench instructions --no-run --message-format json 2>/dev/null |
    python3 -c 'import json, sys
for line in sys.stdin:
    said = json.loads(line)
    if said.get("executable") and said["target"]["name"] == "instructions": print(said["executable"])')
[[ -x $program ]] || die "no benchmark to count: cargo bench --bench instructions --no-run says why"

is_wanted() {
    local name
    [[ ${#wanted[@]} -gt 0 ]] || return 0
    for name in "${wanted[@]}"; do [[ $1 != "$name"* ]] || return 0; done
    return 1
}

# count NAME: instructions of one run, counted inside `measured` alone.
count() {
    local said
    said=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*measured*' "$program" "$1" 2>&1) ||
        die "valgrind could not run $1: $(tail -n 1 <<<"$said")"
    awk -v runs="$runs" '/Collected/ { printf "%.0f", $NF / runs }' <<<"$said"
}

runs=$("$program" | sed -n 's/^runs //p')
made_with="$(rustc --version), $(valgrind --version), $(uname -m)"
{
    echo "# Instructions of one run of each; scripts/instructions.sh --accept writes this file."
    echo "# $made_with"
    while IFS= read -r name; do
        ! is_wanted "$name" || printf '%s\t%s\n' "$name" "$(count "$name")"
    done < <("$program" | tail -n +2)
} >"$counted"

if [[ $accept == yes ]]; then
    [[ ${#wanted[@]} -eq 0 ]] || die "--accept takes all functions: leave the names out"
    install -m 644 "$counted" "$baseline"
    echo "written: $baseline"
    exit
fi
[[ ! -f $baseline ]] || [[ $(sed -n 2p "$baseline") == "# $made_with" ]] ||
    printf '%s%s was made with %s%s\n' "$yellow" "$baseline" "$(sed -n '2s/^# //p' "$baseline")" "$plain"
touch -a "$baseline"
awk -F '\t' -v strict="$strict" '
    /^#/ || !/\t/ { next }
    FNR == NR { before[$1] = $2; next }
    !($1 in before) { printf "%-32s %12d  new\n", $1, $2; next }
    {
        change = before[$1] ? 100 * ($2 - before[$1]) / before[$1] : 0
        mark = change > 2 ? "  MORE" : change < -2 ? "  less" : ""
        worse += change > 2
        printf "%-32s %12d %+7.1f %%%s\n", $1, $2, change, mark
    }
    END { exit strict == "yes" && worse > 0 }' "$baseline" "$counted"
