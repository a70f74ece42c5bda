//! Which events an operator means.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{DeadLetter, sizes::RouteSizes};
use crate::{
    config::EventMatch,
    event::{Event, EventInterest},
    spool::{LogQuery, ReadError, Spool, WantedRecords},
};

/// All events that meet each of these conditions; one that is empty is met by all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventSelection {
    /// Accepted at or after then; of a dead letter: set aside. Milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_ms: Option<i64>,
    /// Before then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_ms: Option<i64>,
    /// Stream keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// Of events; a dead letter's number in its route's log is one too.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub ids: BTreeSet<String>,
    /// Why a dead letter is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

impl EventSelection {
    /// Whether it is everything.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// What of it an index of the log knows.
    pub(super) fn query(&self) -> LogQuery {
        LogQuery {
            keys: self.streams.clone(),
            kinds: self.kinds.clone(),
            from_ms: self.from_ms,
            to_ms: self.to_ms,
        }
    }

    fn is_among(list: &[String], word: &str) -> bool {
        list.is_empty() || list.iter().any(|one| one == word)
    }

    fn is_within(&self, at_ms: i64) -> bool {
        self.from_ms.is_none_or(|from| at_ms >= from) && self.to_ms.is_none_or(|to| at_ms < to)
    }

    fn is_of(&self, key: &str, kind: &str, endpoint: &str) -> bool {
        Self::is_among(&self.streams, key)
            && Self::is_among(&self.kinds, kind)
            && Self::is_among(&self.endpoints, endpoint)
    }

    fn has_id(&self, id: Uuid) -> bool {
        let mut text = Uuid::encode_buffer();
        self.ids.is_empty() || self.ids.contains(&*id.hyphenated().encode_lower(&mut text))
    }

    /// Whether an event of the log is meant.
    pub fn has_event(&self, event: EventInterest<'_>) -> bool {
        self.is_within(event.recorded.0) && self.is_of(event.key, event.kind, event.endpoint) && self.has_id(event.id)
    }

    /// Whether a record of the log is an event that is meant, of those that a route wants.
    pub(super) fn of_route(&self, matches: &EventMatch) -> WantedRecords {
        let (matches, selection) = (matches.clone(), self.clone());
        Arc::new(move |record: &[u8]| {
            let event = Event::interest(record);
            event.is_ok_and(|event| matches.accepts(event.kind, event.endpoint) && selection.has_event(event))
        })
    }

    /// Whether a dead letter is meant, which has this number among those of its route. One of which the event cannot be
    /// read is of no stream, kind or endpoint.
    pub fn has_letter(&self, number: u64, letter: &DeadLetter) -> bool {
        let is_meant = self.is_within(letter.at_ms) && Self::is_among(&self.reasons, &letter.reason);
        let is_numbered = !self.ids.is_empty() && self.ids.contains(&number.to_string());
        is_meant
            && match Event::interest(&letter.record) {
                Ok(event) => {
                    self.is_of(event.key, event.kind, event.endpoint) && (is_numbered || self.has_id(event.id))
                }
                Err(_) => {
                    (self.ids.is_empty() || is_numbered)
                        && [&self.streams, &self.kinds, &self.endpoints]
                            .iter()
                            .all(|list| list.is_empty())
                }
            }
    }
}

/// How many events of the log, up to a number, are meant, of those that a route wants.
///
/// # Errors
///
/// The log cannot be read.
pub async fn count_selected(
    spool: &Spool,
    matches: &EventMatch,
    selection: &EventSelection,
    last: u64,
) -> Result<u64, ReadError> {
    let sizes = RouteSizes::now();
    let is_meant = selection.of_route(matches);
    let mut reader = spool.reader_of_query(1, is_meant.clone(), selection.query());
    let (mut count, mut through, mut read) = (0, 0, Vec::new());
    while through < last {
        through = reader
            .next(sizes.read_records_max, sizes.read_bytes_max, &mut read)
            .await?;
        let meant = read
            .drain(..)
            .filter(|record| record.sequence <= last && is_meant(&record.bytes));
        count += meant.count() as u64;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::event::Time;

    fn interest() -> EventInterest<'static> {
        EventInterest {
            id: Uuid::from_u128(7),
            kind: "feeds",
            endpoint: "acme",
            key: "a/b",
            recorded: Time(1000),
        }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn each_condition_must_be_met_and_an_empty_one_is() {
        let all = EventSelection::default();
        assert!(all.is_all() && all.has_event(interest()));
        let id = Uuid::from_u128(7).to_string();
        let met = EventSelection {
            from_ms: Some(1000),
            to_ms: Some(1001),
            streams: words(&["x", "a/b"]),
            kinds: words(&["feeds"]),
            endpoints: words(&["acme"]),
            ids: BTreeSet::from([id]),
            reasons: Vec::new(),
        };
        assert!(!met.is_all() && met.has_event(interest()));
        let changes: [fn(&mut EventSelection); 6] = [
            |one| one.from_ms = Some(1001),
            |one| one.to_ms = Some(1000),
            |one| one.streams = words(&["a"]),
            |one| one.kinds = words(&["media"]),
            |one| one.endpoints = words(&["other"]),
            |one| one.ids = BTreeSet::from(["7".to_owned()]),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut other = met.clone();
            change(&mut other);
            assert!(!other.has_event(interest()), "{at}");
        }
    }

    #[test]
    fn a_dead_letter_is_meant_by_reason_time_of_refusal_and_number() {
        let letter = DeadLetter {
            route: "events".into(),
            sequence: 9,
            reason: "too_large".into(),
            text: String::new(),
            at_ms: 5000,
            attempts: 1,
            record: Bytes::from_static(b"no event"),
        };
        assert!(EventSelection::default().has_letter(3, &letter));
        let by = |selection: EventSelection| selection.has_letter(3, &letter);
        let reasons = |reason: &str| EventSelection {
            reasons: words(&[reason]),
            ..EventSelection::default()
        };
        assert!(by(reasons("too_large")) && !by(reasons("other")));
        let ids = |id: &str| EventSelection {
            ids: BTreeSet::from([id.to_owned()]),
            ..EventSelection::default()
        };
        assert!(by(ids("3")) && !by(ids("9")));
        let stream = EventSelection {
            streams: words(&["a/b"]),
            ..EventSelection::default()
        };
        assert!(!by(stream), "what cannot be read is of no stream");
        let later = EventSelection {
            from_ms: Some(5001),
            ..EventSelection::default()
        };
        assert!(!by(later));
    }
}
