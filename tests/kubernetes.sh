#!/bin/sh
# Prints the directory of what judges the chart, having built it if it is not there: helm, helm-unittest and our own program of
# tests/kubernetes, and the Python package kubernetes-validate, whose schemas it brings along.
set -eu
cd "$(dirname "$0")/kubernetes"
cache=${FOREBAY_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay-tests}
# Changed sources or locks are another directory.
tools=$cache/kubernetes-$(cat go.mod go.sum ./*.go requirements.txt | cksum | cut -d' ' -f1)
mkdir -p "$cache"
exec 9>"$cache/kubernetes.lock"
flock 9
if [ ! -e "$tools/complete" ]; then
    if ! go list -m >/dev/null 2>&1; then
        echo "missing: Go, as new as tests/kubernetes/go.mod says (from 1.21 on it fetches a newer one itself)" >&2
        exit 1
    fi
    echo "building helm, helm-unittest and what checks manifests into $tools" >&2
    rm -rf "$tools"
    mkdir "$tools"
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt >&2
    # Helm takes the cluster's version, where there is no cluster, from its build.
    minor=$(go list -m -f '{{.Version}}' k8s.io/client-go | cut -d. -f2)
    flags="-s -w"
    for package in chartutil lint/rules; do
        flags="$flags -X helm.sh/helm/v3/pkg/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/$package.k8sVersionMinor=$minor"
    done
    go build -trimpath -ldflags "$flags" -o "$tools/" \
        helm.sh/helm/v3/cmd/helm github.com/helm-unittest/helm-unittest/cmd/helm-unittest . >&2
    touch "$tools/complete"
fi
echo "$tools"
