//! Dolby.io Real-time Streaming (Millicast).

mod diagnosis;
mod normalize;
mod payload;
mod reformat;
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
use super::{Headers, SignatureError, Unverified, Verified};
use crate::event::{Content, Event, Provider, Time, text};

pub use diagnosis::{Diagnosis, form as header_form};
pub(super) use normalize::normalize;
pub use signature::{SIGNATURE, Secret, SecretError, sign};

const FEED_ID: &str = "X-Millicast-Feed-Id";
const STREAM_ID: &str = "X-Millicast-Stream-Id";
const TIMESTAMP: &str = "X-Millicast-Timestamp";
const TOKEN_ID: &str = "X-Millicast-Token-Id";

/// Secrets that were taken out of use and are remembered.
const RETIRED_KEYS_MAX: usize = 8;

/// The namespace of event ids. It never changes: a duplicate has the same id whichever version took it in.
const ID_NAMESPACE: Uuid = Uuid::from_u128(0x5b0f_9c52_6f0e_4d6a_9a51_0f3f_6f72_6562);

/// What every JPEG begins with.
const JPEG_START: &[u8] = b"\xff\xd8\xff";

/// Whose events an endpoint takes for what they name themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Of events that name none, and of those that name one that is not listed.
    pub own: Option<String>,
    /// Empty: any.
    pub listed: Vec<String>,
}

/// What says whom an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FactSource {
    Body,
    /// The signature does not cover them.
    Headers,
}

impl Accounts {
    /// Whether an event may be of the account that it names. Where any may be, headers still choose none in place of
    /// the endpoint's own.
    fn include(&self, account: &str, source: FactSource) -> bool {
        let own = self.own.as_deref();
        match source {
            _ if !self.listed.is_empty() => self.listed.iter().any(|listed| listed == account),
            FactSource::Body => true,
            FactSource::Headers => own.is_none_or(|own| own == account),
        }
    }
}

/// Receives one endpoint's webhooks: verifies them, and makes events of them.
///
/// Shared by all requests of the endpoint; it learns the account from the events that name it.
pub struct Receiver {
    endpoint: String,
    accounts: Accounts,
    learned: RwLock<Option<Arc<str>>>,
    keys: RwLock<Keys>,
}

/// The keys that an endpoint has, and had.
#[derive(Clone, Default)]
struct Keys {
    active: Arc<[Arc<Key>]>,
    /// Those that were active before, the newest first: who still signs with one of them can be told from a stranger.
    retired: Arc<[Arc<Key>]>,
}

impl Receiver {
    /// Takes the events of `account` alone for its own; without one, those of any.
    pub fn new(endpoint: &str, account: Option<&str>, secrets: Vec<Secret>) -> Self {
        let own = account.map(str::to_owned);
        Receiver {
            endpoint: text::attribute(endpoint).into_owned(),
            accounts: Accounts {
                listed: own.iter().cloned().collect(),
                own,
            },
            learned: RwLock::new(None),
            keys: RwLock::new(Keys::default().replaced_by(&secrets)),
        }
    }

    pub fn with_accounts(self, accounts: Accounts) -> Self {
        Self { accounts, ..self }
    }

    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Replaces the active secrets, as after a rotation. Of those that stay, it stays known when they were last the
    /// right ones.
    pub fn set_secrets(&self, secrets: Vec<Secret>) {
        let mut keys = self.keys.write();
        *keys = keys.replaced_by(&secrets);
    }

    /// When each of the active secrets last made a request's signature, in seconds since the Unix epoch.
    pub fn last_matches(&self) -> Vec<Option<i64>> {
        self.keys.read().active.iter().map(|key| key.last_match_s()).collect()
    }

    /// The account that the newest signed body to name one named.
    pub fn learned_account(&self) -> Option<Arc<str>> {
        self.learned.read().clone()
    }

    /// Takes over an account that was learned before, unless a newer one is known, or its events are no longer the
    /// endpoint's.
    pub fn remember_account(&self, account: &str) {
        if self.accounts.include(account, FactSource::Body) {
            self.learned.write().get_or_insert_with(|| account.into());
        }
    }

    /// Checks that a request has a signature that could be right, before its body has come.
    pub fn check_form(&self, headers: &dyn Headers) -> Result<(), SignatureError> {
        signature::check_form(headers.value(SIGNATURE))
    }

    /// Checks the signature over the raw body against every active secret, in constant time.
    pub fn verify<'a>(&self, request: Unverified<'a>) -> Result<Verified<'a>, SignatureError> {
        let keys = Arc::clone(&self.keys.read().active);
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
        if body.starts_with(JPEG_START) {
            return self.picture(headers, body, received);
        }
        self.announcement(&body, received)
            .unwrap_or_else(|| self.unreadable(headers, body, received))
    }

    /// An event of the JSON envelope, if the body has one.
    fn announcement(&self, body: &Bytes, received: Time) -> Option<Event> {
        let envelope = Envelope::parse(body)?;
        let facts = Facts::of(&envelope.kind, &envelope.name, envelope.data);
        let time = facts.time.or(envelope.sent).unwrap_or(received);
        let mut event = self.base(facts, FactSource::Body, id(&self.endpoint, body, None), body, received);
        event.time = time;
        event.sent = envelope.sent;
        event.kind = envelope.kind;
        event.name = Some(envelope.name);
        event.content = Content::Json;
        Some(event)
    }

    fn picture(&self, headers: &dyn Headers, body: Bytes, received: Time) -> Event {
        let mut event = self.of_headers(headers, &body, received);
        event.kind = "thumbnail".to_owned();
        event.name = Some("captured".to_owned());
        event.content = Content::Jpeg;
        event
    }

    fn unreadable(&self, headers: &dyn Headers, body: Bytes, received: Time) -> Event {
        let mut event = self.of_headers(headers, &body, received);
        event.kind = "unreadable".to_owned();
        let content_type = headers.value("Content-Type").map(String::from_utf8_lossy);
        let content_type = content_type.as_deref().and_then(attribute);
        event.content = Content::Opaque(content_type.unwrap_or_else(|| "application/octet-stream".to_owned()));
        event
    }

    /// An event of which only the headers tell something. They are not signed, so nothing is learned from them.
    fn of_headers(&self, headers: &dyn Headers, body: &Bytes, received: Time) -> Event {
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
        let id = id(&self.endpoint, body, Some(headers));
        let mut event = self.base(facts, FactSource::Headers, id, body, received);
        event.time = time.unwrap_or(received);
        event.token_id = header(TOKEN_ID).as_deref().and_then(attribute);
        event
    }

    /// An event with all that its facts say; kind, time and content are the caller's.
    fn base(&self, facts: Facts<'_>, source: FactSource, id: Uuid, body: &Bytes, received: Time) -> Event {
        let foreign = facts.accounts().find(|account| !self.accounts.include(account, source));
        let (is_foreign, account_claimed) = (foreign.is_some(), foreign.and_then(attribute));
        let facts = if is_foreign { facts.without_account() } else { facts };
        let named = facts.account().and_then(attribute);
        if let (Some(account), FactSource::Body) = (&named, source) {
            self.learn(account);
        }
        let mut account = named.or_else(|| self.accounts.own.clone());
        if account.is_none() && !is_foreign {
            account = self.learned.read().as_deref().map(str::to_owned);
        }
        let key = facts.key(account.as_deref()).as_deref().and_then(attribute);
        let key = key.or_else(|| account.clone()).unwrap_or_else(|| self.endpoint.clone());
        Event {
            id,
            provider: Provider::Millicast,
            endpoint: self.endpoint.clone(),
            kind: String::new(),
            name: None,
            key,
            account,
            account_claimed,
            stream_name: facts.stream_name().and_then(attribute),
            feed_id: facts.feed_id.as_deref().and_then(attribute),
            token_id: None,
            time: received,
            sent: None,
            recorded: received,
            late_by_ms: None,
            is_stale: false,
            is_repeated: false,
            trace: None,
            content: Content::Json,
            body: body.clone(),
        }
    }

    fn learn(&self, account: &str) {
        if self.learned.read().as_deref() != Some(account) {
            *self.learned.write() = Some(account.into());
        }
    }
}

impl Keys {
    /// The keys of these secrets, taken over where they are there already.
    fn replaced_by(&self, secrets: &[Secret]) -> Self {
        let key = |secret: &Secret| {
            let known = self.active.iter().find(|key| key.secret() == secret);
            known.cloned().unwrap_or_else(|| Arc::new(Key::new(secret)))
        };
        let active: Arc<[_]> = secrets.iter().map(key).collect();
        let was_active = self.active.iter().chain(self.retired.iter());
        let retired = was_active.filter(|key| !secrets.contains(key.secret()));
        Self {
            retired: retired.take(RETIRED_KEYS_MAX).cloned().collect(),
            active,
        }
    }
}

/// `text` as an attribute, which is never blank.
fn attribute(text: &str) -> Option<String> {
    Some(text::attribute(text))
        .filter(|text| !text.trim().is_empty())
        .map(Cow::into_owned)
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
