#!/usr/bin/env bash
# Packs the plugin: package.sh FILE.tar.gz [NVIM]
#
# The archive holds one directory, riptrace, with the plugin, its help tags (made by NVIM, default: nvim on PATH) and
# its licences. To install it:
#
#   mkdir -p ~/.local/share/nvim/site/pack/riptrace/start
#   tar -xzf FILE.tar.gz -C ~/.local/share/nvim/site/pack/riptrace/start
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 1 ] || { echo "usage: package.sh FILE.tar.gz [NVIM]" >&2; exit 2; }
archive=$(realpath -m -- "$1")
nvim=${2:-nvim}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/riptrace"
cp -r "$here/lua" "$here/plugin" "$here/doc" "$here/images" "$here/README.md" "$here/../../LICENSE-MIT" "$here/../../LICENSE-APACHE" "$work/riptrace/"
"$nvim" --headless -u NONE -i NONE -n -c "helptags $work/riptrace/doc" -c quit
[ -f "$work/riptrace/doc/tags" ] || { echo "$nvim made no help tags" >&2; exit 1; }
# The same files make the same archive, whenever and by whomever it is made.
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w -C "$work" -cf - riptrace | gzip -9n >"$archive"
echo "packaged $archive"
