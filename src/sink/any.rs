//! One type for a route's sink, whichever broker it talks to, if it does.

use crate::settings::UNROUTED;

use super::{
    EnqueueError, Message, MessagePlace, PublishFailure, SettledMessage, Sink, SinkLabels, kafka::KafkaSink,
    rabbitmq::RabbitMqSink,
};

/// A sink of either broker, or none.
pub enum AnySink {
    /// Of the route of what no other wants: it is handed nothing.
    Unrouted,
    Kafka(Box<KafkaSink>),
    RabbitMq(Box<RabbitMqSink>),
}

impl Sink for AnySink {
    async fn reopen(&mut self) -> Result<(), PublishFailure> {
        match self {
            Self::Unrouted => Ok(()),
            Self::Kafka(sink) => sink.reopen().await,
            Self::RabbitMq(sink) => sink.reopen().await,
        }
    }

    fn place(&self, destination: &str, key: &str) -> MessagePlace {
        match self {
            Self::Unrouted => MessagePlace { lane: 0, stream: 0 },
            Self::Kafka(sink) => sink.place(destination, key),
            Self::RabbitMq(sink) => sink.place(destination, key),
        }
    }

    fn enqueue(&mut self, message: Message) -> Result<(), EnqueueError> {
        match self {
            Self::Unrouted => Err(EnqueueError::Full(Box::new(message))),
            Self::Kafka(sink) => sink.enqueue(message),
            Self::RabbitMq(sink) => sink.enqueue(message),
        }
    }

    async fn settle(&mut self, settled: &mut Vec<SettledMessage>) -> Result<(), PublishFailure> {
        match self {
            Self::Unrouted => std::future::pending().await,
            Self::Kafka(sink) => sink.settle(settled).await,
            Self::RabbitMq(sink) => sink.settle(settled).await,
        }
    }

    fn trouble(&self) -> Option<PublishFailure> {
        match self {
            Self::Unrouted => None,
            Self::Kafka(sink) => sink.trouble(),
            Self::RabbitMq(sink) => sink.trouble(),
        }
    }

    fn labels(&self) -> SinkLabels {
        match self {
            Self::Unrouted => SinkLabels {
                failures: &[],
                dead_letters: &[UNROUTED],
            },
            Self::Kafka(sink) => sink.labels(),
            Self::RabbitMq(sink) => sink.labels(),
        }
    }
}
