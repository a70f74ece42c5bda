//! Tests from outside, against real servers: one binary for all of them, a module per topic.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod asyncapi;
mod cli;
mod clients;
mod cloudevents;
mod compose;
mod config;
mod consumers;
mod descriptors;
mod dev;
mod disk;
mod drain;
mod end_to_end;
mod files;
mod image;
mod ingress;
mod kafka_sink;
mod kubernetes;
mod logging;
mod memory;
mod ordering;
mod prometheus;
mod rabbitmq_check;
mod rabbitmq_sink;
mod rabbitmq_tail;
mod rabbitmq_topology;
mod raw_http;
mod refused;
mod reload;
mod rotation;
mod schemas;
mod secrets;
mod siege;
mod systemd;
mod tidy;
mod told;
mod traces;
mod unrouted;
mod verify;
