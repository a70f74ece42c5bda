//! What a test reads from queues.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream::select_all};
use lapin::{
    Connection, ConnectionProperties,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::{Instant, sleep, timeout_at};

/// How long nothing may arrive.
const SILENCE_MAX: Duration = Duration::from_secs(20);
const PREFETCH: u16 = 500;

/// A message as a consumer gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub queue: String,
    /// Among those of its queue, in this reading.
    pub position: usize,
    pub routing_key: String,
    pub redelivered: bool,
    pub message_id: Option<String>,
    pub content_type: Option<String>,
    pub timestamp_seconds: Option<u64>,
    pub delivery_mode: Option<u8>,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Read {
    /// The sequence number that its header says.
    pub fn sequence(&self) -> u64 {
        self.headers["sequence"].parse().unwrap()
    }

    /// The stream key.
    pub fn key(&self) -> &str {
        &self.headers["partitionkey"]
    }
}

/// Consumes all that the queues hold now.
pub async fn read_all(uri: &str, queues: &[String]) -> Vec<Read> {
    let connection = connect(uri).await;
    let mut count = 0;
    for queue in queues {
        let channel = connection.create_channel().await.unwrap();
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(queue.as_str().into(), passive, FieldTable::default());
        count += usize::try_from(declared.await.unwrap().message_count()).unwrap();
    }
    let records = consume(&connection, queues, count, FieldTable::default()).await;
    assert_eq!(records.len(), count, "all of {queues:?} is read");
    records
}

/// Consumes the queues until there are `count` messages, or nothing comes any more: then what there was.
pub async fn read(uri: &str, queues: &[String], count: usize) -> Vec<Read> {
    consume(&connect(uri).await, queues, count, FieldTable::default()).await
}

/// Reads stream queues from the beginning, as [`read`] does; the messages stay there.
pub async fn read_streams(uri: &str, queues: &[String], count: usize) -> Vec<Read> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    consume(&connect(uri).await, queues, count, arguments).await
}

/// Consumes a queue one by one, with a pause before each is acknowledged, until `done` with what there is.
pub async fn read_slowly(uri: &str, queue: &str, pause: Duration, done: impl Fn(&[Read]) -> bool) -> Vec<Read> {
    let connection = connect(uri).await;
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    let mut deliveries = consumer.await.unwrap();
    let mut records = Vec::new();
    while !done(&records)
        && let Ok(Some(delivery)) = timeout_at(Instant::now() + SILENCE_MAX, deliveries.next()).await
    {
        let delivery = delivery.unwrap();
        sleep(pause).await;
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        records.push(record(queue, records.len(), delivery));
    }
    records
}

async fn connect(uri: &str) -> Connection {
    Connection::connect(uri, ConnectionProperties::default())
        .await
        .expect("a broker that can be connected to")
}

async fn consume(connection: &Connection, queues: &[String], count: usize, arguments: FieldTable) -> Vec<Read> {
    let mut consumers = Vec::new();
    for queue in queues {
        let channel = connection.create_channel().await.unwrap();
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.unwrap();
        let consumer = channel
            .basic_consume(
                queue.as_str().into(),
                "".into(),
                BasicConsumeOptions::default(),
                arguments.clone(),
            )
            .await
            .unwrap();
        consumers.push(
            consumer
                .enumerate()
                .map(move |(position, delivery)| (queue, position, delivery)),
        );
    }
    let mut deliveries = select_all(consumers);
    let mut records = Vec::with_capacity(count);
    while records.len() < count
        && let Ok(Some((queue, position, delivery))) = timeout_at(Instant::now() + SILENCE_MAX, deliveries.next()).await
    {
        let delivery = delivery.unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        records.push(record(queue, position, delivery));
    }
    records
}

fn record(queue: &str, position: usize, delivery: Delivery) -> Read {
    let properties = &delivery.properties;
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
    let headers = properties.headers().iter().flat_map(|table| table.inner().iter());
    Read {
        queue: queue.into(),
        position,
        routing_key: delivery.routing_key.to_string(),
        redelivered: delivery.redelivered,
        message_id: text(properties.message_id()),
        content_type: text(properties.content_type()),
        timestamp_seconds: *properties.timestamp(),
        delivery_mode: *properties.delivery_mode(),
        headers: headers.map(|(name, value)| (name.to_string(), plain(value))).collect(),
        body: delivery.data.to_vec(),
    }
}

/// A header's value as text.
fn plain(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Boolean(value) => value.to_string(),
        other => format!("{other:?}"),
    }
}
