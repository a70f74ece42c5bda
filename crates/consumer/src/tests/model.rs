//! The kit, and the kit with one of its rules wrong.

use std::collections::BTreeMap;

use super::history::KEY;
use crate::{Change, Feed, Stream, StreamEvent, Transition};

/// A rule that somebody could get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    EndedFeedMayStartAgain,
    LastEventWins,
    NoDedupe,
    OfflineWhenAnyFeedEnds,
    LowerPhaseCounts,
    OfEqualTimesTheLastWins,
    MergeKeepsItsOwn,
}

impl Wrong {
    /// Those that a single state shows, which never merges.
    pub const OF_ONE_STATE: [Self; 6] = [
        Self::EndedFeedMayStartAgain,
        Self::LastEventWins,
        Self::NoDedupe,
        Self::OfflineWhenAnyFeedEnds,
        Self::LowerPhaseCounts,
        Self::OfEqualTimesTheLastWins,
    ];
}

#[derive(Debug, Clone)]
pub struct Model {
    wrong: Option<Wrong>,
    pub stream: Stream,
}

impl Model {
    /// The kit itself, if nothing is wrong.
    pub fn new(wrong: Option<Wrong>) -> Self {
        Self {
            wrong,
            stream: Stream::default(),
        }
    }

    pub fn apply(&mut self, event: &StreamEvent) -> Vec<Transition> {
        if self.forgets_before(event) {
            self.forget_subject_of(event);
        }
        let mut transitions = self.stream.apply(event);
        match self.wrong {
            Some(Wrong::NoDedupe) if transitions.is_empty() => transitions = Stream::default().apply(event),
            Some(Wrong::OfflineWhenAnyFeedEnds)
                if matches!(transitions[..], [Transition::FeedEnded { .. }]) && self.stream.is_live() =>
            {
                let key = event.key.clone();
                transitions.push(Transition::WentOffline { key });
            }
            _ => {}
        }
        transitions
    }

    pub fn merge(&mut self, other: &Self) -> Vec<Transition> {
        if self.wrong == Some(Wrong::MergeKeepsItsOwn) {
            return Vec::new();
        }
        self.stream.merge(KEY, &other.stream)
    }

    /// Whether the wrong rule lets this event replace what was known.
    fn forgets_before(&self, event: &StreamEvent) -> bool {
        let stream = &self.stream;
        match (self.wrong, &event.change) {
            (Some(Wrong::LastEventWins), _) => true,
            (Some(Wrong::EndedFeedMayStartAgain), Change::FeedStarted { .. }) => true,
            (Some(Wrong::LowerPhaseCounts), Change::Recording { recording, phase }) => stream
                .recordings
                .get(recording)
                .is_some_and(|known| known.phase > *phase),
            (Some(Wrong::OfEqualTimesTheLastWins), Change::Transcoder { transcoder, .. }) => {
                let known = stream.transcoders.get(transcoder);
                known.is_some_and(|known| known.at == event.time)
            }
            _ => false,
        }
    }

    fn forget_subject_of(&mut self, event: &StreamEvent) {
        let stream = &mut self.stream;
        match &event.change {
            Change::FeedStarted { feed } | Change::FeedEnded { feed } => {
                let mut feeds: BTreeMap<String, Feed> = stream.feeds.clone().into();
                // A feed that is open stays as it is: only what ended is replaced.
                if feeds.get(feed).is_some_and(|feed| feed.ended_at.is_some()) {
                    feeds.remove(feed);
                }
                stream.feeds = feeds.into();
            }
            Change::Recording { recording, .. } => drop(stream.recordings.remove(recording)),
            Change::Media { media, .. } => drop(stream.media.remove(media)),
            Change::Transcoder { transcoder, .. } => drop(stream.transcoders.remove(transcoder)),
            Change::Viewers { .. } => stream.viewers = None,
            Change::None => {}
        }
    }
}
