//! Tests from outside, against real servers: one program for all of them, a module per topic. They drive the binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use forebay_test_support as support;

mod again;
mod cli;
mod clients;
mod compose;
mod consumers;
mod descriptors;
mod dev;
mod disk;
mod drain;
mod end_to_end;
mod files;
mod image;
mod kubernetes;
mod logging;
mod memory;
mod operator;
mod ordering;
mod prometheus;
mod rabbitmq_check;
mod rabbitmq_tail;
mod raw_http;
mod refused;
mod reload;
mod rotation;
mod secrets;
mod siege;
mod spool_command;
mod systemd;
mod tidy;
mod told;
mod traces;
mod unrouted;
mod verify;
mod webhooks;
