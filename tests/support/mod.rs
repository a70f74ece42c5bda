//! What the tests stand on: real servers, the real binary, and what reads and judges its output.

pub mod disk;
pub mod forebay;
pub mod kafka;
pub mod schemas;
pub mod sender;
pub mod topic;
