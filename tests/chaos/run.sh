#!/usr/bin/env bash
# What is lost when things fail, with the binary, a real Kafka and a ledger: see tests/chaos/main.rs.
#
#   tests/chaos/run.sh [--quick]      some minutes; fails when Forebay has lost anything, or broken an order
#   tests/chaos/run.sh --full         longer faults; writes docs/loss-matrix.md
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/jars.sh tests/kafka >/dev/null
cargo build --release --locked
cargo test --release --locked -p forebay-tests --test chaos -- "${1:---quick}"
