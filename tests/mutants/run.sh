#!/usr/bin/env bash
# Breaks each promise on purpose, and says whether a test notices: docs/testing.md.
#
#   tests/mutants/run.sh [NAME...]     all of tests/mutants/*.patch, or these; in the profile `dev`, in this checkout, which is put
#                                      right again however it ends
#
# Each patch begins with the rule that it breaks and the command that must go red. Ends with 1 when one survives.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CARGO_TERM_COLOR=never
# What fails is meant to: nothing of it is kept. A few seeds are enough for what these break.
export FOREBAY_SIM_SEEDS=100 PROPTEST_DISABLE_FAILURE_PERSISTENCE=1
log=$(mktemp)
applied=
put_right() {
    if [ -n "$applied" ]; then git apply --reverse "$applied"; fi
    applied=
}
trap 'put_right; rm -f "$log"' EXIT
trap 'exit 130' INT TERM

[ $# -gt 0 ] || set -- $(basename --suffix .patch -a tests/mutants/*.patch)
survived=0
for name; do
    patch=tests/mutants/$name.patch
    red=$(sed -n 's/^Red: //p' "$patch")
    git apply "$patch"
    applied=$patch
    began=$SECONDS
    code=0
    bash -c "$red" >"$log" 2>&1 || code=$?
    put_right
    tests=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | sort -u | head -n 3 | tr '\n' ' ')
    if [ "$code" = 0 ]; then
        echo "SURVIVED  $name: $red"
        survived=1
    elif [ -z "$tests" ]; then
        echo "NO TEST   $name: it failed otherwise, with $code:"
        tail -n 5 "$log"
        survived=1
    else
        echo "caught    $name, $((SECONDS - began)) s: $tests"
    fi
done
exit $survived
