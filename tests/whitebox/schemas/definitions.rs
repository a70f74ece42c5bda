//! What each kind's event looks like, from which the schemas are made.

#![allow(dead_code, reason = "these are only described, never made")]

use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Number, Value};

/// Every schema with the name of its kind; `event` is what all events have in common.
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("event", of::<Any>("An event", None)),
        ("feeds", of::<With<Feeds>>("A feed began or ended", Some("feeds"))),
        (
            "recordings",
            of::<With<Recordings>>("A recording changed", Some("recordings")),
        ),
        ("media", of::<With<Media>>("A media asset changed", Some("media"))),
        (
            "transcoder",
            of::<With<Transcoder>>("A transcoder changed", Some("transcoder")),
        ),
        (
            "viewerconnection",
            of::<With<ViewerConnection>>("Viewers came or went", Some("viewerconnection")),
        ),
        (
            "thumbnail",
            of::<Any>(
                "The attributes of a picture, which is the message's body",
                Some("thumbnail"),
            ),
        ),
        (
            "unreadable",
            of::<Opaque>("A signed body that is no JSON envelope", Some("unreadable")),
        ),
    ]
}

fn of<T: JsonSchema>(title: &str, kind: Option<&str>) -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(|schema: &mut Schema| one_line(schema)));
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    let pattern = match kind {
        Some("unreadable") => r"^com\.millicast\.unreadable$".to_owned(),
        Some(kind) => format!(r"^com\.millicast\.{kind}\.[a-z0-9-]+$"),
        None => r"^com\.millicast\.[a-z0-9-]+(\.[a-z0-9-]+)?$".to_owned(),
    };
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut).unwrap();
    properties["type"]["pattern"] = pattern.into();
    for attribute in properties.values_mut() {
        never_null(attribute);
    }
    if let Some(data) = properties.get_mut("data").and_then(|data| data.get_mut("properties")) {
        for member in data.as_object_mut().unwrap().values_mut() {
            if member["format"] == "date-time" || member["additionalProperties"] == true {
                never_null(member);
            }
        }
    }
    schema.to_value()
}

/// A description is one line, however the comment is wrapped that it comes from.
fn one_line(schema: &mut Schema) {
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

/// What we write ourselves, an attribute, a time or `envelope`, is there or it is not; it is never null.
fn never_null(schema: &mut Value) {
    if let Some([one, Value::String(null)]) = schema.get("type").and_then(Value::as_array).map(Vec::as_slice)
        && null == "null"
    {
        schema["type"] = one.clone();
    }
}

/// A moment in RFC 3339, in UTC, with milliseconds.
#[derive(JsonSchema)]
#[schemars(extend("format" = "date-time"))]
struct Moment(String);

/// A text that is never empty.
#[derive(JsonSchema)]
struct Text(#[schemars(length(min = 1))] String);

// What every event has. No doc comment: it would become the schema's description.
#[derive(JsonSchema)]
struct Attributes {
    /// The version of CloudEvents.
    #[schemars(extend("const" = "1.0"))]
    specversion: String,
    /// A UUID of the endpoint and the raw body; a duplicate has the same.
    #[schemars(extend("format" = "uuid"))]
    id: String,
    /// `//millicast.com/accounts/` and the account, or `unknown`.
    #[schemars(extend("format" = "uri-reference"))]
    source: String,
    /// The kind and what happened.
    #[serde(rename = "type")]
    type_: String,
    /// The stream, else channel or transcoder, else account, else endpoint.
    subject: Text,
    /// When it happened, where the payload says so, else when it was sent, else when it was taken in.
    time: Moment,
    /// The content type of the data. In binary mode the message's own content type says it.
    datacontenttype: Option<String>,
    /// The key that keeps events of one stream in order: the same as `subject`.
    partitionkey: Text,
    /// The event's number in this replica's log.
    #[schemars(regex(pattern = r"^[0-9]{20}$"))]
    replicasequence: String,
    /// The replica that took the event in; `replicasequence` counts within it.
    replica: Text,
    /// The endpoint that took the event in.
    endpoint: Text,
    /// The account, where it is known.
    account: Option<Text>,
    /// The account that the event itself names, where it is none of the endpoint's. Absent when it is.
    accountclaimed: Option<Text>,
    /// The stream's name.
    streamname: Option<Text>,
    /// The feed: one session of publishing.
    feedid: Option<Text>,
    /// The publishing token of a picture.
    tokenid: Option<Text>,
    /// When the sender says that it sent it.
    senttime: Option<Moment>,
    /// When it was taken in.
    recordedtime: Moment,
    /// How many milliseconds `time` lies behind the newest of the same stream that this replica had seen. Absent when
    /// it does not.
    #[schemars(regex(pattern = r"^[1-9][0-9]*$"))]
    lateby: Option<String>,
    /// The content type that came with what is unreadable, where `datacontenttype` is another.
    contenttypeclaimed: Option<Text>,
    /// The trace that it belongs to, and the span that took it in. Absent when it belongs to none.
    #[schemars(regex(pattern = r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"))]
    traceparent: Option<String>,
    /// It was sent longer ago than the endpoint's replay window. Absent when it was not.
    #[schemars(extend("const" = true))]
    stale: Option<bool>,
    /// An event with the same id came within the endpoint's replay window before it. Absent when none did.
    #[schemars(extend("const" = true))]
    repeated: Option<bool>,
    /// An operator had it published again. Absent otherwise.
    #[schemars(extend("const" = true))]
    replayed: Option<bool>,
    /// It was a dead letter, and an operator had it published. Absent otherwise.
    #[schemars(extend("const" = true))]
    redriven: Option<bool>,
}

/// An event of any kind.
#[derive(JsonSchema)]
struct Any {
    #[serde(flatten)]
    attributes: Attributes,
    /// The data, where it is JSON.
    data: Option<Value>,
    /// The data in base64, where it is not.
    data_base64: Option<String>,
}

#[derive(JsonSchema)]
struct With<D> {
    #[serde(flatten)]
    attributes: Attributes,
    data: D,
}

#[derive(JsonSchema)]
struct Opaque {
    #[serde(flatten)]
    attributes: Attributes,
    /// The body as it came, in base64.
    #[schemars(extend("contentEncoding" = "base64"))]
    data_base64: String,
}

/// What the envelope held and no attribute carries. Absent when there is no such thing.
#[derive(JsonSchema)]
struct Envelope(serde_json::Map<String, Value>);

/// A feed is one session of publishing. A stream is live while any of its feeds is open.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Feeds {
    /// `accountId/streamName`.
    stream_id: String,
    /// The part of `streamId` before the first `/`.
    account_id: String,
    /// Up to 128 characters, any of Unicode; may itself hold `/`.
    stream_name: String,
    /// Another one for each session.
    feed_id: String,
    /// When the feed began.
    started_at: Option<Moment>,
    /// When the feed ended.
    ended_at: Option<Moment>,
    /// Whether the feed is open.
    active: Option<bool>,
    /// The rank among redundant feeds.
    priority: Option<Number>,
    /// The source's name in a stream of several sources.
    source_id: Option<String>,
    /// Can be empty.
    simulcast_id: Option<String>,
    envelope: Option<Envelope>,
}

/// A recording; superseded by media, still sent. It names no account: the attribute `account` does.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Recordings {
    stream_name: String,
    /// As the sender says; it changes between events of one recording.
    recorded_at: Option<Moment>,
    /// When the recording was deleted.
    removed_at: Option<Moment>,
    record_file_id: Option<Number>,
    token_id: Option<Number>,
    /// Of a completed recording: format, sizes, duration, tracks.
    metadata: Option<Value>,
    envelope: Option<Envelope>,
}

/// A clip or recording of a stream, or of a channel.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Media {
    /// `accountId/streamName`; absent for a channel.
    stream_id: Option<String>,
    account_id: Option<String>,
    stream_name: Option<String>,
    /// Where what the asset shows begins.
    started_at: Option<Moment>,
    /// When the asset will be deleted.
    expires_at: Option<Moment>,
    media_asset_id: String,
    /// `clip` or `recording`.
    #[serde(rename = "type")]
    type_: Option<String>,
    channel_id: Option<String>,
    /// A number or a text.
    token_id: Option<Value>,
    metadata: Option<Value>,
    envelope: Option<Envelope>,
}

/// A cloud transcoder.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Transcoder {
    /// When the transcoder was made.
    created_at: Option<Moment>,
    transcoder_id: String,
    transcoder_name: Option<String>,
    cluster: Option<String>,
    /// `Active`, `Shutdown` or `Deleted`.
    status: Option<String>,
    envelope: Option<Envelope>,
}

/// Viewers of a stream.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ViewerConnection {
    /// `accountId/streamName`.
    stream_id: String,
    account_id: String,
    stream_name: String,
    envelope: Option<Envelope>,
}
