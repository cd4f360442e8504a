# shellcheck shell=bash
# What scripts/acceptance, scripts/bench and scripts/conformance share: release programs, the other
# clients, a directory below which everything happens, and its end. Sourced after lib.sh.

LAB_DIR=
# yes: leave the directory, for a look at the logs.
LAB_KEEP=${LAB_KEEP:-no}

# Whatever is still mounted or running is taken away by process id, after a kill of the run too.
close_lab() {
    local status=$? pids=()
    trap - EXIT
    unmount_below "$LAB_DIR"
    mapfile -t pids < <(pids_about "$LAB_DIR")
    if [ ${#pids[@]} -gt 0 ]; then
        kill -9 "${pids[@]}" 2>/dev/null || true
    fi
    if [ "$LAB_KEEP" = yes ]; then
        note "kept: $LAB_DIR"
    else
        rm -rf --one-file-system "$LAB_DIR"
    fi
    exit "$status"
}

# open_lab NAME: builds, installs the other clients, makes the directory.
open_lab() {
    local started=$SECONDS
    "$REPO/scripts/setup" build
    # shellcheck disable=SC2119  # no component is needed
    need_rust
    limit_cargo_jobs
    if [ "${LAB_BUILD:-yes}" = yes ]; then
        cargo build --release --locked --quiet --manifest-path "$REPO/Cargo.toml" --target-dir "$TARGET_DIR" \
            -p megamount -p mega-emulator
    fi
    if [ "${LAB_PEERS:-yes}" = yes ]; then
        "$REPO/scripts/install-peers"
    fi
    printf 'built and installed in %d s\n' $((SECONDS - started))
    make_lab_directory "$1"
}

# make_lab_directory NAME: the directory, and its end.
make_lab_directory() {
    LAB_DIR=$(mktemp -d "${TMPDIR:-/tmp}/megamount-$1.XXXXXX")
    trap close_lab EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # Python keeps its compiled modules out of the sources.
    export PYTHONDONTWRITEBYTECODE=1
}
