//! What a body says: the envelope, and the facts in its data that make an event's attributes.
//!
//! Each takes one pass over the members, and keeps a fixed number of them.

use std::borrow::Cow;

use forebay_event::{Time, text};

use crate::json::{JsonMember, JsonMembers, JsonValue};

/// The envelope `{"type", "event", "timestamp", "data"}` of everything but pictures.
pub struct WebhookEnvelope<'a> {
    pub kind: String,
    pub name: String,
    pub sent: Option<Time>,
    pub data: Option<JsonValue<'a>>,
    /// The members that neither an attribute nor the data carries.
    pub rest: OtherMembers<'a>,
}

impl<'a> WebhookEnvelope<'a> {
    /// `None`: not a JSON object with a `type` and an `event` that are strings, or one that not every parser reads.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let members = JsonValue::check(body)?.members()?;
        let (found, count) = last_of(members.clone(), ["type", "event", "timestamp", "data"]);
        let [kind, name, timestamp, data] = found;
        let (kind, name) = (kind?, name?);
        let (kind_text, kind_is_lossy) = text::word(&kind.value.string()?);
        let (name_text, name_is_lossy) = text::word(&name.value.string()?);
        let sent = timestamp.and_then(|found| time(found.value));
        let carried = [
            Some(kind).filter(|_| !kind_is_lossy),
            Some(name).filter(|_| !name_is_lossy),
            timestamp.filter(|_| sent.is_some()),
            data,
        ];
        Some(WebhookEnvelope {
            kind: if kind_text == "recording" {
                "recordings".to_owned()
            } else {
                kind_text
            },
            name: name_text,
            sent,
            data: data.map(|found| found.value),
            rest: OtherMembers {
                members,
                count: count - carried.iter().flatten().count(),
                carried: carried.map(|found| found.map(|found| found.index)),
            },
        })
    }
}

/// Members of an envelope, as they came, without those that are carried elsewhere.
#[derive(Clone)]
pub struct OtherMembers<'a> {
    members: JsonMembers<'a>,
    count: usize,
    carried: [Option<usize>; 4],
}

impl<'a> OtherMembers<'a> {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn members(&self) -> impl Iterator<Item = JsonMember<'a>> {
        let carried = self.carried;
        let all = self.members.clone().enumerate();
        all.filter(move |(index, _)| !carried.contains(&Some(*index)))
            .map(|(_, member)| member)
    }
}

/// A member's value, and the member's place among all.
#[derive(Clone, Copy)]
struct FoundMember<'a> {
    index: usize,
    value: JsonValue<'a>,
}

/// The last member of each of these names, which is the one that JSON parsers keep; and how many members there are.
fn last_of<'a, const N: usize>(members: JsonMembers<'a>, names: [&str; N]) -> ([Option<FoundMember<'a>>; N], usize) {
    let (mut found, mut count) = ([None; N], 0);
    for (index, member) in members.enumerate() {
        count = index + 1;
        let name = member.name();
        if let Some(slot) = names.iter().position(|wanted| *wanted == name) {
            found[slot] = Some(FoundMember {
                index,
                value: member.value,
            });
        }
    }
    (found, count)
}

/// What data, or a picture's headers, say of whom an event is about.
#[derive(Debug, Default)]
pub struct EventFacts<'a> {
    pub account: Option<Cow<'a, str>>,
    pub stream_id: Option<Cow<'a, str>>,
    pub stream_name: Option<Cow<'a, str>>,
    pub feed_id: Option<Cow<'a, str>>,
    /// The channel or transcoder.
    pub other_id: Option<Cow<'a, str>>,
    /// When it happened.
    pub time: Option<Time>,
}

impl<'a> EventFacts<'a> {
    /// Of data that is no object nothing is known.
    pub fn from_body(kind: &str, event: &str, data: Option<JsonValue<'a>>) -> Self {
        let Some(members) = data.and_then(JsonValue::members) else {
            return EventFacts::default();
        };
        let names = [
            "accountId",
            "streamId",
            "name",
            "streamName",
            "feedId",
            "channelId",
            "transcoderId",
            "started",
            "ended",
            "removedOn",
        ];
        let [
            account,
            stream_id,
            name,
            stream_name,
            feed_id,
            channel_id,
            transcoder_id,
            times @ ..,
        ] = last_of(members, names).0.map(|found| found.map(|found| found.value));
        let [started, ended, removed] = times;
        let occurred = match (kind, event) {
            ("feeds", "started") => started,
            ("feeds", "ended") => ended,
            ("recordings", "deleted") => removed,
            _ => None,
        };
        let has_name = matches!(kind, "feeds" | "viewerconnection");
        let text = |value: Option<JsonValue<'a>>| value.and_then(JsonValue::text);
        EventFacts {
            account: text(account),
            stream_id: text(stream_id),
            stream_name: text(name.filter(|_| has_name)).or_else(|| text(stream_name)),
            feed_id: text(feed_id),
            other_id: text(channel_id).or_else(|| text(transcoder_id)),
            time: occurred.and_then(time),
        }
    }

    /// The accounts that the event itself names: its own, and that of its stream. Empty: it names none.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        let of_the_stream = self.split_stream_id().0;
        [self.account.as_deref(), of_the_stream].into_iter().flatten()
    }

    /// The account that the event itself names.
    pub fn account(&self) -> Option<&str> {
        self.accounts().next()
    }

    /// The same facts, of no account.
    pub fn without_account(self) -> Self {
        let stream_name = self.stream_name().map(|name| Cow::Owned(name.to_owned()));
        EventFacts {
            account: None,
            stream_id: None,
            stream_name,
            ..self
        }
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
pub fn time(value: JsonValue<'_>) -> Option<Time> {
    Time::parse(&value.scalar()?)
}
