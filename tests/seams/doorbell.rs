//! A sender that exists in this test alone: its signature, its events, its samples.

use bytes::Bytes;
use forebay::{
    event::{Content, Event, Provider, ProviderNumber, Time, text},
    senders::{
        EventOrigin, HeaderLookup, Sample, SampleKind, SampleParameters, Secret, Sender, SenderAnswer, SignatureError,
        SigningKey, UNREADABLE, UnverifiedRequest, VerifiedRequest,
    },
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha1::Sha1;
use subtle::{Choice, ConstantTimeEq as _};
use uuid::Uuid;

/// A house whose doorbell tells who rings.
pub struct Doorbell;

const SIGNATURE: &str = "Doorbell-Signature";
/// Signed before the body.
const MOMENT: &str = "Doorbell-Moment";

const PROVIDER: Provider = Provider {
    number: ProviderNumber(200),
    name: "doorbell",
    type_prefix: "example.doorbell",
    authority: "doorbell.example",
};

const RUNG: SampleKind = SampleKind::new("door", "rung");

struct Key(Hmac<Sha1>);

impl Key {
    fn new(secret: &Secret) -> Self {
        Self(Hmac::new_from_slice(secret.bytes()).expect("a key of any length"))
    }

    fn signature(&self, moment: &[u8], body: &[u8]) -> String {
        let mac = self.0.clone().chain_update(moment).chain_update(".").chain_update(body);
        let digest = mac.finalize().into_bytes();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl SigningKey for Key {
    fn has_made(&self, headers: &dyn HeaderLookup, body: &[u8]) -> Choice {
        let (Some(given), Some(moment)) = (headers.value(SIGNATURE), headers.value(MOMENT)) else {
            return Choice::from(0);
        };
        self.signature(moment, body).as_bytes().ct_eq(given)
    }
}

impl Sender for Doorbell {
    fn provider(&self) -> &'static Provider {
        &PROVIDER
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["door"]
    }

    fn signature_headers(&self) -> &'static [&'static str] {
        &[SIGNATURE, MOMENT]
    }

    fn check_form(&self, headers: &dyn HeaderLookup) -> Result<(), SignatureError> {
        let signature = headers.value(SIGNATURE).ok_or(SignatureError::Missing)?;
        let is_hex = signature.len() == 40 && signature.iter().all(u8::is_ascii_hexdigit);
        (is_hex && headers.value(MOMENT).is_some())
            .then_some(())
            .ok_or(SignatureError::Malformed)
    }

    fn signing_key(&self, secret: &Secret) -> Box<dyn SigningKey> {
        Box::new(Key::new(secret))
    }

    fn event(&self, origin: &EventOrigin, request: VerifiedRequest<'_>) -> Event {
        let UnverifiedRequest {
            headers,
            body,
            received,
        } = request.into_request();
        let moment = headers.value(MOMENT).map(String::from_utf8_lossy);
        let sent = moment.and_then(|text| Time::parse(&text));
        let value: Option<Value> = serde_json::from_slice(&body).ok();
        let house = value.as_ref().and_then(|value| value["house"].as_str());
        let key = text::attribute(house.unwrap_or(origin.endpoint())).into_owned();
        Event {
            id: Uuid::from_u128(body.iter().fold(17, |sum: u128, byte| {
                sum.wrapping_mul(31).wrapping_add(u128::from(*byte))
            })),
            provider: PROVIDER.number,
            endpoint: origin.endpoint().to_owned(),
            kind: if value.is_some() { "door" } else { UNREADABLE }.to_owned(),
            name: value.as_ref().map(|_| "rung".to_owned()),
            key: key.clone(),
            account: house.map(|_| key),
            account_claimed: None,
            stream_name: None,
            feed_id: None,
            token_id: None,
            time: sent.unwrap_or(received),
            sent,
            recorded: received,
            late_by_ms: None,
            is_stale: false,
            is_repeated: false,
            trace: None,
            content: match value {
                Some(_) => Content::Json,
                None => Content::Opaque("application/octet-stream".to_owned()),
            },
            body,
        }
    }

    fn normalized(&self, _: &str, body: &Bytes) -> Bytes {
        let mut value: Value = serde_json::from_slice(body).expect("what is normalised is JSON");
        value["place"] = value["house"].take();
        value.to_string().into()
    }

    fn answer(&self) -> SenderAnswer {
        SenderAnswer {
            content_type: "application/json",
            body: r#"{"heard":true}"#,
        }
    }

    fn samples(&self) -> &'static [SampleKind] {
        &[RUNG]
    }

    fn life(&self) -> &'static [SampleKind] {
        self.samples()
    }

    fn sample(&self, kind: SampleKind, parameters: &SampleParameters<'_>) -> Sample {
        let body = json!({ "house": parameters.stream_name, "ring": parameters.counter });
        Sample {
            kind: kind.kind,
            event: kind.event,
            content_type: "application/json",
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
        }
    }

    fn sign(&self, secret: &Secret, body: &[u8]) -> Vec<(&'static str, String)> {
        let moment = Time::now().0.to_string();
        let signature = Key::new(secret).signature(moment.as_bytes(), body);
        vec![(SIGNATURE, signature), (MOMENT, moment)]
    }
}
