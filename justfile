# The documented commands. `just --list` shows them; each can as well be typed.

# What a change must pass: format, lints, documentation, tests.
ci:
    .ci/run

# An embedded Kafka, a secret, samples of every kind: the first minute, with no broker and no file.
dev *ARGS:
    cargo run --release --locked -- dev {{ ARGS }}

# The bridge itself.
serve CONFIG:
    cargo run --release --locked -- serve --config {{ CONFIG }}

# All tests, with a real Kafka on free ports.
test *ARGS:
    tests/run.sh {{ ARGS }}

# The unit tests alone: no broker.
unit *ARGS:
    cargo test --release --locked --lib {{ ARGS }}

# What must hold of any bytes, by libFuzzer, so many seconds for each target: fuzz/README.md.
fuzz SECONDS="60":
    fuzz/run.sh {{ SECONDS }}

# All tests that need no broker, in the profile `dev`.
fast:
    tests/run.sh fast

# Form and lints; warnings are errors.
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets --locked -- -D warnings

# The documentation of the code.
doc:
    RUSTDOCFLAGS=-Dwarnings cargo doc --release --no-deps --locked

# Licences, sources and unwanted crates, without a network (`cargo install --locked cargo-deny`).
deny:
    cargo deny check bans licenses sources

# Known vulnerabilities; fetches the advisory database.
advisories:
    cargo deny check advisories

# How fast, against what, on this machine: docs/benchmarks.md.
bench *ARGS:
    cargo bench --locked --bench ingest -- {{ ARGS }}

# The same for RabbitMQ, beside its own Java client.
bench-rabbitmq *ARGS:
    cargo bench --locked --bench rabbitmq -- {{ ARGS }}

# What a reorder window does to the order in a topic, and its price.
bench-reorder *ARGS:
    cargo bench --locked --bench reorder -- {{ ARGS }}

# What is derived from the Helm chart: its README, its copies of rules and dashboard, the plain manifests.
chart:
    deploy/helm/update.sh

# The dashboard, from its script, and its picture in docs/.
dashboard:
    deploy/grafana/dashboard.py
    FOREBAY_DASHBOARD_PICTURE={{ justfile_directory() }}/docs/dashboard.png tests/run.sh --test it every_query_of_the_dashboard

# The image, built and run without Docker: a quarter of an hour, as root.
image:
    tests/image.sh

# Forebay with Kafka, RabbitMQ, Prometheus and Grafana, webhooks that come in and two consumers: README.md says what to look at.
demo:
    docker compose --profile demo up --wait

# The same, tried: everything is healthy and webhooks go through.
demo-test:
    tests/compose.sh

# A Kafka on localhost:9092 and a RabbitMQ on localhost:5672 for trials.
brokers:
    docker compose up --wait kafka rabbitmq
