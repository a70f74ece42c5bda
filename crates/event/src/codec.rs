//! An event as the spool stores it.
//!
//! ```text
//! version  u8         1 to 4
//! length   u32, LE    of the header
//! header              postcard of the attributes; version 2: followed by that of `late_by_ms`; version 3: by those of
//!                     `late_by_ms`, which may be absent, and of the trace: its id, the span's id, the flags; version
//!                     4: by those of `late_by_ms` and the trace, either of which may be absent, `account_claimed`,
//!                     which may be absent, `is_stale` and `is_repeated`
//! body                as it came, to the end
//! ```
//!
//! An event is of the lowest version that holds what it has. A new attribute is a new version; all are read for ever.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Content, Event, ProviderNumber, Time, TraceContext};

const VERSION: u8 = 1;
const VERSION_LATE: u8 = 2;
const VERSION_TRACED: u8 = 3;
const VERSION_MARKED: u8 = 4;
const PREFIX_BYTES: usize = 5;
/// What a header takes beside its texts, about.
const HEADER_BYTES_FIXED: usize = 112;

/// Why a record is not an event. The record is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventDecodeError {
    #[error("an event record in format {0}, which this version of Forebay does not know")]
    Version(u8),
    #[error("a truncated event record")]
    Truncated,
    #[error("an event record with a damaged header")]
    Header,
}

/// What a route looks at before it wants an event, read without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventInterest<'a> {
    pub id: Uuid,
    pub kind: &'a str,
    pub endpoint: &'a str,
    pub key: &'a str,
    pub recorded: Time,
}

/// What all versions have. The order of the fields is the format.
#[derive(Serialize, Deserialize)]
struct RecordHeader<'a> {
    id: [u8; 16],
    provider: u8,
    endpoint: &'a str,
    kind: &'a str,
    name: Option<&'a str>,
    key: &'a str,
    account: Option<&'a str>,
    stream_name: Option<&'a str>,
    feed_id: Option<&'a str>,
    token_id: Option<&'a str>,
    time: i64,
    sent: Option<i64>,
    recorded: i64,
    content: u8,
    content_type: Option<&'a str>,
}

/// What follows the header in version 3. The order of the fields is the format.
#[derive(Serialize, Deserialize)]
struct TracedMarks {
    late_by_ms: Option<u64>,
    trace: RecordTrace,
}

/// What follows the header in version 4, and what any version has of it. The order of the fields is the format.
#[derive(Default, Serialize, Deserialize)]
struct RecordMarks<'a> {
    late_by_ms: Option<u64>,
    trace: Option<RecordTrace>,
    account_claimed: Option<&'a str>,
    is_stale: bool,
    is_repeated: bool,
}

/// The order of the fields is the format.
#[derive(Serialize, Deserialize)]
struct RecordTrace {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

impl From<TraceContext> for RecordTrace {
    fn from(context: TraceContext) -> Self {
        Self {
            trace_id: context.trace_id(),
            span_id: context.span_id(),
            flags: context.flags(),
        }
    }
}

impl RecordTrace {
    fn context(&self) -> Result<TraceContext, EventDecodeError> {
        TraceContext::new(self.trace_id, self.span_id, self.flags).ok_or(EventDecodeError::Header)
    }
}

impl Event {
    /// The record of this event.
    pub fn encode(&self) -> Bytes {
        let (content, content_type) = match &self.content {
            Content::Json => (0, None),
            Content::Jpeg => (1, None),
            Content::Opaque(content_type) => (2, Some(content_type.as_str())),
        };
        let header = RecordHeader {
            id: *self.id.as_bytes(),
            provider: self.provider.0,
            endpoint: &self.endpoint,
            kind: &self.kind,
            name: self.name.as_deref(),
            key: &self.key,
            account: self.account.as_deref(),
            stream_name: self.stream_name.as_deref(),
            feed_id: self.feed_id.as_deref(),
            token_id: self.token_id.as_deref(),
            time: self.time.0,
            sent: self.sent.map(|time| time.0),
            recorded: self.recorded.0,
            content,
            content_type,
        };
        let texts = [
            &header.name,
            &header.account,
            &header.stream_name,
            &header.feed_id,
            &header.token_id,
            &header.content_type,
            &self.account_claimed.as_deref(),
        ];
        let texts = texts.into_iter().flatten().map(|text| text.len()).sum::<usize>();
        let header_bytes = HEADER_BYTES_FIXED + header.endpoint.len() + header.kind.len() + header.key.len() + texts;
        let mut record = Vec::with_capacity(PREFIX_BYTES + header_bytes + self.body.len());
        record.extend_from_slice(&[self.version(), 0, 0, 0, 0]);
        let record = extended(record, &header);
        let mut record = match (self.version(), self.trace, self.late_by_ms) {
            (VERSION_MARKED, trace, late_by_ms) => {
                let marked = RecordMarks {
                    late_by_ms,
                    trace: trace.map(RecordTrace::from),
                    account_claimed: self.account_claimed.as_deref(),
                    is_stale: self.is_stale,
                    is_repeated: self.is_repeated,
                };
                extended(record, &marked)
            }
            (_, Some(trace), late_by_ms) => {
                let trace = trace.into();
                extended(record, &TracedMarks { late_by_ms, trace })
            }
            (_, None, Some(late_by_ms)) => extended(record, &late_by_ms),
            (_, None, None) => record,
        };
        let length = u32::try_from(record.len() - PREFIX_BYTES).expect("attributes are far below 4 GiB");
        record[1..PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
        record.extend_from_slice(&self.body);
        record.into()
    }

    /// The lowest version that holds what this event has.
    fn version(&self) -> u8 {
        let is_marked = self.account_claimed.is_some() || self.is_stale || self.is_repeated;
        match (is_marked, self.trace, self.late_by_ms) {
            (true, _, _) => VERSION_MARKED,
            (false, Some(_), _) => VERSION_TRACED,
            (false, None, Some(_)) => VERSION_LATE,
            (false, None, None) => VERSION,
        }
    }

    /// Reads a record. The event's body shares the record's memory.
    pub fn decode(record: &Bytes) -> Result<Self, EventDecodeError> {
        RecordedEvent::read(record)?.event()
    }

    /// Reads only what a route looks at before it wants the event.
    pub fn interest(record: &[u8]) -> Result<EventInterest<'_>, EventDecodeError> {
        let (header, ..) = header(record)?;
        Ok(header.interest())
    }
}

/// A record of which the header was read, and nothing copied.
pub struct RecordedEvent<'a> {
    record: &'a Bytes,
    header: RecordHeader<'a>,
    marked: RecordMarks<'a>,
    body_offset: usize,
}

impl<'a> RecordedEvent<'a> {
    pub fn read(record: &'a Bytes) -> Result<Self, EventDecodeError> {
        let (header, marked, body_offset) = header(record)?;
        Ok(Self {
            record,
            header,
            marked,
            body_offset,
        })
    }

    /// What a route looks at before it wants the event.
    pub fn interest(&self) -> EventInterest<'a> {
        self.header.interest()
    }

    /// The event. Its body shares the record's memory.
    pub fn event(self) -> Result<Event, EventDecodeError> {
        let Self { header, marked, .. } = self;
        Ok(Event {
            id: Uuid::from_bytes(header.id),
            provider: ProviderNumber(header.provider),
            endpoint: header.endpoint.to_owned(),
            kind: header.kind.to_owned(),
            name: header.name.map(str::to_owned),
            key: header.key.to_owned(),
            account: header.account.map(str::to_owned),
            account_claimed: marked.account_claimed.map(str::to_owned),
            stream_name: header.stream_name.map(str::to_owned),
            feed_id: header.feed_id.map(str::to_owned),
            token_id: header.token_id.map(str::to_owned),
            time: Time(header.time),
            sent: header.sent.map(Time),
            recorded: Time(header.recorded),
            late_by_ms: marked.late_by_ms,
            is_stale: marked.is_stale,
            is_repeated: marked.is_repeated,
            trace: marked.trace.map(|trace| trace.context()).transpose()?,
            content: match (header.content, header.content_type) {
                (0, None) => Content::Json,
                (1, None) => Content::Jpeg,
                (2, Some(content_type)) => Content::Opaque(content_type.to_owned()),
                _ => return Err(EventDecodeError::Header),
            },
            body: self.record.slice(self.body_offset..),
        })
    }
}

impl<'a> RecordHeader<'a> {
    fn interest(&self) -> EventInterest<'a> {
        EventInterest {
            id: Uuid::from_bytes(self.id),
            key: self.key,
            kind: self.kind,
            endpoint: self.endpoint,
            recorded: Time(self.recorded),
        }
    }
}

fn extended<T: Serialize>(record: Vec<u8>, value: &T) -> Vec<u8> {
    postcard::to_extend(value, record).expect("plain values are always serialized")
}

fn read_part<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), EventDecodeError> {
    postcard::take_from_bytes(bytes).map_err(|_| EventDecodeError::Header)
}

/// The header of a record, what its version adds to it, and where its body starts.
fn header(record: &[u8]) -> Result<(RecordHeader<'_>, RecordMarks<'_>, usize), EventDecodeError> {
    let version = match record.first() {
        None => return Err(EventDecodeError::Truncated),
        Some(&version @ VERSION..=VERSION_MARKED) => version,
        Some(&version) => return Err(EventDecodeError::Version(version)),
    };
    let length = record[1..].first_chunk::<4>().ok_or(EventDecodeError::Truncated)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| EventDecodeError::Truncated)?;
    let bytes = record[PREFIX_BYTES..]
        .get(..length)
        .ok_or(EventDecodeError::Truncated)?;
    let (header, rest) = read_part(bytes)?;
    let (marked, rest) = match version {
        VERSION_LATE => {
            let (late_by_ms, rest) = read_part(rest)?;
            let marked = RecordMarks {
                late_by_ms: Some(late_by_ms),
                ..RecordMarks::default()
            };
            (marked, rest)
        }
        VERSION_TRACED => {
            let (TracedMarks { late_by_ms, trace }, rest) = read_part(rest)?;
            let marked = RecordMarks {
                late_by_ms,
                trace: Some(trace),
                ..RecordMarks::default()
            };
            (marked, rest)
        }
        VERSION_MARKED => read_part(rest)?,
        _ => (RecordMarks::default(), rest),
    };
    match rest {
        [] => Ok((header, marked, PREFIX_BYTES + length)),
        _ => Err(EventDecodeError::Header),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event() -> impl Strategy<Value = Event> {
        let text = || any::<String>();
        let maybe = || proptest::option::of(any::<String>());
        let content = prop_oneof![
            Just(Content::Json),
            Just(Content::Jpeg),
            any::<String>().prop_map(Content::Opaque)
        ];
        (
            (
                any::<[u8; 16]>(),
                text(),
                text(),
                maybe(),
                text(),
                maybe(),
                maybe(),
                maybe(),
                maybe(),
                maybe(),
            ),
            (
                any::<bool>(),
                any::<bool>(),
                any::<i64>(),
                proptest::option::of(any::<i64>()),
                any::<i64>(),
                proptest::option::of(any::<u64>()),
                proptest::option::of(any::<([u8; 16], [u8; 8], u8)>()),
                content,
                any::<Vec<u8>>(),
            ),
        )
            .prop_map(
                |(
                    (id, endpoint, kind, name, key, account, account_claimed, stream_name, feed_id, token_id),
                    (is_stale, is_repeated, time, sent, recorded, late_by_ms, trace, content, body),
                )| Event {
                    id: Uuid::from_bytes(id),
                    provider: ProviderNumber(0),
                    endpoint,
                    kind,
                    name,
                    key,
                    account,
                    account_claimed,
                    stream_name,
                    feed_id,
                    token_id,
                    time: Time(time),
                    sent: sent.map(Time),
                    recorded: Time(recorded),
                    late_by_ms,
                    is_stale,
                    is_repeated,
                    trace: trace.and_then(|(trace, span, flags)| TraceContext::new(trace, span, flags)),
                    content,
                    body: body.into(),
                },
            )
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_without_a_copy_of_the_body(event in event()) {
            let record = event.encode();
            let decoded = Event::decode(&record).unwrap();
            prop_assert_eq!(&decoded, &event);
            prop_assert_eq!(decoded.body.as_ptr_range().end, record.as_ptr_range().end);
            let interest = Event::interest(&record).unwrap();
            let expected = EventInterest {
                id: event.id,
                kind: &event.kind,
                endpoint: &event.endpoint,
                key: &event.key,
                recorded: event.recorded,
            };
            prop_assert_eq!(interest, expected);
        }

        #[test]
        fn no_bytes_make_decode_panic(bytes: Vec<u8>, version in proptest::option::of(VERSION..=VERSION_MARKED)) {
            let mut bytes = bytes;
            if let (Some(version), Some(first)) = (version, bytes.first_mut()) {
                *first = version;
            }
            let _ = Event::decode(&bytes.into());
        }

        #[test]
        fn a_damaged_record_never_makes_decode_panic(event in event(), at: proptest::sample::Index, to: u8) {
            let mut bytes = event.encode().to_vec();
            let index = at.index(bytes.len());
            bytes[index] = to;
            let _ = Event::decode(&bytes.clone().into());
            bytes.truncate(index);
            let _ = Event::decode(&bytes.into());
        }
    }

    #[test]
    fn records_of_every_version_are_read_for_ever() {
        let version_1 = Bytes::from_static(
            b"\x01S\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x04acme\x05feeds\x01\x07started\x03A/s\x01\x01A\x01\x01s\
              \x01\x01f\0\xae\xe6\xc5\xc0\xaf_\x01\xb2\xe8\xc5\xc0\xaf_\xe0\xe8\xc5\xc0\xaf_\x02\x01\ntext/plainbody",
        );
        let version_2 = Bytes::from_static(
            b"\x02U\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x04acme\x05feeds\x01\x07started\x03A/s\x01\x01A\x01\x01s\
              \x01\x01f\0\xae\xe6\xc5\xc0\xaf_\x01\xb2\xe8\xc5\xc0\xaf_\xe0\xe8\xc5\xc0\xaf_\x02\x01\ntext/plain\xac\x02body",
        );
        let version_3 = Bytes::from_static(
            b"\x03m\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x04acme\x05feeds\x01\x07started\x03A/s\x01\x01A\x01\x01s\
              \x01\x01f\0\xae\xe6\xc5\xc0\xaf_\x01\xb2\xe8\xc5\xc0\xaf_\xe0\xe8\xc5\xc0\xaf_\x02\x01\ntext/plain\0\
              \x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x01body",
        );
        let version_3_late = Bytes::from_static(
            b"\x03o\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x04acme\x05feeds\x01\x07started\x03A/s\x01\x01A\x01\x01s\
              \x01\x01f\0\xae\xe6\xc5\xc0\xaf_\x01\xb2\xe8\xc5\xc0\xaf_\xe0\xe8\xc5\xc0\xaf_\x02\x01\ntext/plain\x01\xac\x02\
              \x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x01body",
        );
        let version_4 = Bytes::from_static(
            b"\x04Z\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x04acme\x05feeds\x01\x07started\x03A/s\x01\x01A\x01\x01s\
              \x01\x01f\0\xae\xe6\xc5\xc0\xaf_\x01\xb2\xe8\xc5\xc0\xaf_\xe0\xe8\xc5\xc0\xaf_\x02\x01\ntext/plain\0\0\
              \x01\x01B\0\x01body",
        );
        let version_4_late = Bytes::from_static(
            b"\x04s\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x04acme\x05feeds\x01\x07started\x03A/s\x01\x01A\x01\x01s\
              \x01\x01f\0\xae\xe6\xc5\xc0\xaf_\x01\xb2\xe8\xc5\xc0\xaf_\xe0\xe8\xc5\xc0\xaf_\x02\x01\ntext/plain\x01\xac\x02\
              \x01\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x01\
              \0\x01\0body",
        );
        let in_order = Event {
            id: Uuid::from_u128(1),
            provider: ProviderNumber(0),
            endpoint: "acme".to_owned(),
            kind: "feeds".to_owned(),
            name: Some("started".to_owned()),
            key: "A/s".to_owned(),
            account: Some("A".to_owned()),
            account_claimed: None,
            stream_name: Some("s".to_owned()),
            feed_id: Some("f".to_owned()),
            token_id: None,
            time: Time(1_638_463_486_359),
            sent: Some(Time(1_638_463_486_489)),
            recorded: Time(1_638_463_486_512),
            late_by_ms: None,
            is_stale: false,
            is_repeated: false,
            trace: None,
            content: Content::Opaque("text/plain".to_owned()),
            body: Bytes::from_static(b"body"),
        };
        let late = Event {
            late_by_ms: Some(300),
            ..in_order.clone()
        };
        let trace = TraceContext::parse(b"00-0102030405060708090a0b0c0d0e0f10-1112131415161718-01");
        let traced = Event {
            trace,
            ..in_order.clone()
        };
        let traced_and_late = Event { trace, ..late.clone() };
        let marked = Event {
            account_claimed: Some("B".to_owned()),
            is_repeated: true,
            ..in_order.clone()
        };
        let marked_traced_and_late = Event {
            is_stale: true,
            ..traced_and_late.clone()
        };
        for (record, event) in [
            (version_1, in_order),
            (version_2, late),
            (version_3, traced),
            (version_3_late, traced_and_late),
            (version_4, marked),
            (version_4_late, marked_traced_and_late),
        ] {
            assert_eq!(Event::decode(&record).as_ref(), Ok(&event));
            assert_eq!(event.encode(), record);
        }
    }

    #[test]
    fn a_record_of_a_later_format_is_named_as_such() {
        assert_eq!(
            Event::decode(&Bytes::from_static(&[5, 0, 0])),
            Err(EventDecodeError::Version(5))
        );
        assert_eq!(Event::decode(&Bytes::new()), Err(EventDecodeError::Truncated));
    }
}
