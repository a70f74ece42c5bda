#!/usr/bin/env bash
# What is lost when things fail, with the release binary, real brokers and a ledger: see tests/chaos/main.rs.
#
#   tests/chaos/run.sh [--quick]            some minutes; fails when Forebay has lost anything, broken an order, or answered
#                                           what it may not, and when a fault was not felt
#   tests/chaos/run.sh --full [GROUP...]    an hour and a half; writes the rows of docs/loss-matrix.md
#   tests/chaos/run.sh --help               the rest: one scenario, a seed
#
# tests/run.sh installs what it needs. As root: connections are reset, disks mounted, other root directories entered.
set -euo pipefail
cd "$(dirname "$0")/../.."
for jars in tests/kafka tests/kafka-3.9 tests/kafka-4.3; do tests/jars.sh "$jars" >/dev/null; done
case " $* " in *" --full "*) tests/rabbitmq-4.sh >/dev/null ;; esac
cargo build --release --locked
cargo test --release --locked -p forebay-tests --test chaos -- "$@"
