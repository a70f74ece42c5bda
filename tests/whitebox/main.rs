//! What the library is asked by its own functions: configuration, servers, events and what is published of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use forebay_test_support as support;

mod admin;
mod asyncapi;
mod cloudevents;
mod config;
mod ingress;
mod schemas;
