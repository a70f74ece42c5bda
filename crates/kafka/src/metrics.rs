//! librdkafka's statistics, as metrics.

use std::collections::HashMap;

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use serde::Deserialize;

use super::KafkaNames;

/// The part of librdkafka's statistics that is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClientStatistics {
    msg_cnt: i64,
    msg_size: i64,
    brokers: HashMap<String, BrokerStatistics>,
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BrokerStatistics {
    /// -1: an address of the configuration, not yet known by its id.
    nodeid: i32,
    state: String,
    rtt: WindowStatistics,
}

/// Of the last interval, in microseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WindowStatistics {
    p99: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TopicStatistics {
    partitions: HashMap<String, serde::de::IgnoredAny>,
}

impl ClientStatistics {
    pub fn has_broker_up(&self) -> bool {
        self.brokers.values().any(|broker| broker.state == "UP")
    }
}

/// The metrics of every Kafka sink.
pub struct KafkaMetrics {
    queue_records: IntGaugeVec,
    queue_bytes: IntGaugeVec,
    broker_up: IntGaugeVec,
    broker_round_trip_seconds: GaugeVec,
    topic_partitions: IntGaugeVec,
    token_not_after: IntGaugeVec,
    sessions: IntCounterVec,
}

impl KafkaMetrics {
    /// Registers `forebay_kafka_*`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntGaugeVec> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let broker_round_trip_seconds = GaugeVec::new(
            Opts::new(
                "forebay_kafka_broker_round_trip_seconds",
                "99th percentile of the round trips to a broker in the last interval.",
            ),
            &["sink", "route", "broker"],
        )?;
        registry.register(Box::new(broker_round_trip_seconds.clone()))?;
        let sessions = IntCounterVec::new(
            Opts::new("forebay_kafka_sessions_total", "Producers built, the first included."),
            &["sink", "route"],
        )?;
        registry.register(Box::new(sessions.clone()))?;
        Ok(Self {
            queue_records: gauge(
                "forebay_kafka_queue_records",
                "Messages in the producer, waiting or sent and not confirmed.",
                &["sink", "route"],
            )?,
            queue_bytes: gauge(
                "forebay_kafka_queue_bytes",
                "Bytes of those messages.",
                &["sink", "route"],
            )?,
            broker_up: gauge(
                "forebay_kafka_broker_up",
                "1 while the producer is connected to the broker.",
                &["sink", "route", "broker"],
            )?,
            broker_round_trip_seconds,
            topic_partitions: gauge(
                "forebay_kafka_topic_partitions",
                "Partitions of a topic that the route names.",
                &["sink", "route", "topic"],
            )?,
            token_not_after: gauge(
                "forebay_kafka_token_not_after_timestamp_seconds",
                "Until when the token of the identity provider is valid.",
                &["sink", "route"],
            )?,
            sessions,
        })
    }

    /// What is there before the first session stands at 0.
    pub(super) fn born(&self, names: &KafkaNames) {
        let labels = [&*names.sink, &*names.route];
        self.queue_records.with_label_values(&labels).set(0);
        self.queue_bytes.with_label_values(&labels).set(0);
        self.sessions.with_label_values(&labels).inc_by(0);
    }

    pub(super) fn opened(&self, names: &KafkaNames) {
        self.sessions.with_label_values(&[&*names.sink, &*names.route]).inc();
    }

    /// There is a new token, valid until then, in seconds since the Unix epoch.
    pub(super) fn token(&self, names: &KafkaNames, not_after: i64) {
        self.token_not_after
            .with_label_values(&[&*names.sink, &*names.route])
            .set(not_after);
    }

    pub(super) fn observe(&self, names: &KafkaNames, statistics: &ClientStatistics) {
        let (sink, route) = (&*names.sink, &*names.route);
        self.queue_records
            .with_label_values(&[sink, route])
            .set(statistics.msg_cnt);
        self.queue_bytes
            .with_label_values(&[sink, route])
            .set(statistics.msg_size);
        for broker in statistics.brokers.values().filter(|broker| broker.nodeid >= 0) {
            let id = broker.nodeid.to_string();
            let up = broker.state == "UP";
            self.broker_up.with_label_values(&[sink, route, &id]).set(up.into());
            self.broker_round_trip_seconds
                .with_label_values(&[sink, route, &id])
                .set(broker.rtt.p99 as f64 / 1e6);
        }
        // Only a topic from the configuration: the others' names come from the wire.
        if let Some(topic) = &names.topic
            && let Some(seen) = statistics.topics.get(&**topic)
        {
            // librdkafka lists a partition -1 of its own.
            let count = seen.partitions.keys().filter(|id| !id.starts_with('-')).count();
            self.topic_partitions
                .with_label_values(&[sink, route, topic])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
