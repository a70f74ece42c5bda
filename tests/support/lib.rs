//! What the tests stand on: real servers, the real binary, and what reads and judges its output.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// The top of the repository.
pub const ROOT: &str = {
    let here = env!("CARGO_MANIFEST_DIR");
    here.split_at(here.len() - "/tests/support".len()).0
};

pub mod census;
pub mod cgroup;
pub mod chart;
pub mod clock;
pub mod collector;
pub mod consumers;
pub mod disk;
pub mod fetched;
pub mod forebay;
pub mod http;
pub mod kafka;
pub mod oracle;
pub mod process;
pub mod program;
pub mod prometheus;
pub mod proxy;
pub mod publisher;
pub mod rabbitmq;
pub mod rng;
pub mod schemas;
pub mod secrets;
pub mod sender;
pub mod siege;
pub mod smuggling;
pub mod target;
pub mod terminal;
pub mod time;
pub mod tls;
pub mod topic;
pub mod venv;
