//! Transcoders and viewers: what the event with the greatest time says, and of equal times, the one with the greatest
//! id.

use serde::{Deserialize, Serialize};

use forebay_event::Time;

/// What a transcoder does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TranscoderStatus {
    Active,
    Stopped,
    Deleted,
}

/// Who watches a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewersStatus {
    /// Someone waits for the stream to go live.
    ViewerAttempt,
    FirstViewerConnection,
    NoActiveViewers,
}

/// A status, with the time and the id of the event that told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest<S> {
    pub status: S,
    #[serde(with = "super::rfc3339")]
    pub at: Time,
    pub id: String,
}

impl<S: Copy + PartialEq> Latest<S> {
    /// Takes `other` over if it is later. `true` when that changed the status.
    pub(super) fn join(&mut self, other: &Self) -> bool {
        if (other.at, &other.id) <= (self.at, &self.id) {
            return false;
        }
        let changed = self.status != other.status;
        self.clone_from(other);
        changed
    }
}

impl TranscoderStatus {
    pub(super) fn of_event(event: &str) -> Option<Self> {
        Some(match event {
            "active" => Self::Active,
            "stopped" => Self::Stopped,
            "deleted" => Self::Deleted,
            _ => return None,
        })
    }
}

impl ViewersStatus {
    pub(super) fn of_event(event: &str) -> Option<Self> {
        Some(match event {
            "viewerattempt" => Self::ViewerAttempt,
            "firstviewerconnection" => Self::FirstViewerConnection,
            "noactiveviewers" => Self::NoActiveViewers,
            _ => return None,
        })
    }
}
