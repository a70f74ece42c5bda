//! Recordings and media: a life cycle that goes one way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Transition;
use forebay_event::Time;

/// How far a recording has come. A later phase is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordingPhase {
    Started,
    Error,
    Completed,
    Deleted,
}

/// How far a media asset has come. A later phase is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaPhase {
    Processing,
    Errored,
    Completed,
    Deleted,
}

/// The highest phase that was seen, and the earliest time at which an event told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress<P> {
    pub phase: P,
    #[serde(with = "super::rfc3339")]
    pub at: Time,
}

/// Recordings or media, by their ids.
pub(super) type ById<P> = BTreeMap<String, Progress<P>>;

/// A life cycle.
pub(super) trait FeedPhase: Copy + Ord {
    /// Nothing but its deletion is still to come.
    fn is_settled(self) -> bool;
    /// What is told when `id` has reached it.
    fn reached(self, key: &str, id: &str) -> Transition;
}

/// Joins what is known of `id` with `other`. What was not there, or rose, is told.
pub(super) fn join<P: FeedPhase>(of: &mut ById<P>, key: &str, id: &str, other: Progress<P>) -> Option<Transition> {
    match of.get_mut(id) {
        Some(known) if other.phase < known.phase => return None,
        Some(known) if other.phase == known.phase => {
            known.at = known.at.min(other.at);
            return None;
        }
        Some(known) => *known = other,
        None => {
            of.insert(id.to_owned(), other);
        }
    }
    Some(other.phase.reached(key, id))
}

/// Drops what settled before `before`.
pub(super) fn forget<P: FeedPhase>(of: &mut ById<P>, before: Time) {
    of.retain(|_, known| !known.phase.is_settled() || known.at >= before);
}

impl RecordingPhase {
    pub(super) fn of_event(event: &str) -> Option<Self> {
        Some(match event {
            "started" => Self::Started,
            "error" => Self::Error,
            "completed" => Self::Completed,
            "deleted" => Self::Deleted,
            _ => return None,
        })
    }
}

impl FeedPhase for RecordingPhase {
    fn is_settled(self) -> bool {
        self > Self::Started
    }

    fn reached(self, key: &str, id: &str) -> Transition {
        let (key, recording) = (key.to_owned(), id.to_owned());
        match self {
            Self::Started => Transition::RecordingStarted { key, recording },
            Self::Error => Transition::RecordingFailed { key, recording },
            Self::Completed => Transition::RecordingCompleted { key, recording },
            Self::Deleted => Transition::RecordingDeleted { key, recording },
        }
    }
}

impl MediaPhase {
    pub(super) fn of_event(event: &str) -> Option<Self> {
        Some(match event {
            "processing" => Self::Processing,
            "errored" => Self::Errored,
            "completed" => Self::Completed,
            "deleted" => Self::Deleted,
            _ => return None,
        })
    }
}

impl FeedPhase for MediaPhase {
    fn is_settled(self) -> bool {
        self > Self::Processing
    }

    fn reached(self, key: &str, id: &str) -> Transition {
        let (key, media) = (key.to_owned(), id.to_owned());
        match self {
            Self::Processing => Transition::MediaProcessing { key, media },
            Self::Errored => Transition::MediaFailed { key, media },
            Self::Completed => Transition::MediaCompleted { key, media },
            Self::Deleted => Transition::MediaDeleted { key, media },
        }
    }
}
