//! Reads what queues hold, and leaves it there.
//!
//! AMQP cannot look into a queue: a message is delivered, and goes back when it was not acknowledged. So a queue is
//! consumed without acknowledgements up to the messages that it holds at the start, and the connection is closed: the
//! messages are put back where they were, marked as redelivered. That is safe only where nobody is at work and nothing
//! counts, which the management API tells, and refused elsewhere:
//!
//! - a queue with a consumer, or with messages that somebody has not acknowledged: they would be shared with him, or
//!   come back to him out of order;
//! - a queue that is deleted with its last consumer;
//! - a quorum queue with a delivery limit (since RabbitMQ 4.0 each has one of 20, unless it is set to -1), where each
//!   reading is one delivery of each message, and the last one would dead-letter it; with `spend_delivery` it is read
//!   all the same;
//! - more messages than a consumer may hold without an acknowledgement.
//!
//! A stream is read by its offsets, and none of this applies.

use std::{collections::VecDeque, time::Duration};

use futures_util::StreamExt as _;
use lapin::{
    Channel, Consumer,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    BrokerLink, connect,
    management::{ManagementApi, UnknownQueues},
    tail::{RabbitMqTailed, tailed},
    topology::word,
};
use crate::settings;

/// What a consumer may hold: `prefetch-count` has 16 bits.
const UNACKNOWLEDGED_MAX: u64 = u16::MAX as u64;
const STREAM_PREFETCH: u16 = 500;
/// A queue that should have more and delivers nothing for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// A stream tells its end by delivering no more from its last chunk.
const STREAM_SILENCE: Duration = Duration::from_secs(2);
const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// What to read.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// Nodes and credentials, as a sink has them.
    pub rabbitmq: settings::RabbitMqConfig,
    /// None: those that are bound to the exchange for one of its partitions, or for all.
    pub queues: Vec<String>,
    /// Also where each reading is one of a limited number of deliveries.
    pub spend_delivery: bool,
}

/// What is in one queue, as the reading found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueExtent {
    pub queue: String,
    pub messages: u64,
    /// There may have been older messages: what is consumed leaves a queue, and what is old a stream.
    pub is_cut: bool,
}

/// Why queues are not read. Names the queue, the cause and the cure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct QueueReadError(String);

/// Reads queues to their end, one after the other. Dropping it puts everything back.
pub struct QueueReading {
    link: BrokerLink,
    extents: Vec<QueueExtent>,
    waiting: VecDeque<ReadQueue>,
    current: Option<OpenReading>,
}

struct ReadQueue {
    name: String,
    messages: u64,
    is_stream: bool,
}

struct OpenReading {
    queue: ReadQueue,
    consumer: Consumer,
    left: u64,
    _channel: Channel,
}

impl QueueReading {
    /// Connects, and sees that every queue is there and can be read without harm.
    pub async fn open(options: &QueueOptions) -> Result<Self, QueueReadError> {
        let link = connect(&options.rabbitmq, "read", "forebay verify", 0)
            .await
            .map_err(|failure| QueueReadError(failure.text))?;
        let unknown = |cause: String| {
            QueueReadError(format!(
                "whether the queues can be read without harm is not known: {cause} (--management says where the API is)"
            ))
        };
        let management = ManagementApi::from_config(&options.rabbitmq).map_err(unknown)?;
        let ask = async |path: &[&str]| management.ask(path).await;
        let overview = ask(&["api", "overview"])
            .await
            .map_err(|error| unknown(error.to_string()))?;
        let limits_by_default = is_4_or_later(&overview);
        let names = match options.queues.as_slice() {
            [] => bound(&management, &options.rabbitmq).await?,
            names => names.to_vec(),
        };
        let mut waiting = VecDeque::new();
        let mut extents = Vec::new();
        for name in names {
            let state = match management.of_vhost("queues", &[&name]).await {
                Ok(state) => state,
                Err(UnknownQueues::NotThere) => return Err(QueueReadError(format!("there is no queue {name}"))),
                Err(error) => return Err(unknown(error.to_string())),
            };
            let queue = queue(&link, name, &state, limits_by_default, options.spend_delivery).await?;
            extents.push(QueueExtent {
                queue: queue.name.clone(),
                messages: queue.messages,
                is_cut: true,
            });
            waiting.push_back(queue);
        }
        Ok(Self {
            link,
            extents,
            waiting,
            current: None,
        })
    }

    /// What there is to read. Of a stream the number is known when it was read.
    pub fn extents(&self) -> &[QueueExtent] {
        &self.extents
    }

    /// The next message, with its queue; `None` when all are read to their end.
    pub async fn next(&mut self) -> Result<Option<(String, RabbitMqTailed)>, QueueReadError> {
        loop {
            let open = match &mut self.current {
                Some(open) => open,
                None => {
                    let Some(queue) = self.waiting.pop_front() else {
                        return Ok(None);
                    };
                    let open = open(&self.link, queue).await?;
                    self.current.insert(open)
                }
            };
            if open.left == 0 {
                self.current = None;
                continue;
            }
            let name = &open.queue.name;
            let delivery = match timeout(SILENCE_MAX, open.consumer.next()).await {
                Ok(Some(Ok(delivery))) => delivery,
                Ok(Some(Err(error))) => return Err(QueueReadError(format!("queue {name}: {error}"))),
                Ok(None) => return Err(QueueReadError(format!("queue {name}: RabbitMQ ended the reading"))),
                Err(_) => {
                    let (left, seconds) = (open.left, SILENCE_MAX.as_secs());
                    return Err(QueueReadError(format!(
                        "queue {name}: {left} of its {} messages did not come within {seconds} s: somebody else has them",
                        open.queue.messages
                    )));
                }
            };
            if open.queue.is_stream {
                // Takes nothing from a stream: it asks for more.
                let asked = delivery.ack(BasicAckOptions::default()).await;
                asked.map_err(|error| QueueReadError(format!("queue {name}: {error}")))?;
                open.left = open.queue.messages.saturating_sub(offset(&delivery).unwrap_or(0) + 1);
            } else {
                open.left -= 1;
            }
            return Ok(Some((open.queue.name.clone(), tailed(delivery))));
        }
    }

    /// Puts everything back and closes the connection.
    pub async fn close(mut self) {
        self.current = None;
        self.link.close().await;
    }
}

fn is_4_or_later(overview: &Value) -> bool {
    let version = overview["management_version"].as_str().unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    // What is not known is taken for the stricter.
    major.is_none_or(|major| major >= 4)
}

/// The queues that the exchange's events of one partition, or all, go to.
async fn bound(management: &ManagementApi, config: &settings::RabbitMqConfig) -> Result<Vec<String>, QueueReadError> {
    let exchange = config.exchange.as_str();
    let bindings = management
        .of_vhost("exchanges", &[exchange, "bindings", "source"])
        .await
        .map_err(|error| QueueReadError(format!("the bindings of exchange {exchange} cannot be read: {error}")))?;
    let with = |key: &str| -> Vec<String> {
        let bindings = bindings.as_array().into_iter().flatten();
        let found = bindings.filter(|one| one["routing_key"] == key && one["destination_type"] == "queue");
        found
            .filter_map(|one| one["destination"].as_str().map(str::to_owned))
            .collect()
    };
    let mut queues = Vec::new();
    for partition in 0..config.partitions {
        // Any of several has all of the partition.
        match with(&format!("{}.#", word(partition))).into_iter().min() {
            Some(queue) if !queues.contains(&queue) => queues.push(queue),
            Some(_) => {}
            None => {
                return with("#").into_iter().min().map(|queue| vec![queue]).ok_or_else(|| {
                    QueueReadError(format!(
                        "no queue is bound to exchange {exchange} for partition {}: name the queues (--amqp URI --queue NAME…)",
                        word(partition)
                    ))
                });
            }
        }
    }
    Ok(queues)
}

/// Whether a queue can be read, and how much it holds.
async fn queue(
    link: &BrokerLink,
    name: String,
    state: &Value,
    limits_by_default: bool,
    spend_delivery: bool,
) -> Result<ReadQueue, QueueReadError> {
    let is_stream = state["type"] == "stream";
    let harm = if is_stream {
        None
    } else {
        harm(state, limits_by_default, spend_delivery)
    };
    if let Some(harm) = harm {
        return Err(QueueReadError(format!("queue {name} is not read: {harm}")));
    }
    let lost = |error: lapin::Error| QueueReadError(format!("queue {name} cannot be read: {error}"));
    if is_stream {
        let messages = stream_end(link, &name).await.map_err(lost)?;
        return Ok(ReadQueue {
            name,
            messages,
            is_stream,
        });
    }
    let channel = link.create_channel().await.map_err(lost)?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let asked = channel.queue_declare(name.as_str().into(), passive, FieldTable::default());
    let declared = timeout(STEP_DEADLINE, asked)
        .await
        .map_err(|_| QueueReadError(format!("queue {name}: no answer")))?
        .map_err(lost)?;
    let (messages, consumers) = (u64::from(declared.message_count()), declared.consumer_count());
    if consumers > 0 {
        return Err(QueueReadError(format!("queue {name} is not read: {}", CONSUMERS)));
    }
    if messages > UNACKNOWLEDGED_MAX {
        return Err(QueueReadError(format!(
            "queue {name} is not read: it holds {messages} messages, and more than {UNACKNOWLEDGED_MAX} cannot be read without \
             taking some away"
        )));
    }
    Ok(ReadQueue {
        name,
        messages,
        is_stream,
    })
}

const CONSUMERS: &str = "it has consumers, who would miss what is being read; stop them first";

/// What reading a queue would do to it.
fn harm(state: &Value, limits_by_default: bool, spend_delivery: bool) -> Option<String> {
    let set = |argument: &str| -> Option<&Value> {
        let arguments = &state["arguments"][format!("x-{argument}")];
        let policy = &state["effective_policy_definition"][argument];
        [arguments, policy].into_iter().find(|value| !value.is_null())
    };
    if state["consumers"].as_u64().unwrap_or(0) > 0 {
        return Some(CONSUMERS.to_owned());
    }
    if state["messages_unacknowledged"].as_u64().unwrap_or(0) > 0 {
        return Some("somebody has messages of it that are not acknowledged".to_owned());
    }
    if state["auto_delete"] == true {
        return Some("it is deleted when its last consumer goes, which the reading would be".to_owned());
    }
    let limit = match set("delivery-limit").and_then(Value::as_i64) {
        Some(limit) => (limit >= 0).then_some(limit),
        None => limits_by_default.then_some(20),
    };
    let limit = limit.filter(|_| state["type"] == "quorum" && !spend_delivery)?;
    Some(format!(
        "its messages may be delivered {limit} times and are dead-lettered then, and reading them is one delivery of each; \
         --spend-delivery reads it all the same"
    ))
}

async fn consume(channel: &Channel, queue: &str, prefetch: u16, from: Option<&str>) -> lapin::Result<Consumer> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let mut arguments = FieldTable::default();
    if let Some(from) = from {
        arguments.insert("x-stream-offset".into(), AMQPValue::LongString(from.into()));
    }
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.into(), "".into(), options, arguments).await
}

/// Behind the last offset of a stream, by reading its last chunk.
async fn stream_end(link: &BrokerLink, queue: &str) -> lapin::Result<u64> {
    let channel = link.create_channel().await?;
    let mut consumer = consume(&channel, queue, STREAM_PREFETCH, Some("last")).await?;
    let mut end = 0;
    while let Ok(Some(delivery)) = timeout(STREAM_SILENCE, consumer.next()).await {
        let delivery = delivery?;
        delivery.ack(BasicAckOptions::default()).await?;
        end = offset(&delivery).map_or(end, |offset| offset + 1);
    }
    channel.close(200, "OK".into()).await?;
    Ok(end)
}

async fn open(link: &BrokerLink, queue: ReadQueue) -> Result<OpenReading, QueueReadError> {
    let lost = |error: lapin::Error| QueueReadError(format!("queue {} cannot be read: {error}", queue.name));
    let channel = link.create_channel().await.map_err(lost)?;
    let (prefetch, from) = match queue.is_stream {
        true => (STREAM_PREFETCH, Some("first")),
        false => (u16::MAX, None),
    };
    let consumer = consume(&channel, &queue.name, prefetch, from).await.map_err(lost)?;
    Ok(OpenReading {
        left: queue.messages,
        queue,
        consumer,
        _channel: channel,
    })
}

/// A message's place in a stream.
fn offset(delivery: &lapin::message::Delivery) -> Option<u64> {
    match delivery.properties.headers().as_ref()?.inner().get("x-stream-offset")? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        AMQPValue::Timestamp(offset) => Some(*offset),
        _ => None,
    }
}
