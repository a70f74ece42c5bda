#!/bin/sh
# Runs docker-compose.yml with its demo, where Docker is there, and looks whether webhooks arrive at both consumers, and metrics in Prometheus
# and Grafana. Builds the image; takes what it has made away again.
set -eu
cd "$(dirname "$0")/.."
say() { printf '== %s\n' "$*" >&2; }

if ! docker compose version >/dev/null 2>&1 || ! docker info >/dev/null 2>&1; then
    say "NOT RUN: no Docker with Compose answers here. tests/it/compose.rs checks the file and runs its commands without it."
    exit 69
fi
# A project of its own: whoever has the file running keeps it. The ports are the file's.
compose() { docker compose --project-name forebay-test --profile demo "$@"; }
finish() {
    code=$?
    [ "$code" = 0 ] || compose logs --tail 50 >&2 || true
    compose down --volumes --timeout 60 >/dev/null 2>&1 || true
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

compose up --build --wait --wait-timeout 300
say "everything is healthy"
# Waits until what a command prints has a word in it.
tells() {
    what=$1 word=$2 tries=60
    shift 2
    until "$@" 2>/dev/null | grep -q "$word"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { say "waited in vain: $what"; exit 1; }
        sleep 1
    done
}
for consumer in demo-kafka-consumer demo-rabbitmq-consumer; do
    tells "$consumer tells of a stream" '"type": "WentLive"' docker compose --project-name forebay-test --profile demo logs --no-log-prefix "$consumer"
done
tells "Prometheus counts what was published" '"value"' \
    curl -sf --get http://localhost:9090/api/v1/query --data-urlencode 'query=sum(forebay_published_total) > 0'
tells "Prometheus has the rules" ForebayRouteBlocked curl -sf http://localhost:9090/api/v1/rules
tells "Grafana has the dashboard" '"type":"dash-db"' curl -sf 'http://localhost:3000/api/search?query=Forebay'
say "webhooks go through: both consumers, Prometheus and Grafana have them"
