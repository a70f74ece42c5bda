//! What messages are routed by: the exchange, and with `declare = true` the queues behind it.
//!
//! ```text
//! forebay (topic) ──00.#──▶ forebay.00 ─┐ rejected, or delivered too often
//!                 ──01.#──▶ forebay.01 ─┼──▶ forebay.dead-letters (topic) ──#──▶ forebay.dead-letters
//! ```
//!
//! All of it is durable, and nothing expires, is deleted by itself or belongs to a connection. Arguments cannot be
//! changed once a queue is there: a difference closes the channel, so every step here is on one that is thrown away.

use std::time::Duration;

use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use super::{
    connect,
    failure::{RabbitMqCause, RabbitMqFailure, failure, is_about_channels},
};
use crate::settings;
use forebay_broker::Remedy;

/// For one step. There are three for each partition, most of which find what they ask for.
pub(super) const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// A partition as the first word of a routing key.
pub(super) fn word(partition: u32) -> String {
    format!("{partition:02}")
}

/// The dead-letter exchange, and the queue behind it.
pub(super) fn dead_letters(exchange: &str) -> String {
    format!("{exchange}.dead-letters")
}

/// Connects once and does what a session does first: makes what is not there, or sees that the exchange is.
pub async fn prepare(config: &settings::RabbitMqConfig, sink: &str) -> Result<(), RabbitMqFailure> {
    let link = connect(config, sink, "forebay", 0).await?;
    ensure(&link, config).await?;
    link.close().await;
    Ok(())
}

/// Makes what is not there, when the configuration says `declare`; else sees that the exchange is there, of whose type
/// AMQP tells nothing.
pub(super) async fn ensure(connection: &Connection, config: &settings::RabbitMqConfig) -> Result<(), RabbitMqFailure> {
    let exchange = config.exchange.as_str();
    let channel = step(exchange, connection.create_channel()).await?;
    match config.declare {
        true => declare(&channel, exchange, config.partitions).await?,
        false => match exists(&channel, exchange).await {
            Ok(()) => {}
            // It has closed the channel.
            Err(failure) => return told_nothing(&failure).then_some(()).ok_or(failure),
        },
    }
    step(exchange, channel.close(200, "".into())).await
}

/// Whether a look at the exchange was refused and so says nothing of it: RabbitMQ 4.2.6 and 4.3.0 ask the right to
/// configure of whoever looks. What may be published, the publish finds out.
fn told_nothing(failure: &RabbitMqFailure) -> bool {
    failure.cause == RabbitMqCause::AccessRefused
}

async fn exists(channel: &Channel, exchange: &str) -> Result<(), RabbitMqFailure> {
    let options = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    let asked = channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, FieldTable::default());
    step(exchange, asked).await
}

async fn declare(channel: &Channel, exchange: &str, partitions: u32) -> Result<(), RabbitMqFailure> {
    let dead_letters = dead_letters(exchange);
    for name in [exchange, &dead_letters] {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let declared = channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default());
        step(exchange, declared).await?;
    }
    let bound = |queue: String, exchange: String, key: String, arguments: FieldTable| async move {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let name = queue.as_str();
        step(&exchange, channel.queue_declare(name.into(), options, arguments)).await?;
        let binding = channel.queue_bind(
            name.into(),
            exchange.as_str().into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        step(&exchange, binding).await
    };
    bound(
        dead_letters.clone(),
        dead_letters.clone(),
        "#".to_owned(),
        arguments(None),
    )
    .await?;
    for partition in 0..partitions {
        let word = word(partition);
        let (queue, key) = (format!("{exchange}.{word}"), format!("{word}.#"));
        bound(queue, exchange.to_owned(), key, arguments(Some(&dead_letters))).await?;
    }
    Ok(())
}

/// A queue's arguments: those of a partition, which has a dead-letter exchange, or of the dead letters.
fn arguments(dead_letters: Option<&str>) -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    if let Some(exchange) = dead_letters {
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        arguments.insert("x-dead-letter-exchange".into(), text(exchange));
    }
    arguments
}

async fn step<T>(exchange: &str, asked: impl Future<Output = lapin::Result<T>>) -> Result<T, RabbitMqFailure> {
    match tokio::time::timeout(STEP_DEADLINE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(refused(exchange, &error)),
        Err(_) => Err(failure(
            Remedy::Retry,
            RabbitMqCause::Closed,
            format!(
                "exchange '{exchange}': no answer about it or its queues within {} s",
                STEP_DEADLINE.as_secs()
            ),
        )),
    }
}

fn refused(exchange: &str, error: &lapin::Error) -> RabbitMqFailure {
    let ErrorKind::ProtocolError(error) = error.kind() else {
        let text = format!("the connection was lost while exchange '{exchange}' was looked at: {error}");
        return failure(Remedy::Retry, RabbitMqCause::Closed, text);
    };
    let told = error.get_message().as_str();
    match error.get_id() {
        530 if is_about_channels(told) => failure(
            Remedy::Hold,
            RabbitMqCause::Channels,
            format!("RabbitMQ gives no channel ({told}): raise the user's limit of channels"),
        ),
        404 if told.contains("no exchange") => failure(
            Remedy::Hold,
            RabbitMqCause::UnknownExchange,
            format!(
                "exchange '{exchange}' is not there ({told}): create it, durable and of type topic, or set declare = true on the sink"
            ),
        ),
        403 if told.contains("refused for user") || told.contains("access to") => failure(
            Remedy::Hold,
            RabbitMqCause::AccessRefused,
            format!(
                "not allowed to declare exchange '{exchange}' and its queues ({told}): grant configure, write and read on \
                 what begins with '{exchange}', or make them yourself and set declare = false"
            ),
        ),
        403..=406 => failure(Remedy::Hold, RabbitMqCause::Topology, mismatch(exchange, told)),
        _ => failure(
            Remedy::Retry,
            RabbitMqCause::Other,
            format!("exchange '{exchange}': {error}"),
        ),
    }
}

/// What is there and not as it must be: `… inequivalent arg 'x-queue-type' for queue 'forebay.00' in vhost '/':
/// received the value 'quorum' of type 'longstr' but current is none`.
fn mismatch(exchange: &str, told: &str) -> String {
    let quoted = |after: &str| told.split_once(after)?.1.split_once('\'').map(|(text, _)| text);
    let found = ["queue", "exchange"].into_iter().find_map(|kind| {
        let name = quoted(&format!(" for {kind} '"))?;
        Some((kind, name, quoted(" arg '")?))
    });
    let Some((kind, name, argument)) = found else {
        return format!("exchange '{exchange}' or one of its queues cannot be declared: {told}");
    };
    let (_, difference) = told.split_once("': ").unwrap_or(("", told));
    let cure = match kind {
        "queue" => "let its consumers empty it, delete it, and it is declared anew; or set declare = false",
        _ => "delete it, and it is declared anew; or set declare = false",
    };
    format!("{kind} '{name}' is there with another {argument} ({difference}), which cannot be changed: {cure}")
}

#[cfg(test)]
mod tests {
    use lapin::{protocol::AMQPError, types::ShortString};

    use super::*;

    #[test]
    fn a_look_that_is_not_allowed_says_nothing_of_the_exchange() {
        let failed = |id: u16, told: &str| {
            let error = AMQPError::from_id(id, ShortString::from(told)).expect("a code of AMQP");
            refused("forebay", &ErrorKind::ProtocolError(error).into())
        };
        let right = "ACCESS_REFUSED - configure access to exchange 'forebay' in vhost '/' refused for user 'f'";
        assert!(told_nothing(&failed(403, right)));
        assert!(!told_nothing(&failed(
            404,
            "NOT_FOUND - no exchange 'forebay' in vhost '/'"
        )));
        assert!(!told_nothing(&failed(
            406,
            "PRECONDITION_FAILED - inequivalent arg 'type'"
        )));
    }
}
