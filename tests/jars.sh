#!/bin/sh
# Prints the directory of the jars that the pom.xml of a directory names, having fetched them with Maven if they are not there.
# Argument: the directory, whose name is theirs.
set -eu
pom=$(cd "$1" && pwd)/pom.xml
name=$(basename "$(dirname "$pom")")
cache=${FOREBAY_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay-tests}
# A changed pom is another directory.
jars=$cache/$name-$(cksum <"$pom" | cut -d' ' -f1)
mkdir -p "$cache"
exec 9>"$cache/$name.lock"
flock 9
if [ ! -e "$jars/complete" ]; then
    echo "fetching the jars of $name into $jars" >&2
    mvn -q -B -f "$pom" dependency:copy-dependencies -DoutputDirectory="$jars" >&2
    touch "$jars/complete"
fi
echo "$jars"
