//! RabbitMQ as Forebay knows a broker.

use std::{pin::Pin, sync::Arc};

use forebay_broker::{
    Broker, CertificateFile, CheckFinding, EventSource, MessageReading, MessageTail, PublishFailure, ReadError,
    ReadMessage, ReadOptions, ReadPlace, SinkSetup, TailOptions, header,
};
use forebay_event::{Event, Provider};
use forebay_section::{ConfigTable, Value};
use prometheus::Registry;
use serde_json::{Map, json};

use crate::{
    RabbitMqMetrics, RabbitMqNames, RabbitMqSink,
    connect::certificate_files,
    connect_check,
    encode::ATTRIBUTE_PREFIX,
    prepare,
    read::{QueueOptions, QueueReadError, QueueReading},
    routing_key,
    settings::RabbitMqConfig,
    tail::{RabbitMqSource, RabbitMqTail, RabbitMqTailError, RabbitMqTailOptions, RabbitMqTailed},
};

/// A connection, and the next one beside it while that is closed.
const DESCRIPTORS: u64 = 2;

/// RabbitMQ.
pub struct RabbitMq;

/// The routing key of a message is made from its event alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutingKeys;

impl Broker for RabbitMq {
    type Settings = RabbitMqConfig;
    type Address = RoutingKeys;
    type Metrics = RabbitMqMetrics;
    type Sink = RabbitMqSink;

    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn required_keys(&self) -> &'static str {
        "uri (RabbitMQ)"
    }

    fn settings(&self, table: ConfigTable<'_>) -> Option<RabbitMqConfig> {
        RabbitMqConfig::read(table)
    }

    /// Those by which another broker's topics are named: none is taken, and why is said.
    fn route_keys(&self) -> &'static [&'static str] {
        &["topic", "unknown_topic", "topic_fallback"]
    }

    fn address(&self, table: &mut ConfigTable<'_>) -> Option<RoutingKeys> {
        let has_topic = table.has("topic");
        let refuse = |text: &'static str| move |_: &Value| -> Result<(), String> { Err(text.to_owned()) };
        table.take(
            "topic",
            refuse(
                "a route to a RabbitMQ sink has none: the routing key is made from each event \
                 (<partition>.<kind>.<event>.<account>.<stream>), and queues choose by their bindings; remove it",
            ),
        );
        for key in ["unknown_topic", "topic_fallback"] {
            let text = "a route to a RabbitMQ sink has no topic; see `unroutable` of the sink; remove it";
            table.take(key, refuse(text));
        }
        (!has_topic).then_some(RoutingKeys)
    }

    fn usual_address(&self, _: &str, _: &str) -> RoutingKeys {
        RoutingKeys
    }

    /// The routing key behind the partition, its words escaped.
    fn address_of(&self, _: &RoutingKeys, event: &Event, _: &Provider) -> Arc<str> {
        let stream = event.stream_name.as_deref().unwrap_or(&event.key);
        routing_key::words(&event.kind, event.name.as_deref(), event.account.as_deref(), stream).into()
    }

    fn summary(&self, rabbitmq: &RabbitMqConfig) -> String {
        format!("RabbitMQ, exchange {}", rabbitmq.exchange)
    }

    fn is_same_place(&self, one: &RabbitMqConfig, other: &RabbitMqConfig) -> bool {
        one.exchange == other.exchange && one.uris.iter().any(|uri| other.uris.contains(uri))
    }

    fn inline_secrets(&self, rabbitmq: &RabbitMqConfig) -> Vec<String> {
        rabbitmq.inline_secrets()
    }

    fn certificate_files(&self, rabbitmq: &RabbitMqConfig) -> Vec<CertificateFile> {
        certificate_files(rabbitmq)
    }

    fn descriptors(&self, _: &RabbitMqConfig, _: u64) -> u64 {
        DESCRIPTORS
    }

    fn metrics(&self, registry: &Registry) -> prometheus::Result<RabbitMqMetrics> {
        RabbitMqMetrics::register(registry)
    }

    fn sink(&self, setup: SinkSetup<'_, Self>, metrics: Arc<RabbitMqMetrics>) -> Result<RabbitMqSink, PublishFailure> {
        let names = RabbitMqNames {
            sink: setup.sink.into(),
            route: setup.route.into(),
        };
        Ok(RabbitMqSink::new(
            setup.settings,
            names,
            setup.limits.body_bytes_max,
            metrics,
        ))
    }

    async fn prepare(&self, sink: &str, rabbitmq: &RabbitMqConfig) -> Result<(), PublishFailure> {
        Ok(prepare(rabbitmq, sink).await?)
    }

    async fn check(
        &self,
        sink: &str,
        rabbitmq: &RabbitMqConfig,
        _: &[(&str, &RoutingKeys)],
        body_bytes_max: u64,
    ) -> Vec<CheckFinding> {
        connect_check(sink, rabbitmq, body_bytes_max).await
    }

    fn tail(
        &self,
        rabbitmq: &RabbitMqConfig,
        followed: &[(&RoutingKeys, &[String])],
        options: TailOptions,
    ) -> Result<EventSource<dyn MessageTail>, ReadError> {
        // A routing key begins with the partition, so that a route's kinds are second.
        let of_kinds = |kinds: &[String]| kinds.iter().map(|kind| format!("*.{kind}.#")).collect::<Vec<_>>();
        let bindings = match followed.iter().any(|(_, kinds)| kinds.is_empty()) {
            true => Vec::new(),
            false => followed.iter().flat_map(|(_, kinds)| of_kinds(kinds)).collect(),
        };
        let source = RabbitMqSource::exchange(&rabbitmq.exchange, bindings);
        tail_source(rabbitmq.clone(), source, options)
    }

    fn read(
        &self,
        rabbitmq: &RabbitMqConfig,
        _: &RoutingKeys,
        options: ReadOptions,
    ) -> Result<EventSource<dyn MessageReading>, ReadError> {
        read_queues(rabbitmq.clone(), Vec::new(), options)
    }
}

/// Follows an exchange, or what a queue gets.
///
/// # Errors
///
/// From the beginning nothing can be followed.
pub fn tail_source(
    rabbitmq: RabbitMqConfig,
    source: RabbitMqSource,
    options: TailOptions,
) -> Result<EventSource<dyn MessageTail>, ReadError> {
    if options.from_start {
        return Err(ReadError::Usage(
            "--from-start: what a queue of RabbitMQ holds is its consumers', and reading it would take it away; a tail shows \
             what arrives from now on"
                .to_owned(),
        ));
    }
    let what = match &source {
        RabbitMqSource::Queue(queue) => format!("the bindings of queue {queue}"),
        RabbitMqSource::Exchange { name, bindings } => format!("exchange {name}, {}", bindings.join(", ")),
    };
    let options = RabbitMqTailOptions {
        rabbitmq,
        source,
        deadline: options.deadline,
    };
    Ok(EventSource::new(what, async {
        let unavailable = |error: RabbitMqTailError| ReadError::Unavailable(error.to_string());
        let tail = RabbitMqTail::open(options).await.map_err(unavailable)?;
        Ok(Box::new(tail) as Box<dyn MessageTail>)
    }))
}

/// Reads queues to their end; none: those that are bound to the exchange.
///
/// # Errors
///
/// Only from the beginning can be read.
pub fn read_queues(
    rabbitmq: RabbitMqConfig,
    queues: Vec<String>,
    options: ReadOptions,
) -> Result<EventSource<dyn MessageReading>, ReadError> {
    if options.from_ms.is_some() {
        return Err(ReadError::Usage(
            "--from: RabbitMQ's queues are read as a whole".to_owned(),
        ));
    }
    let what = queues.join(", ");
    let options = QueueOptions {
        rabbitmq,
        queues,
        spend_delivery: options.spend_delivery,
    };
    Ok(EventSource::new(what, async move {
        let reading = QueueReading::open(&options).await.map_err(unreadable)?;
        Ok(Box::new(reading) as Box<dyn MessageReading>)
    }))
}

fn unreadable(error: QueueReadError) -> ReadError {
    ReadError::Unavailable(error.to_string())
}

impl MessageTail for RabbitMqTail {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<ReadMessage, ReadError>> + Send + '_>> {
        Box::pin(async {
            let next = self.next().await;
            next.map(Into::into)
                .map_err(|error| ReadError::Unavailable(error.to_string()))
        })
    }
}

impl MessageReading for QueueReading {
    fn places(&self) -> Vec<ReadPlace> {
        let places = self.extents().iter().map(|extent| ReadPlace {
            name: extent.queue.clone(),
            is_cut: extent.is_cut,
            messages: extent.messages,
        });
        places.collect()
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Option<(String, ReadMessage)>, ReadError>> + Send + '_>> {
        Box::pin(async {
            let next = self.next().await.map_err(unreadable)?;
            Ok(next.map(|(queue, tailed)| (queue, tailed.into())))
        })
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(QueueReading::close(*self))
    }
}

impl From<RabbitMqTailed> for ReadMessage {
    fn from(tailed: RabbitMqTailed) -> Self {
        let fields = [
            ("exchange", json!(tailed.exchange)),
            ("routing_key", json!(tailed.routing_key)),
            (
                "timestamp",
                json!(tailed.timestamp_s.map(|seconds| seconds.saturating_mul(1000))),
            ),
            ("content_type", json!(tailed.content_type)),
        ];
        Self {
            place: format!("{} {}", tailed.exchange, tailed.routing_key),
            fields: fields
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect::<Map<_, _>>(),
            key: header(&tailed.headers, "partitionkey").map(String::into_bytes),
            content_type: tailed.content_type.unwrap_or_default(),
            headers: tailed.headers,
            attribute_prefix: ATTRIBUTE_PREFIX,
            payload: tailed.payload,
        }
    }
}
