//! The states of many streams, by their keys.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::{Change, Stream, StreamEvent, Transition};
use forebay_event::Time;

/// A [`Stream`] for each `partitionkey`, in memory. As JSON an object of their states.
///
/// It holds what was not forgotten: call [`Streams::forget`] now and then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Streams {
    streams: HashMap<String, Stream>,
}

impl Streams {
    /// Applies an event to its stream: see [`Stream::apply`].
    pub fn apply(&mut self, event: &StreamEvent) -> Vec<Transition> {
        self.stream_of(event)
            .map_or_else(Vec::new, |stream| stream.apply(event))
    }

    /// See [`Stream::apply_with_grace`]; [`Streams::due`] tells what was held back.
    pub fn apply_with_grace(&mut self, event: &StreamEvent, until: Time) -> Vec<Transition> {
        self.stream_of(event)
            .map_or_else(Vec::new, |stream| stream.apply_with_grace(event, until))
    }

    fn stream_of(&mut self, event: &StreamEvent) -> Option<&mut Stream> {
        if event.change == Change::None {
            return None;
        }
        Some(self.streams.entry_ref(event.key.as_str()).or_default())
    }

    /// Joins what another consumer knows: see [`Stream::merge`].
    pub fn merge(&mut self, other: &Self) -> Vec<Transition> {
        let mut transitions = Vec::new();
        for (key, stream) in &other.streams {
            transitions.extend(self.streams.entry(key.clone()).or_default().merge(key, stream));
        }
        transitions
    }

    /// Every `WentOffline` that was held back until `now` or before. It looks at all streams, so call it once a second
    /// or so.
    pub fn due(&mut self, now: Time) -> Vec<Transition> {
        let streams = self.streams.iter_mut();
        streams.filter_map(|(key, stream)| stream.due(key, now)).collect()
    }

    /// Forgets what ended or settled before `before`, and streams of which nothing is left to know. [`Stream::forget`]
    /// tells what that risks.
    pub fn forget(&mut self, before: Time) {
        self.streams.retain(|_, stream| {
            stream.forget(before);
            !stream.is_empty()
        });
    }

    pub fn get(&self, key: &str) -> Option<&Stream> {
        self.streams.get(key)
    }

    /// Puts in the state of a stream that was stored elsewhere.
    pub fn insert(&mut self, key: String, stream: Stream) -> Option<Stream> {
        self.streams.insert(key, stream)
    }

    /// Takes out the state of a stream, as when its partition goes to another consumer.
    pub fn remove(&mut self, key: &str) -> Option<Stream> {
        self.streams.remove(key)
    }

    /// In no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Stream)> {
        self.streams.iter().map(|(key, stream)| (key.as_str(), stream))
    }

    pub fn len(&self) -> usize {
        self.streams.len()
    }

    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }
}
