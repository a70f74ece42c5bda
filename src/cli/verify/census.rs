//! What is wrong with the events of one route, found while they are read.
//!
//! Memory: of every event its id (16 bytes) and, until its neighbours were read, its number; of every stream its key,
//! its place and two numbers and a time for each replica. About 100 bytes an event.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{VerifyPart, numbers::SeenNumbers, schemas::EventSchemas};
use crate::{cli::tail::ShownMessage, event::Time, sink::ReadPlace};

/// How many of a kind of mistake are shown.
const SHOWN_MAX: usize = 5;
/// Types of events that are told apart.
const TYPES_MAX: usize = 100;
/// Fewer records of a type say nothing of why they stand twice.
const REPEATED_RECORDS_MIN: u64 = 10;

/// The attribute that has an event's number.
const SEQUENCE: &str = "replicasequence";
/// Its name in events that earlier builds published, which a topic may still hold.
const SEQUENCE_BEFORE: &str = "sequence";

/// The attributes of an event that an operator had published again.
const AGAIN: [&str; 2] = ["replayed", "redriven"];

/// Mistakes of one kind: how many, and the first of them in words.
#[derive(Debug, Default, Clone)]
pub struct CensusMistakes {
    pub count: u64,
    pub shown: Vec<String>,
}

impl CensusMistakes {
    fn note(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(text());
        }
    }
}

/// All that is known of a route's events.
#[derive(Debug, Default)]
pub struct EventCensus {
    pub name: String,
    /// The data is the body as it came: no schema says what is in it.
    pub is_original: bool,
    /// A reorder window put the events of a stream in the order of their times.
    pub is_reordered: bool,
    pub events: u64,
    /// Of a record of the spool that was there before.
    pub repeats: u64,
    /// Of another record, with the id of an earlier event.
    pub duplicates: u64,
    /// Published again by an operator (`replayed`, `redriven`): at another place than their own.
    pub published_again: u64,
    pub late: u64,
    pub late_ms_max: u64,
    /// Steps back of the sequence that the events' times explain.
    pub reordered: u64,
    pub several_partitions: CensusMistakes,
    pub steps_back: CensusMistakes,
    pub clashes: CensusMistakes,
    pub violations: CensusMistakes,
    pub no_events: CensusMistakes,
    streams: HashMap<String, StreamCensus>,
    ids: HashSet<Uuid>,
    replicas: BTreeMap<String, ReplicaCensus>,
    places: HashMap<String, u32>,
    types: BTreeMap<String, OfType>,
}

/// How many records there are of a type, and how many were there again.
#[derive(Debug, Default, Clone, Copy)]
pub struct OfType {
    pub records: u64,
    pub repeats: u64,
}

impl OfType {
    /// Too many for a stretch that was published again after a failure.
    fn stands_twice(&self) -> bool {
        self.records >= REPEATED_RECORDS_MIN && self.repeats * 2 >= self.records
    }
}

#[derive(Debug, Default)]
struct ReplicaCensus {
    number: u32,
    seen: SeenNumbers,
    /// The first number seen in each place.
    first: HashMap<u32, u64>,
}

#[derive(Debug)]
struct StreamCensus {
    place: u32,
    is_in_several: bool,
    tracks: Vec<StreamTrack>,
}

/// What a stream has of a replica in a place.
#[derive(Debug)]
struct StreamTrack {
    replica: u32,
    place: u32,
    newest: u64,
    last: (Time, u64),
}

impl EventCensus {
    pub fn new(part: &VerifyPart) -> Self {
        Self {
            name: part.name.clone(),
            is_original: part.is_original,
            is_reordered: part.is_reordered,
            ..Self::default()
        }
    }

    fn count_type(&mut self, name: &str, is_repeat: bool) {
        if !self.types.contains_key(name) && self.types.len() < TYPES_MAX {
            self.types.insert(name.to_owned(), OfType::default());
        }
        if let Some(of_type) = self.types.get_mut(name) {
            *(if is_repeat {
                &mut of_type.repeats
            } else {
                &mut of_type.records
            }) += 1;
        }
    }

    /// The types of which half of the records or more were there again, as routes that overlap make it.
    pub fn repeated_types(&self) -> impl Iterator<Item = (&str, OfType)> {
        let types = self.types.iter().filter(|(_, of_type)| of_type.stands_twice());
        types.map(|(name, of_type)| (name.as_str(), *of_type))
    }

    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Nothing that was found in these events alone is wrong.
    pub fn is_right(&self) -> bool {
        self.mistakes().iter().all(|(_, _, mistakes)| mistakes.count == 0)
    }

    /// Every kind of mistake: its name for programs and for people.
    pub fn mistakes(&self) -> [(&'static str, &'static str, &CensusMistakes); 5] {
        [
            (
                "several_partitions",
                "keys in more than one partition",
                &self.several_partitions,
            ),
            (
                "steps_back",
                "steps back of replicasequence that are no repeats",
                &self.steps_back,
            ),
            ("clashes", "different events with one replicasequence", &self.clashes),
            (
                "schema_violations",
                "events that violate their schema",
                &self.violations,
            ),
            ("not_events", "messages that are no events of Forebay", &self.no_events),
        ]
    }

    /// Takes a message in. Within a place they come in its order.
    pub fn count(&mut self, place: &str, message: &ShownMessage, schemas: &EventSchemas) {
        self.events += 1;
        let at = || message.place().to_owned();
        let Some(event) = message.event().map(with_present_name).map(Value::Object) else {
            return self.no_events.note(at);
        };
        let text = |name: &str| event[name].as_str();
        let id = text("id").and_then(|id| Uuid::try_parse(id).ok());
        let sequence = text(SEQUENCE).and_then(|digits| digits.parse::<u64>().ok());
        let time = text("time").and_then(Time::from_rfc3339);
        let (Some(id), Some(sequence), Some(replica), Some(key), Some(time)) =
            (id, sequence, text("replica"), text("partitionkey"), time)
        else {
            return self.no_events.note(at);
        };
        if let Some(deviation) = schemas.deviation(&event, self.is_original) {
            self.violations.note(|| format!("{}, event {id}: {deviation}", at()));
        } else if message.key().is_some_and(|of_message| of_message != key.as_bytes()) {
            self.violations
                .note(|| format!("{}, event {id}: the message's key is not its partitionkey", at()));
        }
        if let Some(ms) = text("lateby").and_then(|ms| ms.parse::<u64>().ok()) {
            self.late += 1;
            self.late_ms_max = self.late_ms_max.max(ms);
        }
        let count = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        let place_number = *self.places.entry(place.to_owned()).or_insert(count);
        let count = u32::try_from(self.replicas.len()).unwrap_or(u32::MAX);
        let of_replica = self
            .replicas
            .entry(replica.to_owned())
            .or_insert_with(|| ReplicaCensus {
                number: count,
                ..ReplicaCensus::default()
            });
        of_replica.first.entry(place_number).or_insert(sequence);
        let is_again = AGAIN.iter().any(|mark| event[*mark] == true);
        self.published_again += u64::from(is_again);
        let is_new_id = self.ids.insert(id);
        let is_repeat = !of_replica.seen.insert(sequence);
        match (is_repeat, is_new_id) {
            (true, true) => self
                .clashes
                .note(|| format!("{}: replica {replica} sequence {sequence}", at())),
            (true, false) if is_again => {}
            (true, false) => self.repeats += 1,
            (false, false) => self.duplicates += 1,
            (false, true) => {}
        }
        let replica_number = of_replica.number;
        if !is_again {
            self.count_type(text("type").unwrap_or_default(), is_repeat && !is_new_id);
        }
        let stream = self.streams.entry(key.to_owned()).or_insert_with(|| StreamCensus {
            place: place_number,
            is_in_several: false,
            tracks: Vec::with_capacity(1),
        });
        if stream.place != place_number && !stream.is_in_several {
            stream.is_in_several = true;
            self.several_partitions.note(|| format!("{key:?}, also at {}", at()));
        }
        if is_again {
            return;
        }
        let mut tracks = stream.tracks.iter_mut();
        let known = tracks.find(|track| (track.replica, track.place) == (replica_number, place_number));
        let this = (time, sequence);
        let Some(track) = known else {
            return stream.tracks.push(StreamTrack {
                replica: replica_number,
                place: place_number,
                newest: sequence,
                last: this,
            });
        };
        if sequence < track.newest && !is_repeat {
            if self.is_reordered && this > track.last {
                self.reordered += 1;
            } else {
                let newest = track.newest;
                self.steps_back
                    .note(|| format!("{}: {key:?} of replica {replica} has {sequence} after {newest}", at()));
            }
        }
        track.newest = track.newest.max(sequence);
        track.last = this;
    }

    /// The numbers of each replica, and from where on none of them can have left these places: `None` when that is not
    /// known.
    pub fn replicas<'a>(
        &'a self,
        places: &'a [ReadPlace],
    ) -> impl Iterator<Item = (&'a str, &'a SeenNumbers, Option<u64>)> + 'a {
        self.replicas.iter().map(|(name, replica)| {
            let cut = places.iter().filter(|place| place.is_cut);
            let whole_from = cut
                .map(|place| replica.first.get(self.places.get(&place.name)?).copied())
                .try_fold(0, |highest, first| first.map(|first| highest.max(first)));
            (name.as_str(), &replica.seen, whole_from)
        })
    }
}

/// The event with its attributes as they are called now.
fn with_present_name(mut event: Map<String, Value>) -> Map<String, Value> {
    if !event.contains_key(SEQUENCE)
        && let Some(number) = event.remove(SEQUENCE_BEFORE)
    {
        event.insert(SEQUENCE.to_owned(), number);
    }
    event
}
