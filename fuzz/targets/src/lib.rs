//! What is fuzzed: functions of any bytes, each of which asserts what must hold whatever they are.
//!
//! An input says what is to be tried, as an [`InputReader`] reads it, and is not what a file or request is byte for
//! byte: so most of what the fuzzer makes of it gets behind the checksums. A function panics where something does not
//! hold. What each of them holds is in its module, and in the table of `fuzz/README.md`.
//!
//! `fuzz/fuzz_targets` has libFuzzer call them; the tests of this crate call them with the kept inputs, and some
//! thousands that are made of those.

mod configuration;
mod cursors;
mod damage;
mod event;
mod index;
mod input;
mod memory_log;
mod request;
mod routing_key;
mod segment;
mod signature;
#[cfg(test)]
mod tests;

pub use self::{
    configuration::configuration, cursors::cursors, event::event, index::index, input::InputReader,
    routing_key::routing_key, segment::segment, signature::signature,
};

/// A function of any bytes, and its name.
pub struct FuzzTarget {
    pub name: &'static str,
    /// How many inputs the tests make: as many as take about a second.
    pub made_inputs: u64,
    pub run: fn(&[u8]),
}

impl FuzzTarget {
    const fn new(name: &'static str, made_inputs: u64, run: fn(&[u8])) -> Self {
        Self { name, made_inputs, run }
    }
}

/// All that there are, by name.
pub const TARGETS: [FuzzTarget; 7] = [
    FuzzTarget::new("configuration", 2_000, configuration),
    FuzzTarget::new("cursors", 500, cursors),
    FuzzTarget::new("event", 3_000, event),
    FuzzTarget::new("index", 300, index),
    FuzzTarget::new("routing_key", 20_000, routing_key),
    FuzzTarget::new("segment", 2_000, segment),
    FuzzTarget::new("signature", 10_000, signature),
];
