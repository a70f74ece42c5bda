//! From a request to what is published: what is authentic becomes an event, whatever it holds.
//!
//! The input has a signed body, the headers beside it, and what is said of the endpoint. Then:
//!
//! - it becomes an event, with the body as it came, and the same one when it comes again;
//! - encoded and decoded it is the same, also for who looks at a part of it; a record that is cut is refused, or has a
//!   shorter body;
//! - of every payload and mode it is a CloudEvent: every required attribute is there, none is longer than it may be,
//!   and a structured one is JSON with the same attributes as a binary one;
//! - of an endpoint that takes one account's events alone, the event is of that account, or of none.

use bytes::Bytes;
use forebay_event::{
    Content, Event,
    render::{BOOLEANS, EventStamp, RenderMode, RenderedEvent, Republication, STRUCTURED_CONTENT_TYPE, render},
    text::{ATTRIBUTE_BYTES_MAX, MEDIA_TYPE_BYTES_MAX},
};
use forebay_senders::{EndpointReceiver, RoutePayload, Secret, data, kind_label, sender_of, usual};
use serde_json::{Value, value::RawValue};

use crate::{
    InputReader,
    request::{GivenHeaders, RECEIVED},
};

const SECRET: &str = "c2VjcmV0";
const ACCOUNT: &str = "ZG6NWV";
/// What a request may have beside its signature.
const HEADERS: [&str; 5] = [
    "Content-Type",
    "X-Millicast-Stream-Id",
    "X-Millicast-Feed-Id",
    "X-Millicast-Timestamp",
    "X-Millicast-Token-Id",
];
const REQUIRED: [&str; 6] = ["specversion", "id", "source", "type", "time", "partitionkey"];

/// See the module.
pub fn event(input: &[u8]) {
    let mut input = InputReader::new(input);
    let sender = usual();
    let own_account = (input.below(2) == 1).then_some(ACCOUNT);
    let has_headers = input.byte();
    let mut headers: Vec<_> = (0..)
        .zip(HEADERS)
        .filter(|(at, _)| has_headers >> at & 1 == 1)
        .map(|(_, name)| (name, input.piece().to_vec()))
        .collect();
    let body = Bytes::copy_from_slice(input.rest());
    let secret = Secret::from_base64(SECRET).expect("it is base64");
    let signed = sender.sign(&secret, &body).into_iter();
    headers.extend(signed.map(|(name, value)| (name, value.into_bytes())));
    let headers = GivenHeaders(headers);

    let receive = || {
        let receiver = EndpointReceiver::new(sender, "acme", own_account, vec![secret.clone()]);
        let verified = receiver.verify(headers.request(&body));
        receiver.event(verified.unwrap_or_else(|error| panic!("its own signature: {error}")))
    };
    let event = receive();
    assert_eq!(event, receive());
    assert_eq!((&event.body, event.recorded), (&body, RECEIVED));
    assert_eq!(sender_of(&event).provider(), sender.provider());
    kind_label(&event.kind);
    if own_account.is_some() {
        assert!(event.account.as_deref() == own_account, "{:?}", event.account);
    }
    check_record(&event);
    check_published(&event);
}

fn check_record(event: &Event) {
    let record = event.encode();
    assert_eq!(Event::decode(&record).as_ref(), Ok(event));
    let interest = Event::interest(&record).expect("the record was read");
    let expected = (
        event.id,
        event.kind.as_str(),
        event.endpoint.as_str(),
        event.key.as_str(),
        event.recorded,
    );
    assert_eq!(
        (
            interest.id,
            interest.kind,
            interest.endpoint,
            interest.key,
            interest.recorded
        ),
        expected
    );
    // A record that is cut says so, or has a shorter body.
    let cut = record.slice(..record.len() / 2);
    if let Ok(shorter) = Event::decode(&cut) {
        assert!(shorter.body.len() < event.body.len());
    }
}

fn check_published(event: &Event) {
    assert!(!event.key.is_empty());
    for payload in [RoutePayload::Normalized, RoutePayload::Original] {
        for again in [None, Some(Republication::Replayed), Some(Republication::Redriven)] {
            let stamp = EventStamp {
                provider: sender_of(event).provider(),
                sequence: u64::MAX,
                replica: "replica-0",
                again,
            };
            let structured = render(event, stamp, RenderMode::Structured, data(event, payload));
            let binary = render(event, stamp, RenderMode::Binary, data(event, payload));
            check_binary(event, &binary, payload);
            match structured.attributes.is_empty() {
                true => check_structured(&structured, &binary),
                false => assert_eq!(structured, binary, "what is not structured is binary"),
            }
        }
    }
}

fn check_binary(event: &Event, rendered: &RenderedEvent, payload: RoutePayload) {
    for name in REQUIRED {
        let found = rendered.attributes.iter().filter(|(given, _)| *given == name).count();
        assert_eq!(found, 1, "{name}");
    }
    for (name, value) in &rendered.attributes {
        assert!(
            !value.is_empty() && value.len() <= ATTRIBUTE_BYTES_MAX,
            "{name}: {value:?}"
        );
        assert!(!value.chars().any(char::is_control), "{name}: {value:?}");
    }
    assert!(rendered.content_type.len() <= MEDIA_TYPE_BYTES_MAX);
    if event.content == Content::Json {
        let is_json = serde_json::from_slice::<&RawValue>(&rendered.body).is_ok();
        assert!(is_json, "{}", rendered.body.escape_ascii());
    }
    if payload == RoutePayload::Original {
        assert_eq!(rendered.body, event.body);
    }
}

/// It has what the binary one has.
fn check_structured(rendered: &RenderedEvent, binary: &RenderedEvent) {
    assert_eq!(rendered.content_type, STRUCTURED_CONTENT_TYPE);
    let text = std::str::from_utf8(&rendered.body).expect("JSON is text");
    let members: Vec<(String, Box<RawValue>)> = members(text);
    let (data, attributes) = members.split_last().expect("it has members");
    assert!(matches!(data.0.as_str(), "data" | "data_base64"), "{}", data.0);
    let shown = attributes.iter().map(|(name, value)| {
        let value = match serde_json::from_str(value.get()).expect("it was read") {
            Value::Bool(true) if BOOLEANS.contains(&name.as_str()) => "true".to_owned(),
            Value::String(text) => text,
            other => panic!("{name} is {other}"),
        };
        (name.clone(), value)
    });
    let (types, without_type): (Vec<_>, Vec<_>) = shown.partition(|(name, _)| name == "datacontenttype");
    let [(_, content_type)] = &types[..] else {
        panic!("{} content types: {text}", types.len());
    };
    assert_eq!(*content_type, binary.content_type);
    let of_binary = binary
        .attributes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()));
    assert!(of_binary.eq(without_type), "{text}");
}

/// The members of an object, in their order.
fn members(text: &str) -> Vec<(String, Box<RawValue>)> {
    struct Members;
    impl<'de> serde::de::Visitor<'de> for Members {
        type Value = Vec<(String, Box<RawValue>)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    use serde::de::Deserializer as _;
    let mut json = serde_json::Deserializer::from_str(text);
    let members = json
        .deserialize_map(Members)
        .unwrap_or_else(|error| panic!("{error}: {text}"));
    json.end().unwrap_or_else(|error| panic!("{error}: {text}"));
    members
}
