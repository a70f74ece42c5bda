//! What a broker is handed, and where that goes.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::Arc,
};

use bytes::Bytes;
use forebay_event::{TraceContext, render::Republication};
use uuid::Uuid;

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
    /// What [`crate::Broker::address_of`] said of the event.
    pub address: Arc<str>,
    /// The stream key. Never empty.
    pub key: String,
    pub content_type: Cow<'static, str>,
    /// CloudEvents attributes by bare name, in binary mode, all but `datacontenttype`; none in structured mode.
    pub attributes: Vec<(&'static str, String)>,
    pub body: Bytes,
    /// The event's time, milliseconds since 1970.
    pub time_ms: i64,
    /// What a consumer's span is to be the child of.
    pub trace: Option<TraceContext>,
    /// It was published before, or was to be.
    pub again: Option<PublishedAgain>,
}

/// What is special of a message whose event was published before, or was to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedAgain {
    pub why: Republication,
    /// The event's number in its replica, which its headers say: the message's may be that of another log.
    pub sequence: u64,
}

/// The header that has a message's number.
pub const SEQUENCE: &str = "sequence";

impl Message {
    /// The headers that it has at every broker: its number in 20 digits, the replica, why it comes again, the trace,
    /// and in binary mode its attributes, whose names begin with `prefix`. The type of the content goes where the
    /// broker has a place for it.
    pub fn for_each_header(&self, prefix: &str, mut header: impl FnMut(&str, &str)) {
        let sequence = self.again.map_or(self.sequence, |again| again.sequence);
        header(SEQUENCE, &format!("{sequence:020}"));
        if let Some(again) = self.again {
            header(again.why.attribute(), "true");
        }
        header("replica", &self.replica);
        if let Some(trace) = self.trace {
            header("traceparent", &trace.to_string());
        }
        let mut prefixed = prefix.to_owned();
        for (name, value) in &self.attributes {
            prefixed.truncate(prefix.len());
            prefixed.push_str(name);
            header(&prefixed, value);
        }
    }
}

/// Where a message goes, as far as its order is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagePlace {
    /// What comes to stand together: a partition. A session may learn better what it is.
    pub lane: u64,
    /// Messages of the same stream go out in the order in which they are handed over. The same in every session.
    pub stream: u64,
}

/// Where a message goes, as a span names it: OpenTelemetry's semantic conventions for messaging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageDestination {
    /// The topic, or exchange.
    pub name: String,
    pub attributes: Vec<(&'static str, String)>,
}

/// A number for a [`MessagePlace`]: the same for the same parts.
pub fn number_of(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}
