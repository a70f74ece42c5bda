#!/bin/sh
# Prints a directory with the official CloudEvents SDKs of Python (venv/bin/python), Java (jars) and Go (read_events, built), having
# made it if it is not there.
set -eu
cd "$(dirname "$0")/cloudevents"
cache=${FOREBAY_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay-tests}
# Changed files are another directory.
sdks=$cache/cloudevents-$(cat requirements.txt pom.xml go/go.mod go/go.sum go/*.go | cksum | cut -d' ' -f1)
mkdir -p "$cache"
exec 9>"$cache/cloudevents.lock"
flock 9
if [ ! -e "$sdks/complete" ]; then
    echo "installing the CloudEvents SDKs into $sdks" >&2
    rm -rf "$sdks"
    python3 -m venv "$sdks/venv"
    "$sdks/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt >&2
    mvn -q -B dependency:copy-dependencies -DoutputDirectory="$sdks/jars" >&2
    (cd go && go build -o "$sdks/read_events" .) >&2
    touch "$sdks/complete"
fi
echo "$sdks"
