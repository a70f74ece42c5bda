//! The faults, group by group.

mod brokers;
mod disk;
mod front;
mod kafka;
mod process;
mod rabbitmq;

use super::scenario::Scenario;

/// All that is tried.
pub fn all() -> Vec<Scenario> {
    [
        process::SCENARIOS,
        kafka::SCENARIOS,
        rabbitmq::SCENARIOS,
        disk::SCENARIOS,
        front::SCENARIOS,
    ]
    .concat()
}
