//! Who sends webhooks: how each signs its requests, and what they become.
//!
//! A sender is a folder of its own and implements [`Sender`]; [`senders`] is where it is registered, and nothing else
//! names it. What all of them need is here: a [`EndpointReceiver`] for each endpoint, with its [`Secret`]s and the
//! account that it learns, the [`Diagnosis`] of a signature that is wrong, and [`json`], which keeps a body's members
//! as they came.
//!
//! A request goes one way: [`UnverifiedRequest`] becomes [`VerifiedRequest`] becomes [`Event`]. What is authentic is
//! never refused for its content.

mod diagnosis;
pub mod json;
pub mod millicast;
mod receiver;
mod reformat;
mod samples;
mod secret;
#[cfg(test)]
mod testing;

use std::{panic::RefUnwindSafe, sync::OnceLock};

use bytes::Bytes;
use forebay_event::{Content, Event, Provider, ProviderNumber, render::EventData};
use subtle::Choice;

pub use diagnosis::{Diagnosis, header_form};
pub use receiver::{
    EndpointAccounts, EndpointReceiver, EventOrigin, FactSource, HeaderLookup, SignatureHeaders, UnverifiedRequest,
    VerifiedRequest,
};
pub use samples::{Sample, SampleKind, SampleParameters, find};
pub use secret::{Secret, SecretError};

/// One who sends webhooks.
pub trait Sender: Send + Sync + RefUnwindSafe {
    /// How its events are named, and the number under which records have it.
    fn provider(&self) -> &'static Provider;

    /// Every kind of event that it is known to send.
    fn kinds(&self) -> &'static [&'static str];

    /// Whether an event is one of those that may take only a part of the spool, because others matter more.
    fn is_bulk(&self, event: &Event) -> bool {
        matches!(event.content, Content::Jpeg)
    }

    /// The headers that a signature needs: the first one has the signature itself.
    fn signature_headers(&self) -> &'static [&'static str];

    /// Checks that a request has a signature that could be right, before its body has come.
    ///
    /// # Errors
    ///
    /// It has none, or one that is not of the sender's form.
    fn check_form(&self, headers: &dyn HeaderLookup) -> Result<(), SignatureError>;

    /// A secret, made ready to check signatures with.
    fn signing_key(&self, secret: &Secret) -> Box<dyn SigningKey>;

    /// Makes an event of what is authentic; never fails, whatever the content.
    fn event(&self, origin: &EventOrigin, request: VerifiedRequest<'_>) -> Event;

    /// The body of an event of this kind with the same thing under the same name as in every other kind.
    fn normalized(&self, kind: &str, body: &Bytes) -> Bytes;

    /// What the sender is answered once its event is durable, beside the status code 200.
    fn answer(&self) -> SenderAnswer {
        SenderAnswer {
            content_type: "text/plain; charset=utf-8",
            body: "OK",
        }
    }

    /// Every kind of request that it is known to send, in the order in which a stream's life has them.
    fn samples(&self) -> &'static [SampleKind];

    /// What happens to a stream when nothing fails; then the next life begins.
    fn life(&self) -> &'static [SampleKind];

    /// Makes a sample; the same parameters make the same one. It is not signed.
    fn sample(&self, kind: SampleKind, parameters: &SampleParameters<'_>) -> Sample;

    /// JSON schemas of its events, normalised, by kind; under `event` what every kind has in common. None: `verify`
    /// judges none of its events.
    fn schemas(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The headers that sign a body.
    fn sign(&self, secret: &Secret, body: &[u8]) -> Vec<(&'static str, String)>;
}

/// Checks signatures with one secret.
pub trait SigningKey: Send + Sync {
    /// Whether the secret made the signature in the headers for this body, without telling by its time how nearly.
    fn has_made(&self, headers: &dyn HeaderLookup, body: &[u8]) -> Choice;
}

/// What a sender is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderAnswer {
    pub content_type: &'static str,
    pub body: &'static str,
}

/// Why a signature was refused. The sender is told nothing of it; the metrics are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("no signature header")]
    Missing,
    #[error("a signature header that is not of the sender's form")]
    Malformed,
    #[error("a signature that none of the endpoint's secrets made")]
    Wrong,
}

/// What a route publishes as an event's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoutePayload {
    /// The same thing under the same name in every kind.
    Normalized,
    /// The body byte for byte.
    Original,
}

/// The senders that are built in. The first one is who sends where nobody is named.
const BUILT_IN: &[&dyn Sender] = &[&millicast::Millicast];

static SENDERS: OnceLock<Vec<&'static dyn Sender>> = OnceLock::new();
static KINDS: OnceLock<Vec<&'static str>> = OnceLock::new();

/// What is authentic and cannot be read, whoever sent it.
pub const UNREADABLE: &str = "unreadable";

/// What a kind that is not among [`kinds`] is called in metrics: what a sender names never becomes a label.
pub const KIND_OTHER: &str = "other";

/// All senders.
pub fn senders() -> &'static [&'static dyn Sender] {
    SENDERS.get_or_init(|| BUILT_IN.to_vec())
}

/// Adds senders to those that are built in. To be called before anything else of Forebay, by the program that has them.
///
/// # Panics
///
/// Senders were looked up already, or two have the same number or name.
pub fn register(more: &[&'static dyn Sender]) {
    let all = [BUILT_IN, more].concat();
    for (at, sender) in all.iter().enumerate() {
        let Provider { number, name, .. } = sender.provider();
        let is_same = |other: &&dyn Sender| other.provider().number == *number || other.provider().name == *name;
        assert!(
            !all[..at].iter().any(is_same),
            "another sender has the number or name of {name}"
        );
    }
    assert!(
        SENDERS.set(all).is_ok(),
        "senders are registered before they are looked up"
    );
}

/// Who has this number; `None`: nobody who is registered.
pub fn numbered(number: ProviderNumber) -> Option<&'static dyn Sender> {
    let mut senders = senders().iter();
    senders.find(|sender| sender.provider().number == number).copied()
}

/// Who sent an event, which was made by a sender that is registered.
pub fn sender_of(event: &Event) -> &'static dyn Sender {
    numbered(event.provider).expect("an event's sender is registered")
}

/// Who is called so, as configuration and topics call them.
pub fn named(name: &str) -> Option<&'static dyn Sender> {
    senders().iter().find(|sender| sender.provider().name == name).copied()
}

/// Who sends where nobody is named.
pub fn usual() -> &'static dyn Sender {
    senders()[0]
}

/// Every kind of event that the senders are known to send, and [`UNREADABLE`], in alphabetical order.
pub fn kinds() -> &'static [&'static str] {
    KINDS.get_or_init(|| {
        let of_senders = senders().iter().flat_map(|sender| sender.kinds()).copied();
        let mut kinds: Vec<_> = of_senders.chain([UNREADABLE]).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    })
}

/// The label of a kind in metrics.
pub fn kind_label(kind: &str) -> &'static str {
    kinds().iter().find(|known| **known == kind).unwrap_or(&KIND_OTHER)
}

/// Renders an event's data for a route.
pub fn data(event: &Event, payload: RoutePayload) -> EventData {
    match (&event.content, payload) {
        (Content::Json, RoutePayload::Original) => EventData::Json(event.body.clone()),
        (Content::Json, RoutePayload::Normalized) => {
            EventData::Json(sender_of(event).normalized(&event.kind, &event.body))
        }
        (Content::Jpeg | Content::Opaque(_), _) => EventData::Binary(event.body.clone()),
    }
}
