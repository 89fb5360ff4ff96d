#!/usr/bin/env bash
# The editor tests.
#
#   run.sh [unit|testsupport|neovim|emacs|vscode|flood|pictures|all]...        (default: all)
#
# unit         the extension's and the plugin's own tests; no fleet, no browser
# testsupport  the debug adapter under Microsoft's DebugClient
# neovim       Neovim 0.11: language server, :checkhealth, debugging with nvim-dap
# emacs        Debian's Emacs with dap-mode: debugging
# vscode       the real VS Code workbench in a headless browser, with the .vsix that is built here
# all          all of them, in this order
# flood        1,667 hits a second into VS Code, and keys typed meanwhile; a measurement, not part of all
# pictures     the pictures of the READMEs, from what the runs of neovim and vscode have left; not part of all
#
# All but `unit` need a running fleet with the shop under load, and these variables:
#
#   RIPTRACE_BIN    the riptrace binary (default: target/release/riptrace of this checkout)
#   RIPTRACE_NATS   URL of the fleet's NATS
#   RIPTRACE_SHOP   checkout of the shop whose services run in the fleet (default: tests/fixtures/shop)
#
# and may be given:
#
#   RIPTRACE_BP, RIPTRACE_LOGPOINT   FILE:LINE in the shop, instead of the lines marked "BP cart-add" and
#                                    "BP cart-apply" in cart/cart.go
#   NVIM_DAP_DIR      a checkout of nvim-dap, for the tests with the real one
#   RIPTRACE_CHROMIUM a Chromium or Chrome
#   RIPTRACE_CACHE    where the editors are kept (default: ~/.cache/riptrace)
#   RIPTRACE_FLOOD_SECONDS      for how long 1,667 hits a second come into VS Code (default: 6; 60 measures what RESULTS.md keeps)
#   RIPTRACE_BROWSER_SLOWDOWN   how many times slower the browser is made, to find what only works on a fast machine
#
# Screenshots and logs are left in tests/artefacts. Exits 1 if anything failed; nothing is skipped.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/paths.sh"

# A whole part that takes longer than this hangs: each wait inside has its own, shorter deadline. A browser that is made
# slower may take that many times as long.
part_seconds=$((600 * ${RIPTRACE_BROWSER_SLOWDOWN:-1}))

extension=$editors_repo/editors/vscode
failed_parts=()

# Runs a step, shows how long it took, remembers a failure and goes on.
step() {
    local name=$1 started=$SECONDS
    shift
    progress "$name"
    if "$@"; then
        progress "$name: passed in $((SECONDS - started)) s"
    else
        progress "$name: FAILED after $((SECONDS - started)) s"
        failed_parts+=("$name")
    fi
}

need_fleet() {
    [ -n "${RIPTRACE_NATS:-}" ] || fail "RIPTRACE_NATS is not set: start a fleet with the shop in it ('riptrace up' prints its URL) and set it"
    RIPTRACE_BIN=$(realpath -m -- "${RIPTRACE_BIN:-$editors_repo/target/release/riptrace}")
    [ -x "$RIPTRACE_BIN" ] || fail "$RIPTRACE_BIN is not there: build it (cargo build --release) or set RIPTRACE_BIN"
    RIPTRACE_SHOP=$(realpath -m -- "${RIPTRACE_SHOP:-$editors_repo/tests/fixtures/shop}")
    [ -d "$RIPTRACE_SHOP" ] || fail "$RIPTRACE_SHOP is not a directory: set RIPTRACE_SHOP to the checkout of the shop"
    export RIPTRACE_NATS RIPTRACE_BIN RIPTRACE_SHOP
    shop_before=$(shop_digest)
}

# One line that changes when any file of the shop does.
shop_digest() { (cd "$RIPTRACE_SHOP" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum); }

# The services were built from these files: a line that an editor's test has moved would be another one to all that
# come after it, and the failure would be seen there.
shop_untouched() {
    [ "$(shop_digest)" = "$shop_before" ] && return
    echo "the sources in $RIPTRACE_SHOP are not what they were before these tests: an editor has written to them" >&2
    return 1
}

# The extension's dependencies, once for each lock file; then the extension itself.
install_extension_dependencies() {
    local pin
    pin=$(pin_of "$extension/package-lock.json")
    if [ "$(cat "$extension/node_modules/.installed" 2>/dev/null)" != "$pin" ]; then
        progress "installing what the extension is built with (about 20 s)"
        (cd "$extension" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
        echo "$pin" >"$extension/node_modules/.installed"
    fi
}

quiet_npm() { (cd "$extension" && npm run --silent --loglevel=error "$@" </dev/null); }

build_extension() {
    install_extension_dependencies || return 1
    if ! quiet_npm package >"$editors_artefacts/vsce.log" 2>&1; then
        cat "$editors_artefacts/vsce.log" >&2
        return 1
    fi
}

unit_vscode() { install_extension_dependencies && quiet_npm check && quiet_npm test; }

node_tests() { timeout "$part_seconds" "$editors_node" --test "$@"; }

# Runs one test file in a Neovim that sees nothing of the user's configuration.
nvim_tests() {
    local home status=0
    home=$(mktemp -d)
    (
        cd "$home"
        export XDG_CONFIG_HOME=$home/config XDG_DATA_HOME=$home/data XDG_STATE_HOME=$home/state XDG_CACHE_HOME=$home/cache
        timeout "$part_seconds" "$editors_nvim" --headless -u NONE -i NONE -n -l "$editors_tests/neovim/$1"
    ) || status=$?
    if [ "$status" != 0 ] && [ -f "$home/state/nvim/lsp.log" ]; then
        cp "$home/state/nvim/lsp.log" "$editors_artefacts/neovim-lsp.log"
    fi
    rm -rf "$home"
    return "$status"
}

# Runs one test file in an Emacs that sees nothing of the user's configuration. Its log is shown when it fails.
emacs_tests() {
    local home status=0 log=$editors_artefacts/emacs.log
    home=$(mktemp -d)
    (cd "$home" && HOME=$home timeout "$part_seconds" emacs --batch -l "$editors_tests/emacs/$1" 2>"$log") || status=$?
    if [ "$status" != 0 ]; then tail -n 20 "$log" >&2; fi
    rm -rf "$home"
    return "$status"
}

# Packs the plugin as it is published, and unpacks it where Neovim looks for packages: the tests use it from there.
nvim_package() {
    rm -rf "$RIPTRACE_NVIM_PACKAGES"
    mkdir -p "$RIPTRACE_NVIM_PACKAGES/pack/riptrace/opt"
    "$editors_repo/editors/neovim/package.sh" "$RIPTRACE_NVIM_PACKAGES/riptrace.nvim.tar.gz" "$editors_nvim" >"$editors_artefacts/neovim-package.log" &&
        tar -xzf "$RIPTRACE_NVIM_PACKAGES/riptrace.nvim.tar.gz" -C "$RIPTRACE_NVIM_PACKAGES/pack/riptrace/opt"
}

run_unit() {
    "$editors_tests/provision.sh" neovim
    step "VS Code extension: unit tests" unit_vscode
    step "Neovim plugin: package" nvim_package
    step "Neovim plugin: unit tests" nvim_tests unit_test.lua
    step "Neovim plugin: unit tests of the views" nvim_tests views_unit_test.lua
    step "Neovim plugin: what it registers with nvim-dap" nvim_tests dap_stub_test.lua
}

run_testsupport() {
    need_fleet
    "$editors_tests/provision.sh" tools
    step "debug adapter under @vscode/debugadapter-testsupport" node_tests "$editors_tests"/testsupport/{adapter,requests}.test.mjs
    step "the shop's sources are untouched" shop_untouched
}

run_neovim() {
    need_fleet
    "$editors_tests/provision.sh" neovim
    step "Neovim plugin: package" nvim_package
    step "Neovim: a trace, the timeline and the fleet" nvim_tests views_test.lua
    step "Neovim: language server and health" nvim_tests lsp_test.lua
    if [ -n "${NVIM_DAP_DIR:-}" ]; then
        step "Neovim: debugging with nvim-dap" nvim_tests dap_test.lua
    else
        progress "nvim-dap is in no package registry: set NVIM_DAP_DIR to a checkout to test with it; what is registered with it is tested with a stand-in"
        step "Neovim plugin: what it registers with nvim-dap" nvim_tests dap_stub_test.lua
    fi
    step "the shop's sources are untouched" shop_untouched
}

run_emacs() {
    need_fleet
    "$editors_tests/provision.sh" emacs
    step "Emacs: debugging with dap-mode" emacs_tests dap_test.el
    step "the shop's sources are untouched" shop_untouched
}

run_vscode() {
    need_fleet
    "$editors_tests/provision.sh" tools chromium
    RIPTRACE_CHROMIUM=$(find_chromium)
    export RIPTRACE_CHROMIUM
    rm -f "$editors_artefacts"/vscode*
    step "VS Code extension: build and package" build_extension
    step "VS Code: the real workbench" node_tests "$editors_tests/vscode/workbench.test.mjs"
    step "the shop's sources are untouched" shop_untouched
    step "VS Code: the first steps" node_tests "$editors_tests/vscode/firstSteps.test.mjs"
    step "VS Code: the extension's API" node_tests "$editors_tests/vscode/api.test.mjs"
    step "the shop's sources are untouched" shop_untouched
}

run_flood() {
    need_fleet
    "$editors_tests/provision.sh" tools chromium
    RIPTRACE_CHROMIUM=$(find_chromium)
    export RIPTRACE_CHROMIUM
    step "VS Code extension: build and package" build_extension
    step "VS Code: more hits than anybody reads" node_tests "$editors_tests/vscode/flood.test.mjs"
    step "the shop's sources are untouched" shop_untouched
}

run_pictures() {
    "$editors_tests/provision.sh" tools chromium
    RIPTRACE_CHROMIUM=$(find_chromium)
    export RIPTRACE_CHROMIUM
    step "pictures of the READMEs" "$editors_node" "$editors_tests/pictures.mjs"
}

editors_artefacts=$editors_repo/tests/artefacts
mkdir -p "$editors_artefacts" "$editors_cache"
export RIPTRACE_NVIM_PACKAGES=$editors_artefacts/neovim-packages
export RIPTRACE_EDITOR_TOOLS=$editors_tools RIPTRACE_VSIX=$extension/riptrace.vsix RIPTRACE_BIN=${RIPTRACE_BIN:-$editors_repo/target/release/riptrace}

if [ $# = 0 ]; then set -- all; fi
for part in "$@"; do
    case $part in
        unit | testsupport | neovim | emacs | vscode | flood | pictures) "run_$part" ;;
        all)
            run_unit
            run_testsupport
            run_neovim
            run_emacs
            run_vscode
            ;;
        *) fail "unknown part '$part': expected unit, testsupport, neovim, emacs, vscode, flood, pictures or all" ;;
    esac
done
if [ ${#failed_parts[@]} != 0 ]; then
    progress "failed: $(printf '%s; ' "${failed_parts[@]}")screenshots and logs are in $editors_artefacts"
    exit 1
fi
progress "all passed"
