//! The contract between a job and a broker.
//!
//! A [`Sink`] is one route's publishing session. Exactly one task drives it. It promises: the messages of a key are
//! handed to the broker in the order of [`Sink::enqueue`]; a message is settled with `Ok` only by the broker's own
//! confirmation; and after the first failure of a session nothing that was enqueued later is retried behind its back.
//! The order after a failure is the job's: it ends the session, opens a new one and replays what is not settled.

mod any;
mod certificates;
mod check;
pub mod kafka;
pub mod partition;
pub mod rabbitmq;

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::Arc,
};

use bytes::Bytes;
use uuid::Uuid;

pub use any::AnySink;
pub use certificates::CertificateWatch;
pub use check::{CheckFinding, FindingLevel};

use crate::event::TraceContext;

/// Bytes beside the body that a message takes at most: an envelope, attributes, headers.
const ENVELOPE_BYTES_MAX: u64 = 64 * 1024;

/// The largest message that a body of `body_bytes_max` can become. A body that is no JSON travels in base64.
pub fn message_bytes_max(body_bytes_max: u64) -> u64 {
    body_bytes_max.div_ceil(3) * 4 + ENVELOPE_BYTES_MAX
}

/// What a broker takes: an event rendered for a route.
#[derive(Debug, Clone)]
pub struct Message {
    /// The record's sequence number in the spool, by which it is settled.
    pub sequence: u64,
    pub replica: Arc<str>,
    pub id: Uuid,
    /// Kafka: the topic. RabbitMQ: the routing key behind the partition, its words escaped.
    pub destination: Arc<str>,
    /// The stream key. Never empty.
    pub key: String,
    pub content_type: std::borrow::Cow<'static, str>,
    /// CloudEvents attributes by bare name, in binary mode; none in structured mode.
    pub attributes: Vec<(&'static str, String)>,
    pub body: Bytes,
    /// The event's time, milliseconds since 1970.
    pub time_ms: i64,
    /// What a consumer's span is to be the child of.
    pub trace: Option<TraceContext>,
}

/// A publishing session with a broker, driven by one job.
pub trait Sink: Send + 'static {
    /// Ends the session, if there is one, forgetting all that it had in flight, and opens a new one.
    ///
    /// Must return within a deadline of its own.
    fn reopen(&mut self) -> impl Future<Output = Result<(), PublishFailure>> + Send;

    /// Where a message to `destination` under `key` goes, as far as the session knows.
    fn place(&self, destination: &str, key: &str) -> MessagePlace;

    /// Hands a message over without waiting. Messages go out in this order.
    fn enqueue(&mut self, message: Message) -> Result<(), EnqueueError>;

    /// Waits until something was settled and moves it into `settled`. Cancel-safe. `Err`: the session is over, and
    /// whatever is not settled is unknown: reopen and replay it.
    fn settle(&mut self, settled: &mut Vec<SettledMessage>) -> impl Future<Output = Result<(), PublishFailure>> + Send;

    /// What keeps the broker from confirming anything just now, if the session knows (a wrong password, no broker to
    /// reach). `None` when all is well.
    fn trouble(&self) -> Option<PublishFailure>;

    /// The labels that its failures carry.
    fn labels(&self) -> SinkLabels;
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagePlace {
    /// What comes to stand together: a partition. A session may learn better what it is.
    pub lane: u64,
    /// Messages of the same stream go out in the order in which they are handed over. The same in every session.
    pub stream: u64,
}

/// A number for a [`MessagePlace`]: the same for the same parts.
fn number_of(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// The closed sets of a sink's labels: what is counted by them stands at 0 before the first failure.
#[derive(Debug, Clone, Copy)]
pub struct SinkLabels {
    pub failures: &'static [&'static str],
    /// Those of the failures that are a message's own fault.
    pub dead_letters: &'static [&'static str],
}

/// Why a message was not taken.
#[derive(Debug)]
pub enum EnqueueError {
    /// The session's own queue is full. Offer the same message again after something was settled.
    Full(Box<Message>),
    /// The message or the session failed.
    Failed(PublishFailure),
}

/// What became of one message.
#[derive(Debug)]
pub struct SettledMessage {
    pub sequence: u64,
    pub result: Result<(), PublishFailure>,
}

/// A failure, seen three ways: what to do about it, a label for metrics, a text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct PublishFailure {
    pub remedy: Remedy,
    /// From a closed set: `kafka_unknown_topic`, `kafka_authentication`, …
    pub label: &'static str,
    /// Names the thing, the cause and the cure.
    pub text: String,
}

/// What a job does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It passes by itself: open a new session after a back-off and replay.
    Retry,
    /// Somebody must act (no such topic, not authorised): the route is blocked and says so; it goes on trying.
    Hold,
    /// It is this message's own fault (too large): replay one by one until the culprit is found, and dead-letter it
    /// alone.
    DeadLetter,
    /// It is this message's own fault, and the broker said so of this one alone: it becomes a dead letter, its
    /// neighbours pass, and the session goes on unless [`Sink::settle`] says that it is over.
    SetAside,
}
