#!/usr/bin/env bash
# Every check that belongs to a commit and to a merge, from a fresh Debian or Ubuntu on.
#
#   scripts/test.sh         all rungs; as root, the kernel laboratory too
#   scripts/test.sh quick   the rungs of a commit
#
# NETNS=required makes it a failure if the laboratory can't run; so it is where CI=true and the user is root. Whole logs
# are under target/test-logs; here only the closing lines are shown, and the tail of what failed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1:-all} in
all | quick) scope=${1:-all} ;;
*) die "usage: scripts/test.sh [quick]" ;;
esac

if [[ ${CI:-} == true ]] && is_root; then
    export NETNS=${NETNS:-required}
fi
# A panic's place is enough; a backtrace hides it.
export RUST_BACKTRACE=0 CARGO_TERM_COLOR=never CARGO_TARGET_DIR=$target

# Pinned: a new version's new opinions should not fail an old commit.
deny_version=0.20.2

logs=$target/test-logs
rm -rf "$logs"
mkdir -p "$logs"
failed=()
began=$SECONDS

# rung NAME COMMAND...: runs it with its words in a log, and says how it ended.
rung() {
    local name=$1 log=$logs/${1// /-}.log start=$SECONDS status=0
    shift
    printf '%s%-28s%s ' "$bold" "$name" "$plain"
    "$@" >"$log" 2>&1 </dev/null || status=$?
    local took="$((SECONDS - start)) s"
    if [[ $status -eq 0 ]]; then
        printf '%sok%s %s%s%s\n' "$green" "$plain" "$dim" "$took" "$plain"
        closing_lines "$log"
    else
        printf '%sFAILED%s %s%s%s\n' "$red" "$plain" "$dim" "$took" "$plain"
        closing_lines "$log"
        tail -n 40 "$log" | sed 's/^/    | /'
        printf '    whole log: %s\n' "$log"
        failed+=("$name")
    fi
}

# What a rung has to say: results of test programs that had tests, figures that tests print, what was skipped.
closing_lines() {
    if grep -q '^test result' "$1" && ! grep -qE '^test result: .* [1-9][0-9]* passed' "$1"; then
        printf '    %sno test ran%s\n' "$yellow" "$plain"
    fi
    sed -nE -e '/^test result: .* 0 passed; 0 failed/d' \
        -e 's/^(test result: .*|SKIPPED .*|.*\(target .*|TCP through .*|resident memory .*|advisories.*|the wall .*)/    \1/p' "$1" || true
}

# deny WHAT...
deny() { PATH=$target/tools/bin:$PATH cargo deny --workspace --locked check "$@"; }

have_deny() { PATH=$target/tools/bin:$PATH cargo deny --version; }

install_deny() { cargo install --locked --quiet --version "$deny_version" --root "$target/tools" cargo-deny; }

# A database from the Internet: without it nothing can be said, and that is said.
advisories() {
    deny advisories && echo "advisories: none" && return
    if grep -q 'failed to fetch advisory database' "$logs/advisories.log"; then
        printf 'advisories NOT CHECKED: the database of RustSec could not be fetched; run this again with the Internet\n'
        return 0
    fi
    return 1
}

formatted() { cargo fmt --all --check && { [[ ! -f fuzz/Cargo.toml ]] || cargo fmt --manifest-path fuzz/Cargo.toml --check; }; }

lints() {
    # The second is for a law, same seed, same bytes: a walk over a hash map breaks it.
    cargo clippy --locked --workspace --all-targets -- -D warnings &&
        cargo clippy --locked -p frejus-overlay -p frejus-ipam -- -D warnings -D clippy::iter_over_hash_type
}

# For those who work on it, so with all that is private.
documentation() {
    RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' \
        cargo doc --locked --workspace --no-deps --document-private-items
}

scripts() { shellcheck -x scripts/*.sh scripts/bench/*.sh .ci/run && bash -n scripts/*.sh; }

# The laboratory starts the binary that users get. Two laboratories at a time suit two cores.
laboratory() {
    FREJUS_BIN=$target/release/frejus cargo test --locked --no-fail-fast -p frejus-netns -- --test-threads=2 --show-output
}

install_missing nft:nftables ip:iproute2 ping:iputils-ping iperf3:iperf3 tcpdump:tcpdump conntrack:conntrack \
    ethtool:ethtool stun:stun-client turnutils_natdiscovery:coturn socat:socat faketime:faketime tinyproxy:tinyproxy squid:squid \
    miniupnpd:miniupnpd,miniupnpd-nftables python3:python3 curl:curl,ca-certificates sysctl:procps \
    shellcheck:shellcheck gcc:gcc,libc6-dev
install_rust
install_components clippy rustfmt

rung "format" formatted
rung "lints" lints
rung "documentation" documentation
rung "crate wall" scripts/wall.sh
rung "scripts" scripts
have_deny >/dev/null 2>&1 || rung "install cargo-deny" install_deny
rung "licences bans sources" deny licenses bans sources
rung "advisories" advisories
rung "unit and property" cargo test --locked --no-fail-fast -p frejus-ipam -p frejus-overlay -p frejus-lab -p frejus-bench
rung "simulation" cargo test --locked --no-fail-fast -p frejus-sim
rung "daemon and directory" cargo test --locked --no-fail-fast -p frejus
if [[ -f fuzz/Cargo.toml ]]; then
    rung "fuzz corpus" cargo test --locked --no-fail-fast --manifest-path fuzz/Cargo.toml
fi
if [[ $scope == all ]]; then
    rung "release build" cargo build --release --locked --bin frejus
    rung "kernel laboratory" laboratory
fi

# All test programs of all rungs together; a rung that never ran counts for nothing here, and fails below.
totals() {
    sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed;.*/\1 \2/p' "$logs"/*.log |
        awk '{ passed += $1; failed += $2 } END { printf "%d passed, %d failed\n", passed, failed }'
}

minutes=$(((SECONDS - began) / 60)) seconds=$(((SECONDS - began) % 60))
if [[ ${#failed[@]} -gt 0 ]]; then
    printf '%sFAILED after %d min %d s:%s %s\n' "$red" "$minutes" "$seconds" "$plain" "$(IFS=,; echo "${failed[*]}")"
    exit 1
fi
printf '%severything passed%s in %d min %d s\n' "$green" "$plain" "$minutes" "$seconds"
totals
