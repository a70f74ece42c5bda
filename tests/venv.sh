#!/bin/sh
# Prints the Python that has the packages of the consumers in Python, and what draws the dashboard, having made an environment with them if
# it is not there.
set -eu
cd "$(dirname "$0")/.."
locks="examples/consumers/python/requirements.txt examples/consumers/python-rabbitmq/requirements.txt tests/dashboard/requirements.txt \
    tests/operator-api/requirements.txt"
cache=${FOREBAY_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay-tests}
# Changed locks are another environment.
venv=$cache/venv-$(cat $locks | cksum | cut -d' ' -f1)
mkdir -p "$cache"
exec 9>"$cache/venv.lock"
flock 9
if [ ! -e "$venv/complete" ]; then
    echo "installing Python packages into $venv" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    for lock in $locks; do
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" >&2
    done
    touch "$venv/complete"
fi
echo "$venv/bin/python"
