#!/bin/sh
# Makes anew what is derived: the chart's copies of rules and dashboard, the table in its README, and the plain manifests. A test asserts
# that it changes nothing.
#
#   deploy/helm/update.sh [DIRECTORY]     writes there instead of into the repository
set -eu
cd "$(dirname "$0")/../.."
out=${1:-.}
chart=deploy/helm/forebay
helm=$(tests/kubernetes.sh)/helm
mkdir -p "$out/$chart/rules" "$out/deploy/kubernetes"

cp deploy/prometheus/rules.yml "$out/$chart/rules/forebay.yml"
if [ -e deploy/grafana/forebay.json ]; then
    mkdir -p "$out/$chart/dashboards"
    cp deploy/grafana/forebay.json "$out/$chart/dashboards/forebay.json"
fi

python3 deploy/helm/readme.py $chart/values.yaml $chart/README.md >"$out/README.new"
mv "$out/README.new" "$out/$chart/README.md"

# Who applies them without Helm wants no word of it in them.
{
    echo "# Rendered from the chart with values.yaml: change that, and run deploy/helm/update.sh."
    "$helm" template forebay $chart --namespace forebay --values deploy/kubernetes/values.yaml --skip-tests |
        grep -v -e '^# Source: ' -e '^ *app.kubernetes.io/managed-by: Helm$' -e '^ *helm.sh/chart: '
} >"$out/deploy/kubernetes/forebay.new"
mv "$out/deploy/kubernetes/forebay.new" "$out/deploy/kubernetes/forebay.yaml"
