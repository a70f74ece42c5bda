//! Dolby.io Real-time Streaming (Millicast).

mod normalize;
mod payload;
pub mod samples;
mod signature;

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use parking_lot::RwLock;
use sha1::{Digest, Sha1};
use uuid::Uuid;

use self::{
    payload::{Envelope, Facts},
    signature::Key,
};
use super::{Headers, SignatureError, Unverified, Verified, json::Object};
use crate::event::{Content, Event, Provider, Time, text};

pub(super) use normalize::normalize;
pub use signature::{SIGNATURE, Secret, SecretError, sign};

const FEED_ID: &str = "X-Millicast-Feed-Id";
const STREAM_ID: &str = "X-Millicast-Stream-Id";
const TIMESTAMP: &str = "X-Millicast-Timestamp";
const TOKEN_ID: &str = "X-Millicast-Token-Id";

/// The namespace of event ids. It never changes: a duplicate has the same id whichever version took it in.
const ID_NAMESPACE: Uuid = Uuid::from_u128(0x5b0f_9c52_6f0e_4d6a_9a51_0f3f_6f72_6562);

/// Receives one endpoint's webhooks: verifies them, and makes events of them.
///
/// Shared by all requests of the endpoint; it learns the account from the events that name it.
pub struct Receiver {
    endpoint: String,
    account: Option<String>,
    learned: RwLock<Option<Arc<str>>>,
    keys: RwLock<Arc<[Arc<Key>]>>,
}

impl Receiver {
    pub fn new(endpoint: &str, account: Option<&str>, secrets: Vec<Secret>) -> Self {
        Receiver {
            endpoint: text::attribute(endpoint).into_owned(),
            account: account.and_then(attribute),
            learned: RwLock::new(None),
            keys: RwLock::new(keys(&secrets, &[])),
        }
    }

    /// Replaces the active secrets, as after a rotation. Of those that stay, it stays known when they were last the right ones.
    pub fn set_secrets(&self, secrets: Vec<Secret>) {
        let mut active = self.keys.write();
        *active = keys(&secrets, &active);
    }

    /// When each of the active secrets last made a request's signature, in seconds since the Unix epoch.
    pub fn last_matches(&self) -> Vec<Option<i64>> {
        self.keys.read().iter().map(|key| key.last_match_s()).collect()
    }

    /// The account that the newest signed body to name one named.
    pub fn learned_account(&self) -> Option<Arc<str>> {
        self.learned.read().clone()
    }

    /// Takes over an account that was learned before, unless a newer one is known.
    pub fn remember_account(&self, account: &str) {
        self.learned.write().get_or_insert_with(|| account.into());
    }

    /// Checks the signature over the raw body against every active secret, in constant time.
    pub fn verify<'a>(&self, request: Unverified<'a>) -> Result<Verified<'a>, SignatureError> {
        let keys = self.keys.read().clone();
        let matched = signature::verify(&keys, request.headers.value(SIGNATURE), &request.body)?;
        keys[matched].matched(request.received);
        Ok(Verified { request })
    }

    /// Makes an event of what is authentic; never fails, whatever the content.
    pub fn event(&self, request: Verified<'_>) -> Event {
        let Unverified {
            headers,
            body,
            received,
        } = request.request;
        let content_type = headers.value("Content-Type").map(String::from_utf8_lossy);
        if content_type.as_deref().is_some_and(is_jpeg) || body.starts_with(b"\xff\xd8\xff") {
            return self.picture(headers, body, received);
        }
        self.announcement(&body, received)
            .unwrap_or_else(|| self.unreadable(headers, content_type, body, received))
    }

    /// An event of the JSON envelope, if the body has one.
    fn announcement(&self, body: &Bytes, received: Time) -> Option<Event> {
        let envelope = Envelope::parse(body)?;
        let data = envelope.data.and_then(Object::parse).unwrap_or_default();
        let facts = Facts::of(&envelope.kind, &envelope.name, &data);
        if let Some(account) = facts.account().and_then(attribute) {
            self.learn(&account);
        }
        let mut event = self.base(&facts, id(&self.endpoint, body, None), body.clone(), received);
        event.time = facts.time.or(envelope.sent).unwrap_or(received);
        event.sent = envelope.sent;
        event.kind = envelope.kind;
        event.name = Some(envelope.name);
        event.content = Content::Json;
        Some(event)
    }

    fn picture(&self, headers: &dyn Headers, body: Bytes, received: Time) -> Event {
        let mut event = self.of_headers(headers, body, received);
        event.kind = "thumbnail".to_owned();
        event.name = Some("captured".to_owned());
        event.content = Content::Jpeg;
        event
    }

    fn unreadable(
        &self,
        headers: &dyn Headers,
        content_type: Option<Cow<'_, str>>,
        body: Bytes,
        received: Time,
    ) -> Event {
        let mut event = self.of_headers(headers, body, received);
        event.kind = "unreadable".to_owned();
        let content_type = content_type.as_deref().and_then(attribute);
        event.content = Content::Opaque(content_type.unwrap_or_else(|| "application/octet-stream".to_owned()));
        event
    }

    /// An event of which only the headers tell something. They are not signed, so nothing is learned from them.
    fn of_headers(&self, headers: &dyn Headers, body: Bytes, received: Time) -> Event {
        let header = |name| {
            headers
                .value(name)
                .map(String::from_utf8_lossy)
                .filter(|text| !text.trim().is_empty())
        };
        let time = header(TIMESTAMP).and_then(|text| Time::parse(&text));
        let facts = Facts {
            stream_id: header(STREAM_ID),
            feed_id: header(FEED_ID),
            time,
            ..Facts::default()
        };
        let mut event = self.base(&facts, id(&self.endpoint, &body, Some(headers)), body.clone(), received);
        event.time = time.unwrap_or(received);
        event.token_id = header(TOKEN_ID).as_deref().and_then(attribute);
        event
    }

    /// An event with all that its facts say; kind, time and content are the caller's.
    fn base(&self, facts: &Facts<'_>, id: Uuid, body: Bytes, received: Time) -> Event {
        let account = facts.account().and_then(attribute).or_else(|| self.account.clone());
        let account = account.or_else(|| self.learned.read().as_deref().map(str::to_owned));
        let key = facts.key(account.as_deref());
        let key = key
            .as_deref()
            .and_then(attribute)
            .unwrap_or_else(|| self.endpoint.clone());
        Event {
            id,
            provider: Provider::Millicast,
            endpoint: self.endpoint.clone(),
            kind: String::new(),
            name: None,
            key,
            account,
            stream_name: facts.stream_name().and_then(attribute),
            feed_id: facts.feed_id.as_deref().and_then(attribute),
            token_id: None,
            time: received,
            sent: None,
            recorded: received,
            late_by_ms: None,
            trace: None,
            content: Content::Json,
            body,
        }
    }

    fn learn(&self, account: &str) {
        if self.learned.read().as_deref() != Some(account) {
            *self.learned.write() = Some(account.into());
        }
    }
}

/// The keys of these secrets, taken over from `before` where they are there already.
fn keys(secrets: &[Secret], before: &[Arc<Key>]) -> Arc<[Arc<Key>]> {
    let key = |secret: &Secret| {
        let known = before.iter().find(|key| key.secret() == secret);
        known.cloned().unwrap_or_else(|| Arc::new(Key::new(secret)))
    };
    secrets.iter().map(key).collect()
}

/// `text` as an attribute, which is never empty.
fn attribute(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text::attribute(text).into_owned())
}

fn is_jpeg(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("image/jpeg")
}

/// A UUID of the endpoint and the raw body, and where the headers say what the body does not, of these.
fn id(endpoint: &str, body: &[u8], headers: Option<&dyn Headers>) -> Uuid {
    let mut hash = Sha1::new_with_prefix(ID_NAMESPACE.as_bytes());
    let mut part = |bytes: Option<&[u8]>| {
        // A length that no part has tells an absent one from an empty one.
        let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
        hash.update(length.to_be_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    part(Some(endpoint.as_bytes()));
    part(Some(body));
    if let Some(headers) = headers {
        for name in [FEED_ID, STREAM_ID, TIMESTAMP, TOKEN_ID] {
            part(headers.value(name));
        }
    }
    let digest: [u8; 20] = hash.finalize().into();
    let bytes = digest.first_chunk::<16>().expect("SHA-1 has 20 bytes");
    uuid::Builder::from_sha1_bytes(*bytes).into_uuid()
}

#[cfg(test)]
mod tests;
