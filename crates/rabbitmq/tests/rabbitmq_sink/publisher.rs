//! What the tests publish with.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use forebay_broker::Message;
use forebay_rabbitmq::{RabbitMqMetrics, RabbitMqNames, RabbitMqSink};
use forebay_section::TextSource;
use uuid::Uuid;

pub use forebay_test_support::publisher::{Publisher, assert_in_order};

pub const DEADLINE: Duration = Duration::from_secs(60);
pub const EXCHANGE: &str = "forebay";

pub fn configuration(uris: &[String], partitions: u32) -> forebay_rabbitmq::RabbitMqConfig {
    forebay_rabbitmq::RabbitMqConfig {
        uris: uris.iter().cloned().map(TextSource::Inline).collect(),
        username: None,
        password: None,
        tls: forebay_rabbitmq::RabbitMqTls::default(),
        exchange: EXCHANGE.into(),
        partitions,
        declare: false,
        unroutable: forebay_rabbitmq::Unroutable::DeadLetter,
        management: None,
    }
}

pub fn new_sink(config: &forebay_rabbitmq::RabbitMqConfig) -> RabbitMqSink {
    let names = RabbitMqNames {
        sink: "rabbit".into(),
        route: "events".into(),
    };
    let metrics = RabbitMqMetrics::register(&prometheus::Registry::new()).unwrap();
    RabbitMqSink::new(config, names, 1 << 20, Arc::new(metrics))
}

pub fn sink(uris: &[String], partitions: u32) -> RabbitMqSink {
    new_sink(&configuration(uris, partitions))
}

/// Of stream `n % 7`.
pub fn message(sequence: u64) -> Message {
    let stream = sequence % 7;
    Message {
        sequence,
        replica: "forebay-0".into(),
        id: Uuid::from_u128(sequence.into()),
        address: format!("feeds.started.ZG6NWV.stream-{stream}").into(),
        time_ms: 1_638_463_486_489,
        trace: None,
        again: None,
        key: format!("ZG6NWV/stream-{stream}"),
        content_type: "application/cloudevents+json; charset=UTF-8".into(),
        attributes: Vec::new(),
        body: Bytes::from(format!("{{\"n\":{sequence}}}")),
    }
}
