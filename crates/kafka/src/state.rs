//! How it stands with a sink's session.

use std::mem;

use forebay_broker::Remedy;

use crate::{
    failure::{KafkaCause, KafkaFailure, failure},
    session::ProducerSession,
};

/// The state of a sink's session.
pub(super) enum SessionState {
    /// None was opened yet.
    New,
    /// The last attempt to open one failed.
    Refused(KafkaFailure),
    Open(SessionProducers),
    /// It has failed, and takes nothing more. Its producers go before the next is opened.
    Over(SessionProducers, KafkaFailure),
}

/// The producers of a session.
pub(super) struct SessionProducers {
    pub main: ProducerSession,
    /// What may be too large goes by a producer of its own, once something was.
    pub aside: Option<ProducerSession>,
}

impl SessionProducers {
    pub fn iter(&self) -> impl Iterator<Item = &ProducerSession> {
        [&self.main].into_iter().chain(&self.aside)
    }

    pub fn into_each(self) -> impl Iterator<Item = ProducerSession> {
        [self.main].into_iter().chain(self.aside)
    }
}

impl SessionState {
    /// Those of a session that is open, or over.
    pub fn producers(&self) -> Option<&SessionProducers> {
        match self {
            Self::New | Self::Refused(_) => None,
            Self::Open(producers) | Self::Over(producers, _) => Some(producers),
        }
    }

    /// Those of a session that is open.
    ///
    /// # Errors
    ///
    /// The failure that ended it, or that there is none.
    pub fn open(&self) -> Result<&SessionProducers, KafkaFailure> {
        match self {
            Self::Open(producers) => Ok(producers),
            Self::Over(_, over) => Err(over.clone()),
            Self::New | Self::Refused(_) => {
                let text = "no session with Kafka yet";
                Err(failure(Remedy::Retry, KafkaCause::Other, text))
            }
        }
    }

    /// The session is over. The failure that ended it first counts.
    pub fn end(&mut self, failure: KafkaFailure) {
        *self = match mem::replace(self, Self::New) {
            Self::Open(producers) => Self::Over(producers, failure),
            other => other,
        };
    }

    /// Leaves none, and gives out the producers of the one that there was.
    pub fn take(&mut self) -> Option<SessionProducers> {
        match mem::replace(self, Self::New) {
            Self::New | Self::Refused(_) => None,
            Self::Open(producers) | Self::Over(producers, _) => Some(producers),
        }
    }
}
