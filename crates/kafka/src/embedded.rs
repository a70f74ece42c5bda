//! An embedded Kafka for the first minute: librdkafka's mock cluster, in this process, on a port of its own choosing.
//!
//! It speaks the Kafka protocol, consumer groups included, and keeps nothing.

use rdkafka::{error::KafkaError, mocking::MockCluster, producer::DefaultProducerContext};

/// A running mock cluster; it ends when dropped.
pub struct EmbeddedKafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedKafka {
    /// Starts one broker with these topics of `partitions` partitions each.
    pub fn start(topics: &[&str], partitions: i32) -> Result<Self, KafkaError> {
        let cluster = MockCluster::new(1)?;
        for topic in topics {
            cluster.create_topic(topic, partitions, 1)?;
        }
        Ok(Self { cluster })
    }

    /// Where clients connect to.
    pub fn brokers(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}
