# shellcheck shell=bash
# Functions the scripts share. Sourced, never run:
#
#     . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
#
# Owns: where the repository is, how a program gets onto a bare Debian machine, how many compiler
# jobs fit. Nothing here asks a question: every script runs without a terminal.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# One place for what is built, whatever directory a script works in and cargo's configuration says.
TARGET_DIR=$(realpath -m -- "${CARGO_TARGET_DIR:-$REPO/target}")
export CARGO_TARGET_DIR=$TARGET_DIR
# Tools that are built here live below the target directory, so that whatever caches it caches them.
TOOLS_DIR=$TARGET_DIR/tools
# Pinned: a new release of the checker must not turn an unchanged tree red.
CARGO_DENY_VERSION=0.20.2
CARGO_DEB_VERSION=3.8.0

# Where rustup puts its programs.
CARGO_BIN=${CARGO_HOME:-$HOME/.cargo}/bin
case ":$PATH:" in
*":$CARGO_BIN:"*) ;;
*) PATH=$PATH:$CARGO_BIN ;;
esac

note() { printf '%s\n' "$*" >&2; }

die() {
    note "error: $*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND...: as root, through sudo where we are not root.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo here. Run as root: $*"
    fi
}

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# apt_install PACKAGE...: installs what is missing. Does nothing, and needs no root, when all are
# there; updates the package lists at most once in a run of one script.
APT_UPDATED=no
apt_install() {
    local package missing=()
    have dpkg-query || die "not a Debian system: please install by hand: $*"
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    note "installing ${missing[*]}"
    if [ "$APT_UPDATED" = no ]; then
        # A list that cannot be had (some third-party source) does not matter if the packages can.
        as_root apt-get update -qq || note "apt-get update had errors; trying the installation anyway"
        APT_UPDATED=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# The oldest compiler the workspace promises to build with.
rust_version() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$REPO/Cargo.toml"; }

# is_at_least HAVE WANT: compares dotted version numbers.
is_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# install_rustup TOOLCHAIN: the installer itself, checked against the digest beside it.
install_rustup() {
    local directory url status=0
    apt_install ca-certificates curl
    url=https://static.rust-lang.org/rustup/dist/$(uname -m)-unknown-linux-gnu/rustup-init
    directory=$(mktemp -d) || return
    curl --proto '=https' --tlsv1.2 -fsS --retry 3 -o "$directory/rustup-init" "$url" &&
        curl --proto '=https' --tlsv1.2 -fsS --retry 3 "$url.sha256" | cut -c 1-64 >"$directory/digest" &&
        printf '%s  %s\n' "$(cat "$directory/digest")" "$directory/rustup-init" | sha256sum --check --status - &&
        chmod +x "$directory/rustup-init" &&
        RUSTUP_INIT_SKIP_PATH_CHECK=yes "$directory/rustup-init" -y -q --no-modify-path --profile minimal --default-toolchain "$1" >&2 || status=$?
    rm -rf "$directory"
    return "$status"
}

# need_rust [COMPONENT...]: a cargo that is new enough, and these rustup components.
need_rust() {
    local want has component
    want=$(rust_version)
    if ! have cargo; then
        note "installing Rust $want with rustup into ${CARGO_BIN%/bin}"
        install_rustup "$want" || die "rustup could not be installed. Install Rust $want or later, then run this again"
        hash -r
    fi
    # Nothing, where rustup has no default toolchain.
    has=$(cd "$REPO" && rustc --version 2>/dev/null | cut -d ' ' -f 2) || has=
    if ! is_at_least "${has:-0}" "$want"; then
        note "rustc is ${has:-not usable}, Rust $want is needed: using it from rustup for this run"
        # The distribution's cargo may come first in the path, and knows nothing of toolchains.
        PATH=$CARGO_BIN:$PATH
        if ! have rustup; then
            install_rustup "$want" || die "rustup could not be installed. Install Rust $want or later, then run this again"
        fi
        hash -r
        rustup toolchain install --no-self-update --profile minimal "$want" >&2
        export RUSTUP_TOOLCHAIN=$want
    fi
    for component in "$@"; do
        case $component in
        rustfmt) cargo fmt --version >/dev/null 2>&1 && continue ;;
        clippy) cargo clippy --version >/dev/null 2>&1 && continue ;;
        esac
        have rustup || die "cargo has no $component here, and there is no rustup to add it with"
        rustup component add "$component" >&2
    done
}

# One compiler per processor, but no more than one per 1.5 GiB of memory: the largest crates take that.
limit_cargo_jobs() {
    local processors by_memory
    [ -z "${CARGO_BUILD_JOBS:-}" ] || return 0
    processors=$(nproc)
    by_memory=$(awk '/^MemTotal:/ { print int($2 / 1572864) }' /proc/meminfo)
    CARGO_BUILD_JOBS=$((by_memory < processors ? by_memory : processors))
    if [ "$CARGO_BUILD_JOBS" -lt 1 ]; then
        CARGO_BUILD_JOBS=1
    fi
    export CARGO_BUILD_JOBS
    export CARGO_NET_RETRY=${CARGO_NET_RETRY:-5}
}

# cargo_deny ARGUMENT...: the pinned cargo-deny.
cargo_deny() {
    if [ -x "$TOOLS_DIR/bin/cargo-deny" ]; then
        "$TOOLS_DIR/bin/cargo-deny" "$@"
    else
        cargo-deny "$@"
    fi
}

# Builds cargo-deny unless it is there. No registry has a binary of it that understands the packages
# of this cargo (the newest wheel on PyPI, 0.14.2, panics on them). Unoptimised it builds in two to
# three minutes on two cores and checks the workspace in five seconds.
install_cargo_deny() {
    local tool
    for tool in "$TOOLS_DIR/bin/cargo-deny" cargo-deny; do
        if [ "$("$tool" --version 2>/dev/null)" = "cargo-deny $CARGO_DENY_VERSION" ]; then
            return 0
        fi
    done
    install_tool cargo-deny "$CARGO_DENY_VERSION"
}

# What scripts/test builds of tools.
install_tools() {
    install_cargo_deny && install_tool cargo-deb "$CARGO_DEB_VERSION"
}

# install_tool CRATE VERSION: a program from crates.io, unoptimised, into target/tools/bin.
install_tool() {
    local crate=$1 version=$2
    if [ "$("$TOOLS_DIR/bin/$crate" --version 2>/dev/null)" = "$crate $version" ]; then
        return 0
    fi
    CARGO_PROFILE_DEV_DEBUG=false cargo install "$crate" --version "=$version" --locked --debug --quiet --force \
        --root "$TOOLS_DIR" --target-dir "$TOOLS_DIR/build" || return
    # Up to 700 MB that nothing needs again.
    rm -rf "$TOOLS_DIR/build"
}

# pids_about DIRECTORY: processes that name it on their command line or in their environment, other
# than this shell and what started it.
pids_about() {
    local file pid
    for file in /proc/[0-9]*; do
        pid=${file#/proc/}
        if [ "$pid" = $$ ] || [ "$pid" = "$BASHPID" ]; then
            continue
        fi
        # Reading these waits for a process that waits for a page of a mount: not for ever.
        if timeout 2 grep -qsF -- "$1" "$file/cmdline" "$file/environ"; then
            printf '%s\n' "$pid"
        fi
    done
}

# mounts_below DIRECTORY: mount points in it, the deepest first.
mounts_below() {
    awk -v dir="$1" '{ gsub(/\\040/, " ", $2) } index($2 "/", dir "/") == 1 { print $2 }' /proc/self/mounts |
        sort -r
}

# unmount_below DIRECTORY: takes every mount in it away, the busy ones too.
unmount_below() {
    local mount
    while IFS= read -r mount; do
        fusermount3 -uz -- "$mount" 2>/dev/null || as_root umount -l -- "$mount" || true
    done < <(mounts_below "$1")
}
