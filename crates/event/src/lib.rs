//! What happened, as a CloudEvent: identity, time, stream key and type, with the body as it came.
//!
//! Pure: no IO, no framework. [`Event`] is what a provider makes of a verified request, what the spool stores
//! ([`Event::encode`], [`Event::decode`]) and what [`render`] turns into what a consumer reads.

mod codec;
pub mod render;
pub mod text;
pub mod time;
mod trace;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use codec::{EventDecodeError, EventInterest, RecordedEvent};
pub use time::Time;
pub use trace::TraceContext;

/// Who sent a webhook: the number under which records have it. It never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProviderNumber(pub u8);

/// How the events of one who sends webhooks are named.
#[derive(Debug, PartialEq, Eq)]
pub struct Provider {
    pub number: ProviderNumber,
    /// As configuration and topics call it.
    pub name: &'static str,
    /// The domain under which its types are named, as `com.example` in `com.example.feeds.started`.
    pub type_prefix: &'static str,
    /// The domain under which its sources are named.
    pub authority: &'static str,
}

/// What an event's body is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A JSON text.
    Json,
    /// A JPEG picture.
    Jpeg,
    /// Anything else that was authentic, with the content type that its sender gave it, whether it is one or not.
    Opaque(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The same for a duplicate: made from the endpoint and the raw body (a thumbnail: and its headers).
    pub id: Uuid,
    pub provider: ProviderNumber,
    /// The name of the endpoint that took it in.
    pub endpoint: String,
    /// `feeds`, `recordings`, … in lower case, or an unknown kind with characters outside `a-z0-9-` replaced.
    pub kind: String,
    /// `started`, `ended`, … likewise; none where the kind has no events (`unreadable`).
    pub name: Option<String>,
    /// The stream key, which is the partition key and the subject. Never empty.
    pub key: String,
    pub account: Option<String>,
    /// The account that the event itself names, where its endpoint does not take events of that one: then `account` and
    /// `key` are as the configuration has them.
    pub account_claimed: Option<String>,
    pub stream_name: Option<String>,
    pub feed_id: Option<String>,
    /// The publishing token that took a picture; only headers say it.
    pub token_id: Option<String>,
    /// When it happened, where the payload says so, else when it was sent.
    pub time: Time,
    /// When the sender says that it sent it.
    pub sent: Option<Time>,
    /// When this replica took it in.
    pub recorded: Time,
    /// How far `time` lies behind the newest of the same stream that this replica had seen, in milliseconds. `None`: it
    /// does not, or the replica remembered none.
    pub late_by_ms: Option<u64>,
    /// The sender's signed time of sending lay further back than the endpoint's replay window.
    pub is_stale: bool,
    /// This replica had seen an event with the same id within the endpoint's replay window.
    pub is_repeated: bool,
    /// The span that took it in, or where that was not recorded, the sender's; the consumer's is to be its child.
    pub trace: Option<TraceContext>,
    pub content: Content,
    /// The body, byte for byte as it came.
    pub body: Bytes,
}

impl Event {
    /// The CloudEvents `type`. `provider`: its own.
    pub fn type_(&self, provider: &Provider) -> String {
        let prefix = provider.type_prefix;
        match &self.name {
            Some(name) => format!("{prefix}.{}.{name}", self.kind),
            None => format!("{prefix}.{}", self.kind),
        }
    }

    /// The CloudEvents `source`, a URI reference. `provider`: its own.
    pub fn source(&self, provider: &Provider) -> String {
        let account = self.account.as_deref().unwrap_or("unknown");
        let mut source = format!("//{}/accounts/", provider.authority);
        source.push_str(&text::uri_segment(account, text::ATTRIBUTE_BYTES_MAX - source.len()));
        source
    }
}
