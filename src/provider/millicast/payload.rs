//! What a body says: the envelope, and the facts in its data that make an event's attributes.

use std::borrow::Cow;

use crate::{
    event::{Time, text},
    provider::json::{self, Member, Object},
};

/// The envelope `{"type", "event", "timestamp", "data"}` of everything but pictures.
pub struct Envelope<'a> {
    pub kind: String,
    pub name: String,
    pub sent: Option<Time>,
    pub data: Option<&'a str>,
    /// The members that neither an attribute nor the data carries, as they came.
    pub rest: Vec<Member<'a>>,
}

impl<'a> Envelope<'a> {
    /// `None`: not a JSON object with a `type` and an `event` that are strings.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let Object(mut members) = Object::parse(str::from_utf8(body).ok()?)?;
        let mut extract = |name| {
            let index = members.iter().rposition(|member| member.name == name)?;
            Some(members.remove(index))
        };
        let (kind_member, name_member) = (extract("type")?, extract("event")?);
        let (timestamp, data) = (extract("timestamp"), extract("data"));

        let (kind, kind_lossy) = text::word(&json::string(kind_member.value)?);
        let (name, name_lossy) = text::word(&json::string(name_member.value)?);
        let sent = timestamp.as_ref().and_then(|member| time(member.value));
        members.extend(kind_lossy.then_some(kind_member));
        members.extend(name_lossy.then_some(name_member));
        members.extend(timestamp.filter(|_| sent.is_none()));
        Some(Envelope {
            kind: if kind == "recording" {
                "recordings".to_owned()
            } else {
                kind
            },
            name,
            sent,
            data: data.map(|member| member.value),
            rest: members,
        })
    }
}

/// What data, or a picture's headers, say of whom an event is about.
#[derive(Debug, Default)]
pub struct Facts<'a> {
    pub account: Option<Cow<'a, str>>,
    pub stream_id: Option<Cow<'a, str>>,
    pub stream_name: Option<Cow<'a, str>>,
    pub feed_id: Option<Cow<'a, str>>,
    /// The channel or transcoder.
    pub other_id: Option<Cow<'a, str>>,
    /// When it happened.
    pub time: Option<Time>,
}

impl<'a> Facts<'a> {
    pub fn of(kind: &str, name: &str, data: &Object<'a>) -> Self {
        let stream_name = match kind {
            "feeds" | "viewerconnection" => data.text("name").or_else(|| data.text("streamName")),
            _ => data.text("streamName"),
        };
        let occurred = match (kind, name) {
            ("feeds", "started") => Some("started"),
            ("feeds", "ended") => Some("ended"),
            ("recordings", "deleted") => Some("removedOn"),
            _ => None,
        };
        Facts {
            account: data.text("accountId"),
            stream_id: data.text("streamId"),
            stream_name,
            feed_id: data.text("feedId"),
            other_id: data.text("channelId").or_else(|| data.text("transcoderId")),
            time: occurred.and_then(|member| data.value(member)).and_then(time),
        }
    }

    /// The account that the event itself names.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref().or_else(|| self.split_stream_id().0)
    }

    /// The stream's name, from wherever the event has it.
    pub fn stream_name(&self) -> Option<&str> {
        self.stream_name.as_deref().or_else(|| self.split_stream_id().1)
    }

    /// The stream key: the stream, else channel or transcoder, else `account`, else nothing.
    pub fn key(&self, account: Option<&str>) -> Option<Cow<'_, str>> {
        let named = |name| Cow::Owned(format!("{}/{name}", account.unwrap_or("unknown")));
        match self.split_stream_id() {
            (Some(_), Some(_)) => self.stream_id.as_deref().map(Cow::Borrowed),
            (None, Some(name)) => Some(named(name)),
            (_, None) => (self.stream_name.as_deref().map(named))
                .or(self.other_id.as_deref().map(Cow::Borrowed))
                .or(account.map(|account| Cow::Owned(account.to_owned()))),
        }
    }

    /// Account and stream name; a stream's name may itself hold `/`.
    fn split_stream_id(&self) -> (Option<&str>, Option<&str>) {
        self.stream_id.as_deref().map_or((None, None), split_stream_id)
    }
}

/// Splits `accountId/streamName` at the first `/`; without one it is a name. Empty parts are none.
pub fn split_stream_id(stream_id: &str) -> (Option<&str>, Option<&str>) {
    let (account, name) = stream_id.split_once('/').unwrap_or(("", stream_id));
    (
        Some(account).filter(|part| !part.is_empty()),
        Some(name).filter(|part| !part.is_empty()),
    )
}

/// A time in JSON: a number, or a text that [`Time::parse`] reads.
pub fn time(value: &str) -> Option<Time> {
    Time::parse(&json::scalar(value)?)
}
