//! What a consumer reads, as far as the state of its stream depends on it.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{MediaPhase, RecordingPhase, TranscoderStatus, ViewersStatus};
use forebay_event::Time;

/// An event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEvent {
    /// The attribute `id`, which a duplicate shares.
    pub id: String,
    /// The attribute `partitionkey`: the stream, or what else the event is about.
    pub key: String,
    /// When it happened.
    pub time: Time,
    pub change: Change,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    FeedStarted {
        feed: String,
    },
    FeedEnded {
        feed: String,
    },
    Recording {
        recording: String,
        phase: RecordingPhase,
    },
    Media {
        media: String,
        phase: MediaPhase,
    },
    Transcoder {
        transcoder: String,
        status: TranscoderStatus,
    },
    Viewers {
        status: ViewersStatus,
    },
    /// Nothing that the state of a stream depends on: a picture, a kind or an event that is not known, an id that is
    /// missing.
    None,
}

/// Why a message is not an event as Forebay publishes it. Nothing follows from it for a stream: skip the message, and
/// tell.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("not a structured CloudEvent: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a CloudEvent without the attribute {0}")]
    Missing(&'static str),
    #[error("a CloudEvent whose time is {0:?}, which is not RFC 3339")]
    Time(String),
}

/// The members of a structured event that count. What else there is, is read past.
#[derive(Default, Deserialize)]
struct StructuredEvent<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    type_: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    partitionkey: Option<Cow<'a, str>>,
    #[serde(borrow)]
    feedid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The ids in an event's data.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EventIds {
    #[serde(deserialize_with = "id")]
    record_file_id: Option<String>,
    #[serde(deserialize_with = "id")]
    media_asset_id: Option<String>,
    #[serde(deserialize_with = "id")]
    transcoder_id: Option<String>,
}

impl StreamEvent {
    /// Reads a structured event: a Kafka record's value, or a RabbitMQ message's body, with the content type
    /// `application/cloudevents+json`.
    pub fn from_structured(json: &[u8]) -> Result<Self, ParseError> {
        let event: StructuredEvent<'_> = serde_json::from_slice(json)?;
        event.read(event.data.map(|data| data.get().as_bytes()))
    }

    /// Reads an event in binary mode: its attributes, which are headers of the message, and its data, the message's
    /// body. A name may be bare (`id`) or as a header has it (`ce_id` in Kafka, `cloudEvents:id` or `cloudEvents_id` in
    /// RabbitMQ); other headers may be there too.
    pub fn from_binary<'a>(
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
        data: &[u8],
    ) -> Result<Self, ParseError> {
        let mut event = StructuredEvent::default();
        for (name, value) in attributes {
            let prefix = ["ce_", "cloudEvents:", "cloudEvents_"]
                .into_iter()
                .find(|&prefix| name.starts_with(prefix));
            let place = match &name[prefix.map_or(0, str::len)..] {
                "id" => &mut event.id,
                "type" => &mut event.type_,
                "time" => &mut event.time,
                "partitionkey" => &mut event.partitionkey,
                "feedid" => &mut event.feedid,
                _ => continue,
            };
            *place = Some(Cow::Borrowed(value));
        }
        event.read(Some(data))
    }
}

impl StructuredEvent<'_> {
    fn read(&self, data: Option<&[u8]>) -> Result<StreamEvent, ParseError> {
        let required =
            |value: &Option<Cow<'_, str>>, name| value.as_deref().map(str::to_owned).ok_or(ParseError::Missing(name));
        let time = self.time.as_deref().ok_or(ParseError::Missing("time"))?;
        let type_ = self.type_.as_deref().ok_or(ParseError::Missing("type"))?;
        Ok(StreamEvent {
            id: required(&self.id, "id")?,
            key: required(&self.partitionkey, "partitionkey")?,
            time: Time::from_rfc3339(time).ok_or_else(|| ParseError::Time(time.to_owned()))?,
            change: self.change(type_, data).unwrap_or(Change::None),
        })
    }

    fn change(&self, type_: &str, data: Option<&[u8]>) -> Option<Change> {
        let (rest, event) = type_.rsplit_once('.')?;
        let kind = rest.rsplit('.').next()?;
        let feed = || self.feedid.as_deref().map(str::to_owned);
        let ids = || data.and_then(|data| serde_json::from_slice::<EventIds>(data).ok());
        Some(match (kind, event) {
            ("feeds", "started") => Change::FeedStarted { feed: feed()? },
            ("feeds", "ended") => Change::FeedEnded { feed: feed()? },
            ("recordings", event) => Change::Recording {
                phase: RecordingPhase::of_event(event)?,
                recording: ids()?.record_file_id?,
            },
            ("media", event) => Change::Media {
                phase: MediaPhase::of_event(event)?,
                media: ids()?.media_asset_id?,
            },
            ("transcoder", event) => Change::Transcoder {
                status: TranscoderStatus::of_event(event)?,
                transcoder: ids()?.transcoder_id?,
            },
            ("viewerconnection", event) => Change::Viewers {
                status: ViewersStatus::of_event(event)?,
            },
            _ => return None,
        })
    }
}

/// An id is a text or a number; anything else is none.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value: &RawValue = Deserialize::deserialize(deserializer)?;
    let text = value.get();
    Ok(match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).ok(),
        Some(b'-' | b'0'..=b'9') => Some(text.to_owned()),
        _ => None,
    })
}
