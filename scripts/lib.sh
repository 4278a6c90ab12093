# shellcheck shell=bash
# What test.sh and demo.sh share: words, colours, and getting what is missing. Sourced, never run.

# shellcheck disable=SC2034 # the scripts that source this paint with them
# Colours for people: on a terminal, unless NO_COLOR is set (no-color.org).
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' yellow=$'\e[33m' plain=$'\e[0m'
else
    bold='' dim='' red='' green='' yellow='' plain=''
fi

# Every script stands at the root of the repository.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

# The oldest Rust that builds this, as Cargo.toml says.
rust_version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

die() {
    printf '%s%s: %s%s\n' "$red" "$(basename "$0")" "$*" "$plain" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

is_root() { [[ $(id -u) -eq 0 ]]; }

# install_missing PROGRAM:PACKAGE[,PACKAGE]...: asks apt-get for the packages of those programs that are not there.
install_missing() {
    local wanted=() entry
    for entry in "$@"; do
        if ! has "${entry%%:*}"; then
            IFS=, read -ra packages <<<"${entry#*:}"
            wanted+=("${packages[@]}")
        fi
    done
    [[ ${#wanted[@]} -gt 0 ]] || return 0
    has apt-get || die "missing programs: install ${wanted[*]} with this system's package manager"
    is_root || die "missing programs: sudo apt-get install --no-install-recommends ${wanted[*]}"
    printf 'installing %s\n' "${wanted[*]}"
    mkdir -p "$target/test-logs"
    local log=$target/test-logs/apt.log
    {
        apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${wanted[@]}"
    } >"$log" 2>&1 || { tail -n 5 "$log" >&2; die "apt-get could not install ${wanted[*]}: see $log"; }
}

# As the user who said sudo, so that nothing in the target directory belongs to root; else as we are.
as_builder() {
    if is_root && [[ -n ${SUDO_USER:-} && $SUDO_USER != root ]]; then
        # shellcheck disable=SC2016 # expanded by the inner shell
        sudo -u "$SUDO_USER" -H env "CARGO_TARGET_DIR=$target" bash -lc 'cd "$1" && shift && exec "$@"' - "$PWD" "$@"
    else
        "$@"
    fi
}

# rustup puts cargo where a shell that was started before does not look.
find_cargo() {
    if ! has cargo && [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]]; then
        PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    fi
    as_builder cargo --version >/dev/null 2>&1
}

# A Rust toolchain, through the distribution's rustup where there is none.
install_rust() {
    if ! find_cargo; then
        if ! has rustup; then
            ! is_root || ! has apt-get || apt-get update >/dev/null 2>&1 || true
            if has apt-cache && ! apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [0-9]'; then
                die "no cargo, and this distribution has no rustup: install Rust $rust_version from https://rustup.rs, then again"
            fi
            install_missing rustup:rustup
        fi
        printf 'installing a Rust toolchain\n'
        as_builder rustup toolchain install stable --profile minimal >/dev/null 2>&1 ||
            die "rustup could not install Rust: try rustup toolchain install stable"
        as_builder rustup default stable >/dev/null 2>&1 || true
        find_cargo || die "rustup is there, cargo is not: open a new shell, or install Rust $rust_version"
    fi
    local found
    found=$(as_builder cargo --version | sed -n 's/^cargo \([0-9.]*\).*/\1/p')
    if [[ $(printf '%s\n%s\n' "$rust_version" "$found" | sort -V | head -n 1) != "$rust_version" ]]; then
        die "Rust $found is older than $rust_version: rustup update stable"
    fi
}

# install_components COMPONENT...: clippy or rustfmt, as rustup calls them.
install_components() {
    local component
    for component in "$@"; do
        as_builder cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 ||
            as_builder rustup component add "$component" >/dev/null 2>&1 ||
            die "no $component for this toolchain: rustup component add $component"
    done
}
