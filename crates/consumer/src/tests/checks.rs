//! The properties: an oracle for the state, and what transitions must agree with.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use proptest::{prelude::*, test_runner::TestCaseError};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    history::KEY,
    model::{Model, Wrong},
};
use crate::{Change, Stream, StreamEvent, Transition};
use forebay_event::Time;

/// Applies the `arrivals` of the history `events` to `model`.
pub fn check(mut model: Model, events: &[StreamEvent], arrivals: &[StreamEvent]) -> Result<(), TestCaseError> {
    let mut told = Told::default();
    for event in arrivals {
        told.take(&model.apply(event))?;
        prop_assert_eq!(told.live, model.stream.is_live(), "after {:?}", event);
    }
    check_end(&model.stream, &told, events)
}

/// Gives each arrival to one of four states, and every fifth to another one too, then merges them.
pub fn check_merged(
    wrong: Option<Wrong>,
    events: &[StreamEvent],
    arrivals: &[StreamEvent],
    parts: &[usize],
) -> Result<(), TestCaseError> {
    let mut models = vec![Model::new(wrong); 4];
    let mut told = vec![Told::default(); 4];
    for (number, event) in arrivals.iter().enumerate() {
        let part = parts[number % parts.len()];
        let overlap = (number % 5 == 0).then_some((part + 1) % 4);
        for part in [part].into_iter().chain(overlap) {
            told[part].take(&models[part].apply(event))?;
        }
    }
    // One by one into the first; and, the other way round, in pairs.
    let mut first = models[0].clone();
    let mut told_first = told[0].clone();
    for other in [1, 2, 3, 1, 0] {
        told_first.take(&first.merge(&models[other]))?;
        prop_assert_eq!(told_first.live, first.stream.is_live());
    }
    check_end(&first.stream, &told_first, events)?;

    let [one, two, three, four] = &mut models[..] else {
        unreachable!("there are four")
    };
    told[3].take(&four.merge(three))?;
    two.merge(one);
    told[3].take(&four.merge(two))?;
    check_end(&four.stream, &told[3], events)
}

fn check_end(stream: &Stream, told: &Told, events: &[StreamEvent]) -> Result<(), TestCaseError> {
    let state = json!(stream);
    prop_assert_eq!(&state, &oracle(events));
    let read: Stream = serde_json::from_value(state.clone()).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&read, stream, "the state, stored and read back");
    prop_assert_eq!(read.is_live(), told.live);

    let of = |member: &str, status: &str| -> BTreeMap<String, Value> {
        let known = state[member].as_object().into_iter().flatten();
        known.map(|(id, known)| (id.clone(), known[status].clone())).collect()
    };
    prop_assert_eq!(&told.recordings, &of("recordings", "phase"));
    prop_assert_eq!(&told.media, &of("media", "phase"));
    prop_assert_eq!(&told.transcoders, &of("transcoders", "status"));
    prop_assert_eq!(&told.viewers, &state["viewers"]["status"]);
    let ids = |ended: bool| -> BTreeSet<String> {
        let feeds = stream.feeds().filter(|(_, feed)| feed.ended_at.is_some() == ended);
        feeds.map(|(id, _)| id.to_owned()).collect()
    };
    prop_assert_eq!(&told.ended, &ids(true));
    let open: BTreeSet<String> = told.started.difference(&told.ended).cloned().collect();
    prop_assert_eq!(open, ids(false));
    Ok(())
}

/// What was told so far, and so, what a service believes that does nothing but listen.
#[derive(Debug, Clone, Default)]
struct Told {
    live: bool,
    started: BTreeSet<String>,
    ended: BTreeSet<String>,
    recordings: BTreeMap<String, Value>,
    media: BTreeMap<String, Value>,
    transcoders: BTreeMap<String, Value>,
    viewers: Value,
}

/// The phases in their order; an asset's are `recordings`' with other names.
const PHASES: [(&str, &str, usize); 8] = [
    ("RecordingStarted", "started", 0),
    ("RecordingFailed", "error", 1),
    ("RecordingCompleted", "completed", 2),
    ("RecordingDeleted", "deleted", 3),
    ("MediaProcessing", "processing", 0),
    ("MediaFailed", "errored", 1),
    ("MediaCompleted", "completed", 2),
    ("MediaDeleted", "deleted", 3),
];

impl Told {
    /// Each thing once, in its order, live and offline in turn.
    fn take(&mut self, transitions: &[Transition]) -> Result<(), TestCaseError> {
        for transition in transitions {
            prop_assert_eq!(transition.key(), KEY);
            match transition {
                Transition::WentLive { .. } => prop_assert!(!std::mem::replace(&mut self.live, true), "live twice"),
                Transition::WentOffline { .. } => {
                    prop_assert!(std::mem::replace(&mut self.live, false), "offline twice");
                }
                Transition::FeedStarted { feed, .. } => {
                    prop_assert!(self.started.insert(feed.clone()), "{} started twice", feed);
                    prop_assert!(!self.ended.contains(feed), "{} started after its end", feed);
                }
                Transition::FeedEnded { feed, .. } => {
                    prop_assert!(self.ended.insert(feed.clone()), "{} ended twice", feed);
                }
                other => self.take_status(&json!(other))?,
            }
        }
        Ok(())
    }

    fn take_status(&mut self, transition: &Value) -> Result<(), TestCaseError> {
        let text = |member: &str| transition[member].as_str().unwrap_or_default().to_owned();
        let type_ = text("type");
        if type_ == "ViewersChanged" {
            let before = std::mem::replace(&mut self.viewers, transition["status"].clone());
            prop_assert_ne!(&before, &self.viewers);
            return Ok(());
        }
        if type_ == "TranscoderChanged" {
            let status = transition["status"].clone();
            let before = self.transcoders.insert(text("transcoder"), status.clone());
            prop_assert_ne!(before, Some(status));
            return Ok(());
        }
        let Some((_, phase, rank)) = PHASES.iter().find(|(name, ..)| *name == type_) else {
            return Err(TestCaseError::fail(format!("{type_} is not expected")));
        };
        let (of, id) = if type_.starts_with("Media") {
            (&mut self.media, text("media"))
        } else {
            (&mut self.recordings, text("recording"))
        };
        let before = of.insert(id, json!(phase));
        let rank_of = |phase: &Value| PHASES.iter().find(|(_, name, _)| phase == name).map(|(.., rank)| *rank);
        let before = before.as_ref().and_then(rank_of);
        prop_assert!(
            before.is_none_or(|before| before < *rank),
            "{} does not rise",
            transition
        );
        Ok(())
    }
}

/// The state that a set of events has, by the rules as they are written, and in no way as the kit does it.
fn oracle(events: &[StreamEvent]) -> Value {
    let mut state = json!({});
    for event in events {
        let at = event.time.to_rfc3339();
        let earliest = |known: &Value| known.as_str().is_none_or(|known| at.as_str() < known);
        match &event.change {
            Change::FeedStarted { feed } if earliest(&state["feeds"][feed]["startedAt"]) => {
                state["feeds"][feed]["startedAt"] = json!(at);
            }
            Change::FeedEnded { feed } if earliest(&state["feeds"][feed]["endedAt"]) => {
                state["feeds"][feed]["endedAt"] = json!(at);
            }
            _ => {}
        }
    }
    let recordings = highest(events.iter().filter_map(|event| match &event.change {
        Change::Recording { recording, phase } => Some((recording, *phase, event.time)),
        _ => None,
    }));
    let media = highest(events.iter().filter_map(|event| match &event.change {
        Change::Media { media, phase } => Some((media, *phase, event.time)),
        _ => None,
    }));
    let mut by_time: Vec<&StreamEvent> = events.iter().collect();
    by_time.sort_by_key(|event| (event.time, event.id.clone()));
    let mut transcoders = Map::new();
    let mut viewers = Value::Null;
    for event in by_time {
        let latest = |status: Value| json!({ "status": status, "at": event.time.to_rfc3339(), "id": event.id });
        match &event.change {
            Change::Transcoder { transcoder, status } => {
                transcoders.insert(transcoder.clone(), latest(json!(status)));
            }
            Change::Viewers { status } => viewers = latest(json!(status)),
            _ => {}
        }
    }
    for (name, members) in [
        ("recordings", recordings),
        ("media", media),
        ("transcoders", transcoders),
    ] {
        if !members.is_empty() {
            state[name] = members.into();
        }
    }
    if !viewers.is_null() {
        state["viewers"] = viewers;
    }
    without_nulls(state)
}

/// Of each id the highest phase, and its earliest time.
fn highest<'a, P: Copy + Ord + Serialize>(seen: impl Iterator<Item = (&'a String, P, Time)>) -> Map<String, Value> {
    let mut highest: BTreeMap<&String, (P, Reverse<Time>)> = BTreeMap::new();
    for (id, phase, time) in seen {
        let known = highest.entry(id).or_insert((phase, Reverse(time)));
        *known = (*known).max((phase, Reverse(time)));
    }
    let known = highest.into_iter();
    let known = known.map(|(id, (phase, Reverse(at)))| (id.clone(), json!({ "phase": phase, "at": at.to_rfc3339() })));
    known.collect()
}

/// Asking a `Value` for a member by index and mutably makes it.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, without_nulls(value)));
            members
                .filter(|(_, value)| !value.is_null())
                .collect::<Map<_, _>>()
                .into()
        }
        other => other,
    }
}
