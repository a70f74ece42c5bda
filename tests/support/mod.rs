//! What the tests stand on: real servers, the real binary, and what reads and judges its output.

pub mod census;
pub mod cgroup;
pub mod chart;
pub mod collector;
pub mod consumers;
pub mod disk;
pub mod forebay;
pub mod http;
pub mod jars;
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
pub mod tls;
pub mod topic;
pub mod venv;
