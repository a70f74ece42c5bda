//! Follows an exchange as a bystander: through a temporary queue of its own, bound for as long as the tail is there.
//!
//! What a queue holds is its consumers': reading it takes it away, or puts it back out of order. So the queues that are
//! there are not touched, and only what arrives from now on is seen. While the temporary queue is bound, an event that
//! no other queue takes counts as delivered.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    BrokerLink, connect,
    management::{ManagementApi, UnknownQueues},
};
use crate::settings;

/// What waits for a slow reader; then the oldest is dropped, rather than fill the broker.
const WAITING_MESSAGES_MAX: u32 = 10_000;

/// What to follow.
#[derive(Debug, Clone)]
pub struct RabbitMqTailOptions {
    /// Nodes and credentials, as a sink has them.
    pub rabbitmq: settings::RabbitMqConfig,
    pub source: RabbitMqSource,
    /// How long the opening may take, the connection not counted.
    pub deadline: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RabbitMqSource {
    /// What this queue gets: its bindings are copied, which the management API tells.
    Queue(String),
    /// What this exchange gets and one of these bindings takes.
    Exchange { name: String, bindings: Vec<String> },
}

impl RabbitMqSource {
    /// What an exchange gets; without a binding all of it.
    pub fn exchange(name: &str, bindings: Vec<String>) -> Self {
        Self::Exchange {
            name: name.to_owned(),
            bindings: match bindings.is_empty() {
                true => vec!["#".to_owned()],
                false => bindings,
            },
        }
    }
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RabbitMqTailed {
    pub exchange: String,
    pub routing_key: String,
    pub content_type: Option<String>,
    /// Seconds since the Unix epoch.
    pub timestamp_s: Option<u64>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub payload: Vec<u8>,
}

/// Why an exchange cannot be followed. Names it, the cause and the cure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RabbitMqTailError(String);

/// Follows an exchange. Dropping it ends the reading, and the temporary queue is gone.
pub struct RabbitMqTail {
    consumer: Consumer,
    _channel: Channel,
    _link: BrokerLink,
}

impl RabbitMqTail {
    /// Connects and binds the temporary queue. Messages that arrive after it returned are not missed.
    pub async fn open(options: RabbitMqTailOptions) -> Result<Self, RabbitMqTailError> {
        let link = connect(&options.rabbitmq, "tail", "forebay tail", 0)
            .await
            .map_err(|failure| RabbitMqTailError(failure.text))?;
        let bindings = match &options.source {
            RabbitMqSource::Queue(queue) => bindings_of(&options.rabbitmq, queue).await?,
            RabbitMqSource::Exchange { name, bindings } => {
                bindings.iter().map(|binding| (name.clone(), binding.clone())).collect()
            }
        };
        match timeout(options.deadline, follow(&link, &bindings)).await {
            Ok(Ok((channel, consumer))) => Ok(Self {
                consumer,
                _channel: channel,
                _link: link,
            }),
            Ok(Err(error)) => {
                let exchanges: Vec<&str> = bindings.iter().map(|(exchange, _)| exchange.as_str()).collect();
                Err(RabbitMqTailError(format!(
                    "exchange {} cannot be followed: {error}",
                    exchanges.join(", ")
                )))
            }
            Err(_) => Err(RabbitMqTailError(format!("{} does not answer", link.node))),
        }
    }

    /// The next message; waits for it as long as it takes. Cancel-safe. After an `Err` the tail is over.
    pub async fn next(&mut self) -> Result<RabbitMqTailed, RabbitMqTailError> {
        match self.consumer.next().await {
            Some(Ok(delivery)) => Ok(tailed(delivery)),
            Some(Err(error)) => Err(RabbitMqTailError(format!("the connection was lost: {error}"))),
            None => Err(RabbitMqTailError("RabbitMQ ended the tail".to_owned())),
        }
    }
}

/// The exchange and the key of each binding of a queue.
async fn bindings_of(
    config: &settings::RabbitMqConfig,
    queue: &str,
) -> Result<Vec<(String, String)>, RabbitMqTailError> {
    let unknown = |cause: String| {
        RabbitMqTailError(format!(
            "what queue {queue} is bound to cannot be read: {cause}; name it: --exchange NAME [--binding KEY]"
        ))
    };
    let management = ManagementApi::from_config(config).map_err(unknown)?;
    let bindings = match management.of_vhost("queues", &[queue, "bindings"]).await {
        Ok(bindings) => bindings,
        Err(UnknownQueues::NotThere) => return Err(RabbitMqTailError(format!("there is no queue {queue}"))),
        Err(UnknownQueues::NoAnswer(cause)) => return Err(unknown(cause)),
    };
    let text = |binding: &Value, key: &str| binding[key].as_str().map(str::to_owned);
    let bindings: Vec<(String, String)> = bindings
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|binding| Some((text(binding, "source")?, text(binding, "routing_key")?)))
        // Every queue is bound to the default exchange.
        .filter(|(exchange, _)| !exchange.is_empty())
        .collect();
    match bindings.as_slice() {
        [] => Err(RabbitMqTailError(format!(
            "queue {queue} is not there, or bound to no exchange"
        ))),
        _ => Ok(bindings),
    }
}

async fn follow(link: &BrokerLink, bindings: &[(String, String)]) -> lapin::Result<(Channel, Consumer)> {
    let channel = link.create_channel().await?;
    let temporary = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongUInt(WAITING_MESSAGES_MAX));
    let queue = channel.queue_declare("".into(), temporary, arguments).await?;
    for (exchange, key) in bindings {
        let (exchange, key) = (exchange.as_str().into(), key.as_str().into());
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        channel
            .queue_bind(queue.name().clone(), exchange, key, options, none)
            .await?;
    }
    let unacknowledged = BasicConsumeOptions {
        no_ack: true,
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    let consumer = channel
        .basic_consume(queue.name().clone(), "".into(), unacknowledged, FieldTable::default())
        .await?;
    Ok((channel, consumer))
}

pub(super) fn tailed(delivery: Delivery) -> RabbitMqTailed {
    let properties = &delivery.properties;
    let headers = properties.headers().iter().flat_map(|headers| headers.inner());
    RabbitMqTailed {
        exchange: delivery.exchange.to_string(),
        routing_key: delivery.routing_key.to_string(),
        content_type: properties.content_type().as_ref().map(ToString::to_string),
        timestamp_s: *properties.timestamp(),
        headers: headers.map(|(name, value)| (name.to_string(), bytes(value))).collect(),
        payload: delivery.data,
    }
}

/// A header's value: a text as it is, another as a text for people.
fn bytes(value: &AMQPValue) -> Vec<u8> {
    match value {
        AMQPValue::LongString(text) => text.as_bytes().to_vec(),
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::Boolean(value) => value.to_string().into(),
        other => serde_json::to_vec(other).unwrap_or_default(),
    }
}
