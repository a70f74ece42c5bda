//! Renders an event as a CloudEvent, structured or binary.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;

use super::{Content, Event, Provider, text};

/// How a CloudEvent travels in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RenderMode {
    /// One self-contained JSON text.
    Structured,
    /// Attributes as headers, the data as the body.
    Binary,
}

/// An event's data, as its provider's module rendered it for a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventData {
    /// A JSON text.
    Json(Bytes),
    /// Bytes of another content type.
    Binary(Bytes),
}

/// What an event does not know of itself: its place in the spool, and how its sender's events are named.
#[derive(Debug, Clone, Copy)]
pub struct EventStamp<'a> {
    pub provider: &'a Provider,
    pub sequence: u64,
    pub replica: &'a str,
    /// It was published before.
    pub again: Option<Republication>,
}

/// Why an event is published that was published before, or was to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Republication {
    /// An operator asked for it once more.
    Replayed,
    /// It was a dead letter.
    Redriven,
}

impl Republication {
    /// The attribute, and header, that is `true`.
    pub fn attribute(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Redriven => "redriven",
        }
    }
}

/// A CloudEvent, ready to be put into a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedEvent {
    pub content_type: Cow<'static, str>,
    /// In binary mode every CloudEvents attribute but `datacontenttype`, by its bare name; in structured mode none.
    pub attributes: Vec<(&'static str, String)>,
    pub body: Bytes,
}

/// The content type of a structured event.
pub const STRUCTURED_CONTENT_TYPE: &str = "application/cloudevents+json; charset=UTF-8";

/// The most data that goes into a structured event in base64, which makes a text of 20,000,000 characters of it:
/// Jackson reads no longer one.
pub const DATA_BASE64_BYTES_MAX: usize = 15_000_000;

/// The attributes that are Booleans. In binary mode they are the text `true`, like the headers that they are.
pub const BOOLEANS: [&str; 4] = ["stale", "repeated", "replayed", "redriven"];

/// Renders `event` with `data`. A picture is always binary, and so is data that base64 would make too long.
pub fn render(event: &Event, stamp: EventStamp<'_>, mode: RenderMode, data: EventData) -> RenderedEvent {
    let content_type = content_type(&event.content);
    let (EventData::Json(body) | EventData::Binary(body)) = &data;
    let is_too_large = matches!(data, EventData::Binary(_)) && body.len() > DATA_BASE64_BYTES_MAX;
    if mode == RenderMode::Binary || event.content == Content::Jpeg || is_too_large {
        let mut attributes = Vec::with_capacity(16);
        each_attribute(event, stamp, |name, value| attributes.push((name, value.into_text())));
        return RenderedEvent {
            content_type,
            attributes,
            body: body.clone(),
        };
    }
    RenderedEvent {
        content_type: Cow::Borrowed(STRUCTURED_CONTENT_TYPE),
        attributes: Vec::new(),
        body: structured(event, stamp, &content_type, &data),
    }
}

/// What stands around the data of a structured event: its name, quotes, the end of the object.
const DATA_BYTES_AROUND: usize = 32;

fn structured(event: &Event, stamp: EventStamp<'_>, content_type: &str, data: &EventData) -> Bytes {
    let data_bytes = match data {
        EventData::Json(bytes) => bytes.len(),
        EventData::Binary(bytes) => bytes.len().div_ceil(3) * 4,
    };
    let mut json = Vec::with_capacity(1024);
    json.push(b'{');
    each_attribute(event, stamp, |name, value| {
        member(&mut json, name, &value);
        if name == "time" {
            member(&mut json, "datacontenttype", &AttributeValue::Text(content_type.into()));
        }
    });
    // Once, and no more: it may be the most of the event by far.
    json.reserve_exact(data_bytes + DATA_BYTES_AROUND);
    match data {
        EventData::Json(bytes) => {
            json.extend_from_slice(b"\"data\":");
            json.extend_from_slice(bytes);
        }
        EventData::Binary(bytes) => {
            json.extend_from_slice(b"\"data_base64\":\"");
            let start = json.len();
            json.resize(start + data_bytes, 0);
            let written = STANDARD.encode_slice(bytes, &mut json[start..]);
            written.expect("base64 takes four bytes for every three");
            json.push(b'"');
        }
    }
    json.push(b'}');
    json.into()
}

/// The value of an attribute.
enum AttributeValue<'a> {
    Text(Cow<'a, str>),
    True,
}

impl AttributeValue<'_> {
    /// As a header has it.
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text.into_owned(),
            Self::True => "true".to_owned(),
        }
    }
}

/// Every attribute but `datacontenttype`, in the order in which a structured event has them.
fn each_attribute<'a>(event: &'a Event, stamp: EventStamp<'a>, mut each: impl FnMut(&'static str, AttributeValue<'a>)) {
    let mut attribute = |name, text: Cow<'a, str>| each(name, AttributeValue::Text(text));
    attribute("specversion", "1.0".into());
    attribute("id", event.id.hyphenated().to_string().into());
    attribute("source", event.source(stamp.provider).into());
    attribute("type", event.type_(stamp.provider).into());
    attribute("subject", event.key.as_str().into());
    attribute("time", event.time.to_rfc3339().into());
    attribute("partitionkey", event.key.as_str().into());
    attribute("replicasequence", format!("{:020}", stamp.sequence).into());
    attribute("replica", text::attribute(stamp.replica));
    attribute("endpoint", event.endpoint.as_str().into());
    let optional = [
        ("account", &event.account),
        ("accountclaimed", &event.account_claimed),
        ("streamname", &event.stream_name),
        ("feedid", &event.feed_id),
        ("tokenid", &event.token_id),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            attribute(name, value.as_str().into());
        }
    }
    if let Some(sent) = event.sent {
        attribute("senttime", sent.to_rfc3339().into());
    }
    attribute("recordedtime", event.recorded.to_rfc3339().into());
    if let Some(late_by_ms) = event.late_by_ms {
        attribute("lateby", late_by_ms.to_string().into());
    }
    if let Some(claimed) = content_type_claimed(&event.content) {
        attribute("contenttypeclaimed", claimed.into());
    }
    if let Some(trace) = event.trace {
        attribute("traceparent", trace.to_string().into());
    }
    let is_again = |why| stamp.again == Some(why);
    let marks = [
        event.is_stale,
        event.is_repeated,
        is_again(Republication::Replayed),
        is_again(Republication::Redriven),
    ];
    for (name, is_marked) in BOOLEANS.into_iter().zip(marks) {
        if is_marked {
            each(name, AttributeValue::True);
        }
    }
}

/// Appends `"name":value,`.
fn member(json: &mut Vec<u8>, name: &str, value: &AttributeValue<'_>) {
    json.push(b'"');
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":");
    match value {
        AttributeValue::Text(text) => text::write_json(json, text),
        AttributeValue::True => json.extend_from_slice(b"true"),
    }
    json.push(b',');
}

const OCTET_STREAM: &str = "application/octet-stream";

/// The content type of the data: the sender's own only where no parser can stumble over it.
fn content_type(content: &Content) -> Cow<'static, str> {
    match content {
        Content::Json => Cow::Borrowed("application/json"),
        Content::Jpeg => Cow::Borrowed("image/jpeg"),
        Content::Opaque(claimed) if is_sound(claimed) => Cow::Owned(claimed.clone()),
        Content::Opaque(_) => Cow::Borrowed(OCTET_STREAM),
    }
}

/// The content type that the sender gave the body, where the data has another one.
fn content_type_claimed(content: &Content) -> Option<&str> {
    match content {
        Content::Opaque(claimed) if claimed != OCTET_STREAM && !is_sound(claimed) => Some(claimed),
        _ => None,
    }
}

/// Whether data that is no JSON may have this content type. As `application/cloudevents+json` a consumer would take the
/// body for the event, with an id, a source and a type of the sender's choice; as JSON it would parse what cannot be
/// parsed.
fn is_sound(claimed: &str) -> bool {
    let essence = text::essence(claimed).to_ascii_lowercase();
    let is_json = essence.ends_with("/json") || essence.ends_with("+json");
    text::is_media_type(claimed) && !is_json && !essence.starts_with("application/cloudevents")
}
