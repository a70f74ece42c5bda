#!/usr/bin/env bash
# Runs all tests, from a clean clone: gets what they need, builds once, and lets them start the servers they talk to.
#
#   tests/run.sh [ARGUMENT...]      arguments go to `cargo test`, e.g. `--test it end_to_end::` or `--test kafka_sink`
#   tests/run.sh fast               what needs no broker, in the profile `dev`: a few minutes
#   tests/run.sh kafka|rabbitmq|both|deploy
#                                   the tests of sink and binary that need that broker, both of them, or judge what is in deploy/,
#                                   in the profile `dev`
#
# FOREBAY_TEST_KAFKA=host:port      the broker that most tests share; without it a container where a Docker daemon answers,
#                                   else Kafka's own jars. Tests that break brokers start theirs from the jars in any case.
# FOREBAY_TEST_AMQP=amqp://USER:PASSWORD@HOST:PORT
#                                   the RabbitMQ that most tests share, each in a virtual host that it makes and deletes, so the user is an
#                                   administrator; without it a container where a Docker daemon answers, else RabbitMQ from the
#                                   distribution. Tests that break nodes start theirs from there in any case.
# FOREBAY_TEST_AMQP_MANAGEMENT=HOST:PORT
#                                   where its management API is (default: the same host, port 15672)
# FOREBAY_TEST_NO_ROOT=1            leaves out, and names, the tests that mount disks or make networks, where that is not allowed;
#                                   without it they fail.
# FOREBAY_TEST_BINARY=FILE          the binary that is tested (default: the one that Cargo builds beside the tests)
# FOREBAY_TEST_CACHE=DIR            where downloads are kept (default: ~/.cache/forebay-tests)
# FOREBAY_DASHBOARD_PICTURE=FILE    keeps the picture of the dashboard there, of a longer run (just dashboard)
set -euo pipefail

cd "$(dirname "$0")/.."
cache=${FOREBAY_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay-tests}
export FOREBAY_TEST_CACHE=$cache
mkdir -p "$cache"
work=$(mktemp -d -t forebay-tests.XXXXXX)
# Whatever the tests put down lies below it, and goes with it.
export TMPDIR=$work
containers=
policy=

finish() {
    local code=$?
    trap - EXIT
    if [ -n "$containers" ]; then docker rm -f $containers >/dev/null 2>&1 || true; fi
    if [ -n "$policy" ]; then rm -f "$policy"; fi
    rm -rf "$work"
    say "$([ $code = 0 ] && echo passed || echo "failed (exit code $code)") after ${SECONDS} s"
    exit $code
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '== %s\n' "$*" >&2; }

stage() {
    local name=$1 began=$SECONDS
    shift
    say "$name"
    "$@"
    say "$name: $((SECONDS - began)) s"
}

# Each with a file that is there when it is, and the Debian package that has it.
needs="
gcc:build-essential g++:build-essential make:make perl:perl pkg-config:pkg-config
java:default-jre-headless javac:default-jdk-headless mvn:maven kcat:kcat openssl:openssl curl:curl
strace:strace mkfs.ext4:e2fsprogs mkfs.btrfs:btrfs-progs mount:mount setpriv:util-linux flock:util-linux faketime:faketime
python3:python3 git:git go:golang-go node:nodejs npm:npm
rabbitmq-server:rabbitmq-server promtool:prometheus ip:iproute2 nsenter:util-linux unshare:util-linux systemd-analyze:systemd
"

# The modules of `tests/it` and `tests/whitebox` by what they need; each is in one of these. What needs no broker and is not in `fast`
# measures, or needs programs of others.
fast="admin cli descriptors dev files image ingress ordering refused rotation schemas spool_command tidy told webhooks"
no_broker="asyncapi cloudevents config memory secrets"
kafka="clients disk drain operator raw_http siege unrouted"
rabbitmq="logging rabbitmq_check rabbitmq_tail"
both="again consumers end_to_end reload traces verify"
deploy="compose kubernetes prometheus systemd"

missing_packages() {
    local need
    for need in $needs; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${need%%:*}" >/dev/null 2>&1 || echo "${need##*:}"
    done | sort -u
    python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || echo python3-venv
}

# Runs a command while no package may start a service: the tests start servers of their own.
without_services() {
    local code=0
    if [ -e /usr/sbin/policy-rc.d ]; then
        "$@"
        return
    fi
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    "$@" || code=$?
    rm -f "$policy"
    policy=
    return $code
}

get_tools() {
    if ! command -v cargo >/dev/null 2>&1; then
        say "cargo is missing: install Rust with rustup (https://rustup.rs); rust-toolchain.toml says which"
        return 1
    fi
    local missing
    missing=$(missing_packages)
    if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing $(echo $missing)"
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update -qq && without_services apt-get install -y -qq --no-install-recommends $missing; } >"$work/apt.log" 2>&1 ||
            { cat "$work/apt.log" >&2; return 1; }
        missing=$(missing_packages)
    fi
    if [ -n "$missing" ]; then
        say "missing: $(echo $missing) (names of Debian packages): install them, or run this as root on Debian"
        return 1
    fi
}

get_python() {
    FOREBAY_TEST_PYTHON=$(tests/venv.sh)
    export FOREBAY_TEST_PYTHON
}

get_kafka() { for version in '' -3.9 -4.3; do tests/jars.sh "tests/kafka$version" >/dev/null; done; }

get_programs() {
    tests/hadolint.sh >/dev/null
    (cd tests/compose && go mod download)
}

# The tests build the consumers that they run. Here Maven's first downloads would make one of them seem to hang.
get_java() {
    tests/package.sh examples/consumers/java
    tests/package.sh examples/consumers/java-rabbitmq
}

get_cloudevents() { tests/cloudevents.sh >/dev/null; }

get_kubernetes() {
    FOREBAY_TEST_KUBERNETES=$(tests/kubernetes.sh)
    export FOREBAY_TEST_KUBERNETES
}

# Benchmarks are compiled by clippy alone.
build() { cargo test --release --locked --workspace --no-run; }

answers() { kcat -b "$1" -L -m 2 >/dev/null 2>&1; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Kafka in a container. Where that fails, the tests start one from the jars.
start_kafka() {
    local port name
    port=$(free_port)
    name=forebay-tests-$$
    docker run -d --rm --name "$name" -p "127.0.0.1:$port:$port" \
        -e KAFKA_NODE_ID=1 -e KAFKA_PROCESS_ROLES=broker,controller -e KAFKA_CONTROLLER_LISTENER_NAMES=CONTROLLER \
        -e "KAFKA_LISTENERS=PLAINTEXT://:$port,CONTROLLER://:9093" \
        -e "KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://127.0.0.1:$port" \
        -e KAFKA_CONTROLLER_QUORUM_VOTERS=1@localhost:9093 \
        -e KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT \
        -e KAFKA_AUTO_CREATE_TOPICS_ENABLE=false -e KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR=1 \
        apache/kafka:4.1.1 >/dev/null 2>"$work/docker.log" || return 0
    containers="$containers $name"
    for _ in $(seq 60); do
        if answers "127.0.0.1:$port"; then
            export FOREBAY_TEST_KAFKA=127.0.0.1:$port
            return 0
        fi
        sleep 1
    done
    docker rm -f "$name" >/dev/null 2>&1 || true
}

# RabbitMQ in a container. Where that fails, the tests start the distribution's.
start_rabbitmq() {
    local port management name login=forebay:correct-horse
    port=$(free_port)
    management=$(free_port)
    name=forebay-tests-amqp-$$
    docker run -d --rm --name "$name" -p "127.0.0.1:$port:5672" -p "127.0.0.1:$management:15672" \
        -e "RABBITMQ_DEFAULT_USER=${login%:*}" -e "RABBITMQ_DEFAULT_PASS=${login#*:}" \
        rabbitmq:4-management >/dev/null 2>"$work/docker.log" || return 0
    containers="$containers $name"
    for _ in $(seq 60); do
        if curl -sfo /dev/null -u "$login" "http://127.0.0.1:$management/api/health/checks/port-listener/5672"; then
            export FOREBAY_TEST_AMQP=amqp://$login@127.0.0.1:$port FOREBAY_TEST_AMQP_MANAGEMENT=127.0.0.1:$management
            return 0
        fi
        sleep 1
    done
    docker rm -f "$name" >/dev/null 2>&1 || true
}

has_docker() { command -v docker >/dev/null 2>&1 && docker info >/dev/null 2>&1; }

start_servers() {
    if [ -n "${FOREBAY_TEST_KAFKA:-}" ]; then
        answers "$FOREBAY_TEST_KAFKA" || { say "FOREBAY_TEST_KAFKA: nothing answers at $FOREBAY_TEST_KAFKA"; return 1; }
    elif has_docker; then
        start_kafka
    fi
    # A RabbitMQ that was given is asked by the tests themselves, which say so when it does not answer.
    if [ -z "${FOREBAY_TEST_AMQP:-}" ] && has_docker; then
        start_rabbitmq
    fi
    say "shared Kafka: ${FOREBAY_TEST_KAFKA:-started by the tests}"
    say "shared RabbitMQ: $([ -n "${FOREBAY_TEST_AMQP:-}" ] && echo "given, or a container" || echo "started by the tests")"
}

# What the tests say, and what every Forebay says in them, is kept, and searched for the secrets that they use.
export FOREBAY_TEST_OUTPUT=$work/output
mkdir "$FOREBAY_TEST_OUTPUT"

run() { cargo test --release --locked --workspace "$@" 2>&1 | tee "$FOREBAY_TEST_OUTPUT/tests"; }

# Says which file and line tells what, and shows first that it can.
search() { cargo test --release --locked --test it -- secrets::; }

# Tests of these modules. `whitebox` is of the package that has the binary, so that Cargo builds that too.
test_modules() { cargo test --locked --test whitebox --test it -- $(for module in $1; do echo "$module::"; done); }

# What needs no broker, and no program beside a compiler. The simulators run fewer seeds than they do in the whole suite.
fast() {
    export FOREBAY_TEST_BROKERS= FOREBAY_SIM_SEEDS=100
    stage "unit tests" cargo test --locked --workspace --lib --bins
    stage "documentation's examples" cargo test --locked --doc
    stage "a sender and a broker of one's own" cargo test --locked --test seams
    stage "tests of the library and of the binary" test_modules "$fast"
}

# The tests of one of the groups above, and of sinks: no other broker may be started than those that it needs.
group() {
    export FOREBAY_TEST_BROKERS=$1
    stage "tools" get_tools
    stage "Python clients" get_python
    if [ "$1" != RabbitMQ ]; then stage "Kafka" get_kafka; fi
    for sink in ${3:-}; do stage "tests of $sink" cargo test --locked --test "$sink"; done
    stage "tests of the binary" test_modules "$2"
}

case ${1:-} in
fast) fast; exit ;;
kafka) group Kafka "$kafka" kafka_sink; exit ;;
rabbitmq) group RabbitMQ "$rabbitmq" rabbitmq_sink; exit ;;
both)
    stage "Java consumers" get_java
    group "Kafka RabbitMQ" "$both"
    exit
    ;;
deploy)
    stage "programs for deploy/" get_programs
    stage "Helm, and what judges manifests" get_kubernetes
    group "Kafka RabbitMQ" "$deploy"
    exit
    ;;
esac

stage "tools" get_tools
stage "Python clients" get_python
stage "Kafka" get_kafka
stage "programs for deploy/" get_programs
stage "Java consumers" get_java
stage "CloudEvents SDKs" get_cloudevents
stage "Helm, and what judges manifests" get_kubernetes
stage "build" build
stage "servers" start_servers
stage "tests" run "$@"
say "$(find "$FOREBAY_TEST_OUTPUT" -type f | wc -l) outputs, $(du -sh "$FOREBAY_TEST_OUTPUT" | cut -f1)"
stage "secrets" search
