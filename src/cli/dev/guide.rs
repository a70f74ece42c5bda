//! What a newcomer needs to know, and to type.

use std::net::SocketAddr;

use serde_json::json;

use super::{EXCHANGE, PARTITIONS, parameters, path, topics};
use crate::{
    node::Node,
    senders::{self, Secret},
};

pub struct DevGuide {
    pub url: String,
    admin: SocketAddr,
    secret: String,
    broker: DevBroker,
    curl: String,
}

/// Where events go.
pub enum DevBroker {
    /// The brokers of the embedded Kafka.
    Embedded(String),
    /// The one that was given.
    RabbitMq,
}

impl DevGuide {
    pub fn new(node: &Node, secret: &Secret, text: String, broker: DevBroker) -> Self {
        let public = node.public_addresses()[0];
        let url = format!("http://{public}{}", path());
        let sender = senders::usual();
        let sample = sender.sample(sender.samples()[0], &parameters("my_stream", 1000));
        let body = String::from_utf8(sample.body).expect("the first sample is JSON");
        let signed = sender.sign(secret, body.as_bytes());
        let headers: String = signed
            .iter()
            .map(|(name, value)| format!("-H '{name}: {value}' "))
            .collect();
        let curl = format!("curl -i {url} -H 'Content-Type: application/json' {headers}-d '{body}'");
        Self {
            url,
            admin: node.admin_addresses()[0],
            secret: text,
            broker,
            curl,
        }
    }

    pub fn opening(&self) -> String {
        let broker = match &self.broker {
            DevBroker::Embedded(brokers) => {
                format!(
                    "embedded Kafka   {brokers} (topics {}; it keeps nothing)",
                    topics().join(", ")
                )
            }
            DevBroker::RabbitMq => format!(
                "RabbitMQ         exchange {EXCHANGE}, {PARTITIONS} queues {EXCHANGE}.00 and on (declared; they stay, with what they hold)"
            ),
        };
        format!(
            "Forebay takes webhooks in at {}\n  secret (base64)  {}\n  {broker}\n  operator         http://{}/status /metrics /readyz\n",
            self.url, self.secret, self.admin
        )
    }

    pub fn how_to_go_on(&self) -> String {
        let read = match &self.broker {
            DevBroker::Embedded(brokers) => format!(
                "Read the topic with any librdkafka client (kcat, confluent-kafka) or kafkajs; the Java client, franz-go and \
                 kafka-python\nmisread this embedded Kafka, and work with a real one:\n\n  kcat -b {brokers} -t {} -C",
                topics()[0]
            ),
            DevBroker::RabbitMq => format!(
                "Consume the queues {EXCHANGE}.00 and on, each of which has its part of the streams, in order; or bind one of your \
                 own:\n*.feeds.# takes the feeds of all streams."
            ),
        };
        format!(
            "\nNow one of your own:\n\n  {}\n\n{read}\n\nOr send more: forebay send --url {} --secret {}\nWaiting for webhooks. Ctrl-C stops.\n",
            self.curl, self.url, self.secret
        )
    }

    pub fn json(&self) -> String {
        let mut listening = json!({
            "url": self.url,
            "admin": format!("http://{}", self.admin),
            "secret": self.secret,
            "curl": self.curl,
        });
        match &self.broker {
            DevBroker::Embedded(brokers) => {
                listening["brokers"] = brokers.as_str().into();
                listening["topics"] = json!(topics());
            }
            DevBroker::RabbitMq => listening["exchange"] = EXCHANGE.into(),
        }
        json!({ "listening": listening }).to_string()
    }
}
