//! Dolby.io Real-time Streaming (Millicast).

mod normalize;
mod payload;
mod samples;
mod schemas;
mod signature;

use std::borrow::Cow;

use bytes::Bytes;
use forebay_event::{Content, Event, Provider, ProviderNumber, Time, text};
use sha1::{Digest, Sha1};
use uuid::Uuid;

use self::payload::{EventFacts, WebhookEnvelope};
use super::{
    EventOrigin, FactSource, HeaderLookup, Sample, SampleKind, SampleParameters, Secret, Sender, SignatureError,
    SigningKey, UNREADABLE, UnverifiedRequest, VerifiedRequest,
};

/// Dolby.io Real-time Streaming, as a sender.
pub struct Millicast;

const PROVIDER: Provider = Provider {
    number: ProviderNumber(0),
    name: "millicast",
    type_prefix: "com.millicast",
    authority: "millicast.com",
};

const FEED_ID: &str = "X-Millicast-Feed-Id";
const STREAM_ID: &str = "X-Millicast-Stream-Id";
const TIMESTAMP: &str = "X-Millicast-Timestamp";
const TOKEN_ID: &str = "X-Millicast-Token-Id";

/// The namespace of event ids. It never changes: a duplicate has the same id whichever version took it in.
const ID_NAMESPACE: Uuid = Uuid::from_u128(0x5b0f_9c52_6f0e_4d6a_9a51_0f3f_6f72_6562);

/// What every JPEG begins with.
const JPEG_START: &[u8] = b"\xff\xd8\xff";

impl Sender for Millicast {
    fn provider(&self) -> &'static Provider {
        &PROVIDER
    }

    fn kinds(&self) -> &'static [&'static str] {
        &[
            "feeds",
            "media",
            "recordings",
            "thumbnail",
            "transcoder",
            "viewerconnection",
        ]
    }

    fn is_bulk(&self, event: &Event) -> bool {
        event.kind == "thumbnail" || event.content == Content::Jpeg
    }

    fn signature_headers(&self) -> &'static [&'static str] {
        &[signature::HEADER]
    }

    fn check_form(&self, headers: &dyn HeaderLookup) -> Result<(), SignatureError> {
        signature::check_form(headers.value(signature::HEADER))
    }

    fn signing_key(&self, secret: &Secret) -> Box<dyn SigningKey> {
        Box::new(signature::HmacKey::new(secret))
    }

    fn event(&self, origin: &EventOrigin, request: VerifiedRequest<'_>) -> Event {
        let UnverifiedRequest {
            headers,
            body,
            received,
        } = request.into_request();
        let webhook = Webhook { origin, received };
        if body.starts_with(JPEG_START) {
            return webhook.picture(headers, body);
        }
        webhook
            .announcement(&body)
            .unwrap_or_else(|| webhook.unreadable(headers, body))
    }

    fn normalized(&self, kind: &str, body: &Bytes) -> Bytes {
        normalize::normalize(kind, body)
    }

    fn samples(&self) -> &'static [SampleKind] {
        samples::ALL
    }

    fn life(&self) -> &'static [SampleKind] {
        samples::LIFE
    }

    fn sample(&self, kind: SampleKind, parameters: &SampleParameters<'_>) -> Sample {
        samples::sample(kind, parameters)
    }

    fn schemas(&self) -> &'static [(&'static str, &'static str)] {
        schemas::SCHEMAS
    }

    fn sign(&self, secret: &Secret, body: &[u8]) -> Vec<(&'static str, String)> {
        vec![(signature::HEADER, signature::sign(secret, body))]
    }
}

/// A webhook of which an event is made.
struct Webhook<'o> {
    origin: &'o EventOrigin,
    received: Time,
}

impl Webhook<'_> {
    /// An event of the JSON envelope, if the body has one.
    fn announcement(&self, body: &Bytes) -> Option<Event> {
        let envelope = WebhookEnvelope::parse(body)?;
        let facts = EventFacts::from_body(&envelope.kind, &envelope.name, envelope.data);
        let time = facts.time.or(envelope.sent).unwrap_or(self.received);
        let id = id(self.origin.endpoint(), body, None);
        let mut event = self.base(facts, FactSource::Signed, id, body);
        event.time = time;
        event.sent = envelope.sent;
        event.kind = envelope.kind;
        event.name = Some(envelope.name);
        event.content = Content::Json;
        Some(event)
    }

    fn picture(&self, headers: &dyn HeaderLookup, body: Bytes) -> Event {
        let mut event = self.of_headers(headers, &body);
        event.kind = "thumbnail".to_owned();
        event.name = Some("captured".to_owned());
        event.content = Content::Jpeg;
        event
    }

    fn unreadable(&self, headers: &dyn HeaderLookup, body: Bytes) -> Event {
        let mut event = self.of_headers(headers, &body);
        event.kind = UNREADABLE.to_owned();
        let content_type = headers.value("Content-Type").map(String::from_utf8_lossy);
        let content_type = content_type.as_deref().and_then(attribute);
        event.content = Content::Opaque(content_type.unwrap_or_else(|| "application/octet-stream".to_owned()));
        event
    }

    /// An event of which only the headers tell something. They are not signed, so nothing is learned from them.
    fn of_headers(&self, headers: &dyn HeaderLookup, body: &Bytes) -> Event {
        let header = |name| {
            headers
                .value(name)
                .map(String::from_utf8_lossy)
                .filter(|text| !text.trim().is_empty())
        };
        let time = header(TIMESTAMP).and_then(|text| Time::parse(&text));
        let facts = EventFacts {
            stream_id: header(STREAM_ID),
            feed_id: header(FEED_ID),
            time,
            ..EventFacts::default()
        };
        let id = id(self.origin.endpoint(), body, Some(headers));
        let mut event = self.base(facts, FactSource::Unsigned, id, body);
        event.time = time.unwrap_or(self.received);
        event.token_id = header(TOKEN_ID).as_deref().and_then(attribute);
        event
    }

    /// An event with all that its facts say; kind, time and content are the caller's.
    fn base(&self, facts: EventFacts<'_>, source: FactSource, id: Uuid, body: &Bytes) -> Event {
        let Self { origin, received } = *self;
        let accounts = origin.accounts();
        let foreign = facts.accounts().find(|account| !accounts.include(account, source));
        let (is_foreign, account_claimed) = (foreign.is_some(), foreign.and_then(attribute));
        let facts = if is_foreign { facts.without_account() } else { facts };
        let named = facts.account().and_then(attribute);
        if let (Some(account), FactSource::Signed) = (&named, source) {
            origin.learn(account);
        }
        let mut account = named.or_else(|| accounts.own.clone());
        if account.is_none() && !is_foreign {
            account = origin.learned_account().as_deref().map(str::to_owned);
        }
        let key = facts.key(account.as_deref()).as_deref().and_then(attribute);
        let key = key
            .or_else(|| account.clone())
            .unwrap_or_else(|| origin.endpoint().to_owned());
        Event {
            id,
            provider: PROVIDER.number,
            endpoint: origin.endpoint().to_owned(),
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
}

/// `text` as an attribute, which is never blank.
fn attribute(text: &str) -> Option<String> {
    Some(text::attribute(text))
        .filter(|text| !text.trim().is_empty())
        .map(Cow::into_owned)
}

/// A UUID of the endpoint and the raw body, and where the headers say what the body does not, of these.
fn id(endpoint: &str, body: &[u8], headers: Option<&dyn HeaderLookup>) -> Uuid {
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
