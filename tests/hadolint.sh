#!/bin/sh
# Prints the path of hadolint, which checks Dockerfiles, having installed it if it is not there.
set -eu
cd "$(dirname "$0")/hadolint"
cache=${FOREBAY_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay-tests}
# A changed lock is another environment.
venv=$cache/hadolint-$(cksum <requirements.txt | cut -d' ' -f1)
mkdir -p "$cache"
exec 9>"$cache/hadolint.lock"
flock 9
if [ ! -e "$venv/complete" ]; then
    echo "installing hadolint into $venv" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt >&2
    touch "$venv/complete"
fi
echo "$venv/bin/hadolint"
