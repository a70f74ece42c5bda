#!/usr/bin/env bash
# Builds deploy/Dockerfile and runs what came of it: without Docker, by buildah and runc, on a base that mmdebstrap makes. The first time takes about
# a quarter of an hour on two cores, so it is not a part of tests/run.sh. Needs root, and Debian's packages or the right to install them.
#
#   tests/image.sh              builds, looks into the image, and sends a signed sample through it into a real Kafka
#
# FOREBAY_TEST_CACHE=DIR        where downloads are kept (default: ~/.cache/forebay-tests)
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${FOREBAY_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay-tests}
export FOREBAY_TEST_CACHE=$cache
mkdir -p "$cache"
work=$(mktemp -d -t forebay-image.XXXXXX)
bytes_max=40000000
secret=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=
running=()
mounted=

say() { printf '== %s\n' "$*" >&2; }
fail() {
    say "FAILED: $*"
    exit 1
}
builder() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
finish() {
    local code=$?
    trap - EXIT
    for container in $(runc --root "$work/runc" list -q 2>/dev/null); do
        runc --root "$work/runc" delete --force "$container" || true
    done
    for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if [ $code != 0 ]; then tail -n 30 "$work"/*.log 2>/dev/null >&2 || true; fi
    if [ -n "$mounted" ]; then builder umount "$mounted" >/dev/null 2>&1 || true; fi
    rm -rf "$work"
    say "$([ $code = 0 ] && echo passed || echo "failed (exit code $code)") after ${SECONDS} s"
    exit $code
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

get_tools() {
    local missing=
    for need in buildah:buildah runc:runc mmdebstrap:mmdebstrap kcat:kcat curl:curl python3:python3 objcopy:binutils java:default-jre-headless mvn:maven; do
        command -v "${need%%:*}" >/dev/null || missing="$missing ${need##*:}"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$work/apt.log" 2>&1
}

# In place of the image of Rust: the same Debian with what that image has of it; the toolchain is this machine's, mounted.
make_base() {
    local packages=ca-certificates,gcc,g++,libc6-dev,make,perl,pkg-config base=$cache/image-base-1.tar container
    if [ ! -e "$base" ]; then
        say "making the base"
        mmdebstrap --mode=root --variant=minbase --include="$packages" bookworm "$base.part" >"$work/base.log" 2>&1
        mv "$base.part" "$base"
    fi
    container=$(builder from scratch)
    builder add -q "$container" "$base" / >/dev/null
    # What is compiled was fetched before: nothing in there needs a network.
    builder config --env CARGO_HOME=/usr/local/cargo --env CARGO_NET_OFFLINE=true \
        --env PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    builder commit -q --format docker "$container" localhost/forebay-base >/dev/null
    builder rm "$container" >/dev/null
}

# Cargo's registry of this machine, with all that the build takes.
fetch_crates() {
    cargo fetch --locked >"$work/fetch.log" 2>&1
    mkdir "$work/auditable"
    local version
    version=$(sed -n 's/.*cargo-auditable@\([0-9.]*\).*/\1/p' deploy/Dockerfile)
    cargo info --quiet "cargo-auditable@$version" >>"$work/fetch.log" 2>&1
    local source
    source=$(echo "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"cargo-auditable-$version")
    cp -r "$source" "$work/auditable/source"
    cargo fetch --locked --manifest-path "$work/auditable/source/Cargo.toml" >>"$work/fetch.log" 2>&1
}

# What was compiled stays in the cache: instead of Docker's layers, which this storage would copy whole.
build() {
    mkdir -p "$cache/image-target"
    builder build --format docker --isolation chroot --network host --layers=false \
        --build-arg RUST_IMAGE=localhost/forebay-base --build-arg "REVISION=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" \
        --volume "$(rustc --print sysroot):/usr/local/rust:ro" \
        --volume "${CARGO_HOME:-$HOME/.cargo}/registry:/usr/local/cargo/registry" \
        --volume "$cache/image-target:/build/target" \
        --file deploy/Dockerfile --tag localhost/forebay . >"$work/build.log" 2>&1
    mounted=$(builder from --pull-never localhost/forebay)
    rootfs=$(builder mount "$mounted")
    builder inspect --type image localhost/forebay >"$work/inspect.json"
}

# What the image has and has not.
look_into() {
    local bytes packed
    bytes=$(du -sb --apparent-size "$rootfs" | cut -f1)
    builder push -q localhost/forebay "oci-archive:$work/image.tar" >/dev/null
    packed=$(stat -c %s "$work/image.tar")
    say "the image: $((bytes / 1000)) kB, $((packed / 1000)) kB compressed"
    [ "$bytes" -lt $bytes_max ] || fail "more than $bytes_max bytes"

    find "$rootfs" -type f -perm /111 ! -name '*.so*' -printf '/%P\n' >"$work/programs"
    [ "$(cat "$work/programs")" = /usr/bin/forebay ] || fail "programs beside forebay: $(cat "$work/programs")"
    [ -z "$(find "$rootfs" -perm /7000)" ] || fail "setuid, setgid or sticky: $(find "$rootfs" -perm /7000)"
    [ "$(find "$rootfs" -uid 10001 -printf '/%P\n')" = /var/lib/forebay ] || fail "not only /var/lib/forebay belongs to 10001"
    grep -q 'BEGIN CERTIFICATE' "$rootfs/etc/ssl/certs/ca-certificates.crt" || fail "no CA certificates"

    python3 - "$work/inspect.json" <<'PYTHON' || fail "the configuration of the image"
import json, sys
config = json.load(open(sys.argv[1]))["Docker"]["config"]
assert config["User"] == "10001:10001", config["User"]
assert config["Entrypoint"] == ["/usr/bin/forebay"] and config["Cmd"] == ["serve"], config
assert config["Healthcheck"]["Test"] == ["CMD", "/usr/bin/forebay", "check", "--live"], config.get("Healthcheck")
assert list(config["Volumes"]) == ["/var/lib/forebay"], config["Volumes"]
for label in ("title", "description", "licenses", "version", "revision"):
    assert config["Labels"]["org.opencontainers.image." + label], label
PYTHON
    python3 tests/image/crates.py "$rootfs/usr/bin/forebay" >"$work/crates"
    for crate in rdkafka-sys openssl-src actix-web lapin; do
        grep -q "^$crate [0-9]" "$work/crates" || fail "$crate is not in the list of crates: $(wc -l <"$work/crates") are"
    done
    say "its list of crates has $(wc -l <"$work/crates")"
}

# Runs the image's entry point in a container, with these arguments.
contained() {
    local name=$1
    shift
    python3 tests/image/bundle.py "$work/inspect.json" "$rootfs" "$work/$name" \
        --bind "$work/spool" /var/lib/forebay rw --bind "$work/etc" /etc/forebay ro -- "$@"
    runc --root "$work/runc" run --bundle "$work/$name" "forebay-$$-$name"
}

wait_for() {
    local what=$1 tries=150
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || fail "waited in vain: $what"
        sleep 0.2
    done
}

free_ports() {
    python3 -c '
import socket
sockets = [socket.socket() for _ in range(4)]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))'
}

start_kafka() {
    local jars
    jars=$(tests/jars.sh tests/kafka)
    {
        cat tests/kafka/server.properties
        echo "node.id=1"
        echo "listeners=PLAINTEXT://127.0.0.1:$kafka,CONTROLLER://127.0.0.1:$controller"
        echo "advertised.listeners=PLAINTEXT://127.0.0.1:$kafka"
        echo "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"
        echo "controller.quorum.voters=1@127.0.0.1:$controller"
        echo "log.dirs=$work/kafka"
        echo "offsets.topic.replication.factor=1"
        echo "message.max.bytes=23068672"
    } >"$work/kafka.properties"
    java -cp "$jars/*" kafka.tools.StorageTool format -t Zm9yZWJheS10ZXN0cy0wMQ -c "$work/kafka.properties" >"$work/kafka.log" 2>&1
    java -Xmx512m -cp "$jars/*" kafka.Kafka "$work/kafka.properties" >>"$work/kafka.log" 2>&1 &
    running+=($!)
    wait_for "Kafka" kcat -b "127.0.0.1:$kafka" -L -m 2
}

run_the_main_path() {
    local public admin kafka controller
    read -r public admin kafka controller <<<"$(free_ports)"
    start_kafka
    mkdir "$work/etc"
    # As a volume begins: with what the image has there.
    cp -a "$rootfs/var/lib/forebay" "$work/spool"
    cat >"$work/etc/forebay.toml" <<TOML
server.listen = "127.0.0.1:$public"
server.drain_delay = "100ms"
admin.listen = "127.0.0.1:$admin"

[endpoints.acme]
path = "/millicast/acme"
secrets = ["file:/etc/forebay/secret"]

[sinks.main]
type = "kafka"
brokers = ["127.0.0.1:$kafka"]
create_topics = { partitions = 1, replication = 1 }
TOML
    echo "$secret" >"$work/etc/secret"
    # mktemp made it for root alone.
    chmod 755 "$work"

    if contained health check --live 2>"$work/health.log"; then fail "healthy before it runs"; fi
    contained serve >"$work/serve.log" 2>&1 &
    running+=($!)
    wait_for "it is ready" curl -sf "http://127.0.0.1:$admin/readyz"
    contained health2 check --live || fail "the health check of the image, while it runs"

    local pid
    pid=$(pgrep -f '^/usr/bin/forebay serve' | tail -1)
    grep -q '^Uid:.10001.10001' "/proc/$pid/status" || fail "not uid 10001"
    grep -qE '^CapEff:.0+$' "/proc/$pid/status" || fail "it has capabilities"
    grep -qE ' / [^ ]+ ro[, ]' "/proc/$pid/mounts" || fail "its root can be written: $(cat "/proc/$pid/mounts")"

    contained send send "--url=http://127.0.0.1:$public/millicast/acme" --secret=file:/etc/forebay/secret --kind=feeds --count=1 >"$work/send.log" 2>&1 ||
        fail "the sample was not taken"
    wait_for "the sample in the topic" sh -c "kcat -b 127.0.0.1:$kafka -C -t millicast.events -e -q | grep -q '\"type\":\"com.millicast.feeds'"
    kcat -b "127.0.0.1:$kafka" -C -t millicast.events -e -q -K ' ' | head -c 300 >&2
    echo >&2
    runc --root "$work/runc" kill "forebay-$$-serve" TERM
    wait "${running[-1]}" || fail "it did not stop in order"
    [ -n "$(find "$work/spool" -type f -uid 10001)" ] || fail "nothing is in the spool"
}

get_tools
say "base and crates"
make_base
fetch_crates
say "build"
build
look_into
say "run"
run_the_main_path
