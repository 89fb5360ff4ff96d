#!/usr/bin/env bash
# Fuzzing: each target for some time, from seeds that the ordinary tests write.
#
#   run.sh [SECONDS] [TARGET]...        (default: 60 seconds, all targets)
#
# Needs a nightly compiler, `cargo install cargo-fuzz`, and a C and a C++ compiler for the seeds. Corpora stay in
# CRATE/fuzz/corpus and are gone on with. Exits 1 if any target has found anything; what found it is in CRATE/fuzz/artifacts.
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

export RIPTRACE_FUZZ_SEEDS
RIPTRACE_FUZZ_SEEDS=$(mktemp -d)
trap 'rm -rf "$RIPTRACE_FUZZ_SEEDS"' EXIT
for part in protocol agent dap-adapter; do
    (cd "$repository" && cargo test --quiet -p "riptrace-$part" --lib fuzzing::tests::the_seeds)
    for file in "$repository/$part"/fuzz/fuzz_targets/*.rs; do
        target=$(basename "$file" .rs)
        is_wanted "$target" || continue
        cd "$repository/$part"
        # The versions of the workspace.
        cp "$repository/Cargo.lock" fuzz/Cargo.lock
        mkdir -p "fuzz/corpus/$target"
        if [ -d "$RIPTRACE_FUZZ_SEEDS/$target" ]; then cp "$RIPTRACE_FUZZ_SEEDS/$target"/* "fuzz/corpus/$target/"; fi
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
