//! The senders of webhooks: verify the raw bytes, then make an [`Event`] of them.
//!
//! A request goes one way: [`Unverified`] becomes [`Verified`] becomes [`Event`]. What is authentic is never refused
//! for its content.

mod json;
pub mod millicast;

use bytes::Bytes;

use crate::event::{Content, Event, Provider, Time, render::Data};

/// Every kind of event that the providers are known to send, and `unreadable`.
pub const KINDS: [&str; 7] = [
    "feeds",
    "media",
    "recordings",
    "thumbnail",
    "transcoder",
    "unreadable",
    "viewerconnection",
];

/// What a kind that is not among [`KINDS`] is called in metrics: what a sender names never becomes a label.
pub const KIND_OTHER: &str = "other";

/// The label of a kind in metrics.
pub fn kind_label(kind: &str) -> &'static str {
    KINDS.into_iter().find(|known| *known == kind).unwrap_or(KIND_OTHER)
}

/// A request's headers, whatever server read them.
pub trait Headers {
    /// The value of the header `name` (in any case), if it is there exactly once.
    fn value(&self, name: &str) -> Option<&[u8]>;
}

/// A request as it came, of which nothing is believed yet.
pub struct Unverified<'a> {
    pub headers: &'a dyn Headers,
    pub body: Bytes,
    pub received: Time,
}

/// A request whose signature one of the endpoint's secrets made. Only `verify` makes one.
pub struct Verified<'a> {
    request: Unverified<'a>,
}

/// Why a signature was refused. The sender is told nothing of it; the metrics are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("no signature header")]
    Missing,
    #[error("a signature header that is not sha1=<40 hexadecimal digits>")]
    Malformed,
    #[error("a signature that none of the endpoint's secrets made")]
    Wrong,
}

/// What a route publishes as an event's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// The same thing under the same name in every kind.
    Normalized,
    /// The body byte for byte.
    Original,
}

/// Renders an event's data for a route.
pub fn data(event: &Event, payload: Payload) -> Data {
    match (&event.content, payload) {
        (Content::Json, Payload::Original) => Data::Json(event.body.clone()),
        (Content::Json, Payload::Normalized) => match event.provider {
            Provider::Millicast => Data::Json(millicast::normalize(&event.kind, &event.body)),
        },
        (Content::Jpeg | Content::Opaque(_), _) => Data::Binary(event.body.clone()),
    }
}
