//! Reading what was published, for people and for checks: as a bystander, which changes nothing.

use std::{pin::Pin, time::Duration};

use serde_json::{Map, Value};

/// A message as it stands at its broker.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadMessage {
    /// Where it was found, for people.
    pub place: String,
    /// The same for programs, as members of an object.
    pub fields: Map<String, Value>,
    pub key: Option<Vec<u8>>,
    pub content_type: String,
    pub headers: Vec<(String, Vec<u8>)>,
    /// What the names of a CloudEvent's attributes begin with among the headers, in binary mode.
    pub attribute_prefix: &'static str,
    pub payload: Vec<u8>,
}

/// A header that is a text.
pub fn header(headers: &[(String, Vec<u8>)], name: &str) -> Option<String> {
    let found = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
}

/// Why something cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// What was asked for does not go with this broker.
    #[error("{0}")]
    Usage(String),
    /// The broker cannot be reached, or what is to be read is not there.
    #[error("{0}")]
    Unavailable(String),
}

/// How to follow what is published.
#[derive(Debug, Clone, Copy)]
pub struct TailOptions {
    /// From the oldest message that is there; else from the first that comes after the opening.
    pub from_start: bool,
    /// How long the opening may take.
    pub deadline: Duration,
}

/// How to read what was published.
#[derive(Debug, Clone, Copy)]
pub struct ReadOptions {
    /// From the first message that the broker took in at this time or later, in milliseconds since the Unix epoch.
    pub from_ms: Option<i64>,
    /// Messages may be read that can be delivered only so often, which costs a delivery of each.
    pub spend_delivery: bool,
    /// How long the opening may take.
    pub deadline: Duration,
}

/// What is to be read, and not opened yet.
pub struct EventSource<T: ?Sized> {
    /// What it is, for people.
    pub what: String,
    open: Opening<T>,
}

type Opening<T> = Pin<Box<dyn Future<Output = Result<Box<T>, ReadError>> + Send>>;

impl<T: ?Sized> EventSource<T> {
    pub fn new(
        what: impl Into<String>,
        open: impl Future<Output = Result<Box<T>, ReadError>> + Send + 'static,
    ) -> Self {
        Self {
            what: what.into(),
            open: Box::pin(open),
        }
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// Those of [`ReadError`].
    pub async fn open(self) -> Result<Box<T>, ReadError> {
        self.open.await
    }
}

/// Follows what is published. Dropping it ends the reading. Messages that arrive after it was opened are not missed.
pub trait MessageTail: Send {
    /// The next message; waits for it as long as it takes. Cancel-safe. After an `Err` the tail is over.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<ReadMessage, ReadError>> + Send + '_>>;
}

/// A part of what is read: a partition, or a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPlace {
    pub name: String,
    /// There were older messages.
    pub is_cut: bool,
    /// How many are read.
    pub messages: u64,
}

/// Reads what was published to its end.
pub trait MessageReading: Send {
    /// What there is to read.
    fn places(&self) -> Vec<ReadPlace>;

    /// The next message, and the name of its place; `None` at the end.
    #[allow(
        clippy::type_complexity,
        reason = "an async function of a trait that is used as an object"
    )]
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Option<(String, ReadMessage)>, ReadError>> + Send + '_>>;

    /// Leaves everything as it was.
    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}
