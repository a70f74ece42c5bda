#!/bin/sh
# Prints the directory of Kafka's jars, having fetched them with Maven if they are not there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${FOREBAY_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay-tests}
# A changed pom is another directory.
jars=$cache/kafka-$(cksum <"$here/pom.xml" | cut -d' ' -f1)
mkdir -p "$cache"
exec 9>"$cache/kafka.lock"
flock 9
if [ ! -e "$jars/complete" ]; then
    echo "fetching Kafka's jars into $jars" >&2
    mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars" >&2
    touch "$jars/complete"
fi
echo "$jars"
