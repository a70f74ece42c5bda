//! Kafka as Forebay knows a broker.

use std::{pin::Pin, sync::Arc};

use forebay_broker::{
    Broker, CertificateFile, CheckFinding, EventSource, FindingLevel, MessageReading, MessageTail, PublishFailure,
    ReadError, ReadMessage, ReadOptions, ReadPlace, SinkSetup, TailOptions, TemplatePart, TopicTemplate, header,
};
use forebay_event::{Event, Provider};
use forebay_section::ConfigTable;
use prometheus::Registry;
use serde_json::{Value, json};

use crate::{
    KafkaMetrics, KafkaNames, KafkaSink, KafkaTail, KafkaTailError, KafkaTailOptions, KafkaTailed, TopicReading,
    check_sizes, connect_check,
    properties::certificate_files,
    session::ATTRIBUTE_PREFIX,
    settings::{self, KafkaConfig, RouteTopics, UnknownTopic},
};

/// A producer has a pair to be woken by, and for each broker another pair and a connection.
const DESCRIPTORS_OF_PRODUCER: u64 = 2;
const DESCRIPTORS_OF_BROKER: u64 = 3;

/// Kafka.
pub struct Kafka;

impl Broker for Kafka {
    type Settings = KafkaConfig;
    type Address = RouteTopics;
    type Metrics = KafkaMetrics;
    type Sink = KafkaSink;

    fn name(&self) -> &'static str {
        "kafka"
    }

    fn required_keys(&self) -> &'static str {
        "brokers (Kafka)"
    }

    fn settings(&self, table: ConfigTable<'_>) -> Option<KafkaConfig> {
        KafkaConfig::read(table)
    }

    fn route_keys(&self) -> &'static [&'static str] {
        &["topic", "unknown_topic", "topic_fallback"]
    }

    fn address(&self, table: &mut ConfigTable<'_>) -> Option<RouteTopics> {
        settings::topics(table)
    }

    fn usual_address(&self, provider: &str, route: &str) -> RouteTopics {
        let template = TopicTemplate {
            parts: vec![TemplatePart::Literal(format!("{provider}.{route}"))],
        };
        RouteTopics::new(template, UnknownTopic::Hold)
    }

    fn template<'a>(&self, topics: &'a RouteTopics) -> Option<&'a TopicTemplate> {
        Some(&topics.template)
    }

    fn address_of(&self, topics: &RouteTopics, event: &Event, provider: &Provider) -> Arc<str> {
        match topics.literal() {
            Some(topic) => topic.clone(),
            None => topics.template.expand(event, provider).into(),
        }
    }

    fn with_topic(&self, _: &RouteTopics, topic: &str) -> Result<RouteTopics, String> {
        Ok(RouteTopics::new(TopicTemplate::parse(topic)?, UnknownTopic::Hold))
    }

    fn summary(&self, kafka: &KafkaConfig) -> String {
        format!("Kafka at {}", kafka.brokers.join(", "))
    }

    fn is_same_place(&self, one: &KafkaConfig, other: &KafkaConfig) -> bool {
        one.brokers.iter().any(|broker| other.brokers.contains(broker))
    }

    fn inline_secrets(&self, kafka: &KafkaConfig) -> Vec<String> {
        kafka.inline_secrets()
    }

    fn check_sizes(&self, kafka: &KafkaConfig, body_bytes_max: u64) -> Result<(), (String, String)> {
        check_sizes(&kafka.properties, body_bytes_max)
            .map_err(|(property, text)| (format!("properties.{property}"), text))
    }

    fn certificate_files(&self, kafka: &KafkaConfig) -> Vec<CertificateFile> {
        certificate_files(kafka)
    }

    fn descriptors(&self, kafka: &KafkaConfig, nodes_min: u64) -> u64 {
        DESCRIPTORS_OF_PRODUCER + DESCRIPTORS_OF_BROKER * nodes_min.max(kafka.brokers.len() as u64)
    }

    fn metrics(&self, registry: &Registry) -> prometheus::Result<KafkaMetrics> {
        KafkaMetrics::register(registry)
    }

    fn sink(&self, setup: SinkSetup<'_, Self>, metrics: Arc<KafkaMetrics>) -> Result<KafkaSink, PublishFailure> {
        let names = KafkaNames::new(setup.sink, setup.route);
        Ok(KafkaSink::new(
            setup.settings,
            names,
            setup.address.clone(),
            setup.limits,
            metrics,
        )?)
    }

    async fn check(
        &self,
        sink: &str,
        kafka: &KafkaConfig,
        routes: &[(&str, &RouteTopics)],
        body_bytes_max: u64,
    ) -> Vec<CheckFinding> {
        let mut topics: Vec<String> = Vec::new();
        let mut findings = Vec::new();
        for (route, RouteTopics { template, .. }) in routes {
            match template.literal() {
                Some(topic) if !topics.iter().any(|known| known == topic) => topics.push(topic.to_owned()),
                Some(_) => {}
                None => findings.push(CheckFinding::new(
                    FindingLevel::Warning,
                    format!("route {route}: {template} is known only when an event comes"),
                )),
            }
        }
        findings.extend(connect_check(sink, kafka, &topics, body_bytes_max).await);
        findings
    }

    fn tail(
        &self,
        kafka: &KafkaConfig,
        followed: &[(&RouteTopics, &[String])],
        options: TailOptions,
    ) -> Result<EventSource<dyn MessageTail>, ReadError> {
        let mut topics: Vec<TopicTemplate> = Vec::new();
        for (RouteTopics { template, .. }, _) in followed {
            if !topics.contains(template) {
                topics.push(template.clone());
            }
        }
        Ok(tail_topics(kafka.clone(), topics, options))
    }

    fn read(
        &self,
        kafka: &KafkaConfig,
        topics: &RouteTopics,
        options: ReadOptions,
    ) -> Result<EventSource<dyn MessageReading>, ReadError> {
        Ok(read_topics(kafka.clone(), vec![topics.template.clone()], options))
    }
}

/// Follows topics.
pub fn tail_topics(
    kafka: KafkaConfig,
    topics: Vec<TopicTemplate>,
    options: TailOptions,
) -> EventSource<dyn MessageTail> {
    let what = names(&topics);
    let options = KafkaTailOptions {
        kafka,
        topics,
        from_start: options.from_start,
        deadline: options.deadline,
    };
    EventSource::new(what, async {
        let tail = KafkaTail::open(options).await.map_err(unavailable)?;
        Ok(Box::new(tail) as Box<dyn MessageTail>)
    })
}

/// Reads topics to their end.
pub fn read_topics(
    kafka: KafkaConfig,
    topics: Vec<TopicTemplate>,
    options: ReadOptions,
) -> EventSource<dyn MessageReading> {
    let what = names(&topics);
    let from_ms = options.from_ms;
    let options = KafkaTailOptions {
        kafka,
        topics,
        from_start: true,
        deadline: options.deadline,
    };
    EventSource::new(what, async move {
        let reading = TopicReading::open(options, from_ms).await.map_err(unavailable)?;
        Ok(Box::new(reading) as Box<dyn MessageReading>)
    })
}

fn names(topics: &[TopicTemplate]) -> String {
    topics.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn unavailable(error: KafkaTailError) -> ReadError {
    ReadError::Unavailable(error.to_string())
}

fn place(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}

impl MessageTail for KafkaTail {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<ReadMessage, ReadError>> + Send + '_>> {
        Box::pin(async { self.next().await.map(Into::into).map_err(unavailable) })
    }
}

impl MessageReading for TopicReading {
    fn places(&self) -> Vec<ReadPlace> {
        let places = self.extents().iter().map(|extent| ReadPlace {
            name: place(&extent.topic, extent.partition),
            is_cut: extent.is_cut,
            messages: (extent.end - extent.begin).unsigned_abs(),
        });
        places.collect()
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Option<(String, ReadMessage)>, ReadError>> + Send + '_>> {
        Box::pin(async {
            let next = self.next().await.map_err(unavailable)?;
            Ok(next.map(|tailed| (place(&tailed.topic, tailed.partition), tailed.into())))
        })
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

impl From<KafkaTailed> for ReadMessage {
    fn from(tailed: KafkaTailed) -> Self {
        let place = format!(
            "{} partition {} offset {}",
            tailed.topic, tailed.partition, tailed.offset
        );
        let fields = json!({
            "topic": tailed.topic,
            "partition": tailed.partition,
            "offset": tailed.offset,
            "timestamp": tailed.timestamp_ms,
        });
        let Value::Object(fields) = fields else {
            unreachable!("it was just made an object")
        };
        Self {
            place,
            fields,
            key: tailed.key,
            content_type: header(&tailed.headers, "content-type").unwrap_or_default(),
            headers: tailed.headers,
            attribute_prefix: ATTRIBUTE_PREFIX,
            payload: tailed.payload,
        }
    }
}
