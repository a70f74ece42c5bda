//! Requests as a sender makes them, for trying out and for tests.

use forebay_event::Time;
use uuid::Uuid;

/// A kind and event that a sender documents, as it writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleKind {
    pub kind: &'static str,
    pub event: &'static str,
}

impl SampleKind {
    pub const fn new(kind: &'static str, event: &'static str) -> Self {
        Self { kind, event }
    }
}

/// What a sample is about. The same parameters make the same sample.
#[derive(Debug, Clone, Copy)]
pub struct SampleParameters<'a> {
    pub account: &'a str,
    pub stream_name: &'a str,
    pub feed_id: Uuid,
    /// When it is sent.
    pub sent: Time,
    /// Tells samples apart that are else the same: it becomes part of ids that are the sample's own.
    pub counter: u64,
}

/// A request's content type, headers and body. The signature is the caller's to add, with [`super::Sender::sign`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub kind: &'static str,
    pub event: &'static str,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// The samples of a kind among `all`, and where `event` is given, of this event, whatever the case.
pub fn find(all: &[SampleKind], kind: &str, event: Option<&str>) -> Vec<SampleKind> {
    let same_event = |sample: &SampleKind| event.is_none_or(|event| sample.event.eq_ignore_ascii_case(event));
    all.iter()
        .filter(|sample| sample.kind.eq_ignore_ascii_case(kind) && same_event(sample))
        .copied()
        .collect()
}
