#!/usr/bin/env bash
# Fuzzing: each target for some time, from seeds that the ordinary tests write.
#
#   run.sh [SECONDS] [TARGET]...        (default: 60 seconds, all targets)
#
# Needs a nightly compiler, `cargo install cargo-fuzz`, and a C and a C++ compiler for the seeds; says so where one is
# missing. Corpora stay in CRATE/fuzz/corpus and are gone on with. Exits 1 if any target has found anything (what found it is
# in CRATE/fuzz/artifacts), 2 if it could not begin.
# README.md says what the targets are, RESULTS.md what the last runs found.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
seconds=${1:-60}
[ $# = 0 ] || shift
wanted=("$@")
failed=()

# An input that takes longer hangs; one that takes more memory than this is no longer bounded by what it holds.
input_seconds=20
memory_mb=1500
# Most bytes of an input: the seeds are smaller.
input_bytes=16384

is_wanted() { [ ${#wanted[@]} = 0 ] || [[ " ${wanted[*]} " == *" $1 "* ]]; }

# The targets of a crate that are wanted, a line each.
targets_of() {
    local file target
    for file in "$repository/$1"/fuzz/fuzz_targets/*.rs; do
        target=$(basename "$file" .rs)
        if is_wanted "$target"; then echo "$target"; fi
    done
}

refuse() {
    echo "tests/fuzz/run.sh: $1" >&2
    exit 2
}

crates=(protocol agent dap-adapter)

[[ $seconds =~ ^[1-9][0-9]*$ ]] || refuse "'$seconds' is no number of seconds: run.sh [SECONDS] [TARGET]..."
for target in "${wanted[@]}"; do
    compgen -G "$repository/*/fuzz/fuzz_targets/$target.rs" >/dev/null ||
        refuse "there is no target '$target'; there are $(basename -s .rs -a "$repository"/*/fuzz/fuzz_targets/*.rs | paste -sd ' ')"
done
cargo +nightly --version >/dev/null 2>&1 ||
    refuse "no nightly compiler: 'rustup toolchain install nightly --profile minimal', which cargo-fuzz builds with"
cargo fuzz --version >/dev/null 2>&1 ||
    refuse "no cargo-fuzz: 'cargo install cargo-fuzz', with cargo's folder of binaries on PATH"
for compiler in cc c++; do
    command -v "$compiler" >/dev/null || refuse "no $compiler: install a C and a C++ compiler; the seeds are made with them"
done

export RIPTRACE_FUZZ_SEEDS
RIPTRACE_FUZZ_SEEDS=$(mktemp -d)
trap 'rm -rf "$RIPTRACE_FUZZ_SEEDS"' EXIT
for part in "${crates[@]}"; do
    mapfile -t targets < <(targets_of "$part")
    [ ${#targets[@]} != 0 ] || continue
    (cd "$repository" && cargo test --quiet -p "riptrace-$part" --lib fuzzing::tests::the_seeds)
    for target in "${targets[@]}"; do
        cd "$repository/$part"
        # The versions of the workspace.
        cp "$repository/Cargo.lock" fuzz/Cargo.lock
        mkdir -p "fuzz/corpus/$target"
        if [ -d "$RIPTRACE_FUZZ_SEEDS/$target" ]; then cp "$RIPTRACE_FUZZ_SEEDS/$target"/* "fuzz/corpus/$target/"; fi
        echo "== $part/$target: $seconds s"
        # Nothing but the engine is unsafe, and that is not here: without a sanitizer it is faster.
        if ! cargo +nightly fuzz run --sanitizer none "$target" -- -max_total_time="$seconds" -timeout=$input_seconds \
            -rss_limit_mb=$memory_mb -max_len=$input_bytes; then
            failed+=("$part/$target")
        fi
    done
done
if [ ${#failed[@]} != 0 ]; then
    echo "found something: ${failed[*]}" >&2
    exit 1
fi
