//! The brokers that events are published to: where they are registered, and what of them is the node's.
//!
//! A broker is a crate of its own (`crates/kafka`, `crates/rabbitmq`) that implements [`Broker`]; nothing names one but
//! [`brokers`] and the command line, where it is told of a broker without a configuration.

mod certificates;
mod unrouted;

use std::sync::OnceLock;

pub use crate::broker::*;
pub use forebay_kafka as kafka;
pub use forebay_rabbitmq as rabbitmq;

pub use certificates::CertificateWatch;
pub use unrouted::UnroutedSink;

/// The brokers that are built in.
const BUILT_IN: &[&dyn RegisteredBroker] = &[&kafka::Kafka, &rabbitmq::RabbitMq];

static BROKERS: OnceLock<Vec<&'static dyn RegisteredBroker>> = OnceLock::new();

/// All brokers.
pub fn brokers() -> &'static [&'static dyn RegisteredBroker] {
    BROKERS.get_or_init(|| BUILT_IN.to_vec())
}

/// Adds brokers to those that are built in. To be called before anything else of Forebay, by the program that has them.
///
/// # Panics
///
/// Brokers were looked up already, or two have the same name.
pub fn register(more: &[&'static dyn RegisteredBroker]) {
    let all = [BUILT_IN, more].concat();
    for (at, broker) in all.iter().enumerate() {
        let name = broker.name();
        let is_same = |other: &&dyn RegisteredBroker| other.name() == name;
        assert!(!all[..at].iter().any(is_same), "another broker has the name {name}");
    }
    assert!(
        BROKERS.set(all).is_ok(),
        "brokers are registered before they are looked up"
    );
}
