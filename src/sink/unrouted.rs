//! The sink of what no route wants.

use std::future;

use super::{
    EnqueueError, Message, MessageDestination, MessagePlace, PublishFailure, SettledMessage, Sink, SinkLabels,
};
use crate::settings::UNROUTED;

/// A sink that is handed nothing: what it would get becomes dead letters.
pub struct UnroutedSink;

impl Sink for UnroutedSink {
    async fn reopen(&mut self) -> Result<(), PublishFailure> {
        Ok(())
    }

    fn place(&self, _: &str, _: &str) -> MessagePlace {
        MessagePlace { lane: 0, stream: 0 }
    }

    fn destination(&self, _: &Message) -> MessageDestination {
        MessageDestination {
            name: UNROUTED.to_owned(),
            attributes: Vec::new(),
        }
    }

    fn enqueue(&mut self, message: Message) -> Result<(), EnqueueError> {
        Err(EnqueueError::Full(Box::new(message)))
    }

    async fn settle(&mut self, _: &mut Vec<SettledMessage>) -> Result<(), PublishFailure> {
        future::pending().await
    }

    fn trouble(&self) -> Option<PublishFailure> {
        None
    }

    fn labels(&self) -> SinkLabels {
        SinkLabels {
            failures: Vec::new(),
            dead_letters: vec![UNROUTED],
        }
    }
}
