#!/usr/bin/env bash
# Builds frejus without a cipher, to know how fast forwarding could be: docs/benchmarks.md shows it as "no cipher".
#
#   scripts/ceiling.sh       prints where the program is: sudo FREJUS_CEILING_BIN=THAT scripts/bench.sh
#
# The program is insecure: nothing that it carries between two of its kind is sealed. It says so, and starts only with
# FREJUS_NO_CIPHER=insecure in its environment. No feature and no profile of a release leads to it.
set -euo pipefail

# Cargo calls this again in place of the compiler, for our own crates only; so the dependencies are a release's.
if [[ ${1:-} == rustc || ${1:-} == */rustc ]]; then
    exec "$@" --cfg frejus_null_cipher
fi

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[[ $# -eq 0 ]] || die "usage: scripts/ceiling.sh"
install_rust
as_builder env RUSTC_WORKSPACE_WRAPPER="$PWD/scripts/ceiling.sh" \
    cargo build --quiet --locked --profile ceiling --bin frejus --target-dir "$target/ceiling" || die "cargo could not build it"
echo "$target/ceiling/ceiling/frejus"
