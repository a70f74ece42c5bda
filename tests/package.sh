#!/bin/sh
# Builds a Java example with Maven, without a network once its dependencies were fetched. Argument: its directory.
set -eu
cd "$1"
cache=${FOREBAY_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay-tests}
mkdir -p "$cache"
exec 9>"$cache/$(basename "$PWD").package.lock"
flock 9
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! mvn -q -B -o package >"$log" 2>&1; then
    # Something is not in the local repository yet, or it does not compile: then this says so.
    mvn -q -B package >&2
fi
