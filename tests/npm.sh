#!/bin/sh
# Prints a directory with the files of another one and the packages that its package-lock.json names, having installed them
# if they are not there. Argument: the other one, whose name it has.
set -eu
from=$(cd "$1" && pwd)
name=$(basename "$from")
cache=${FOREBAY_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay-tests}
# Changed files are another directory.
packages=$cache/$name-$(cat "$from"/*.json "$from"/*.mjs | cksum | cut -d' ' -f1)
mkdir -p "$cache"
exec 9>"$cache/$name.lock"
flock 9
if [ ! -e "$packages/complete" ]; then
    echo "installing the packages of $name into $packages" >&2
    rm -rf "$packages"
    mkdir "$packages"
    cp "$from"/*.json "$from"/*.mjs "$packages"
    # Nothing of a package is run while it is installed.
    npm ci --ignore-scripts --no-audit --no-fund --silent --prefix "$packages" >&2
    touch "$packages/complete"
fi
echo "$packages"
