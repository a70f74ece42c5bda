//! Feeds: the publish sessions of a stream.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use forebay_event::Time;

/// When a feed started and ended, as far as events have told: the earliest time of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Feed {
    #[serde(with = "super::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    #[serde(with = "super::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
}

/// What a join made of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FeedStep {
    Started,
    Ended,
}

/// The feeds of a stream, by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, Feed>", into = "BTreeMap<String, Feed>")]
pub(super) struct KnownFeeds {
    feeds: BTreeMap<String, Feed>,
    /// How many of them are open, so that it need not be counted at every event.
    open: usize,
}

impl Feed {
    /// Seen started, and not seen ended.
    pub fn is_open(&self) -> bool {
        self.started_at.is_some() && self.ended_at.is_none()
    }

    fn join(&mut self, other: &Self) -> Option<FeedStep> {
        let before = *self;
        self.started_at = earliest(self.started_at, other.started_at);
        self.ended_at = earliest(self.ended_at, other.ended_at);
        match (before.ended_at, self.ended_at) {
            (None, Some(_)) => Some(FeedStep::Ended),
            (None, None) if before.started_at.is_none() && self.started_at.is_some() => Some(FeedStep::Started),
            _ => None,
        }
    }
}

fn earliest(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl KnownFeeds {
    pub fn join(&mut self, id: &str, other: &Feed) -> Option<FeedStep> {
        let (was_open, step, is_open) = match self.feeds.get_mut(id) {
            Some(feed) => {
                let was_open = feed.is_open();
                let step = feed.join(other);
                (was_open, step, feed.is_open())
            }
            None => {
                let mut feed = Feed::default();
                let step = feed.join(other);
                self.feeds.insert(id.to_owned(), feed);
                (false, step, feed.is_open())
            }
        };
        self.open = self.open + usize::from(is_open) - usize::from(was_open);
        step
    }

    pub fn any_open(&self) -> bool {
        self.open > 0
    }

    pub fn is_empty(&self) -> bool {
        self.feeds.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Feed)> {
        self.feeds.iter().map(|(id, feed)| (id.as_str(), feed))
    }

    /// Drops the feeds that ended before `before`.
    pub fn forget(&mut self, before: Time) {
        self.feeds
            .retain(|_, feed| feed.ended_at.is_none_or(|ended| ended >= before));
    }
}

impl From<BTreeMap<String, Feed>> for KnownFeeds {
    fn from(feeds: BTreeMap<String, Feed>) -> Self {
        let open = feeds.values().filter(|feed| feed.is_open()).count();
        Self { feeds, open }
    }
}

impl From<KnownFeeds> for BTreeMap<String, Feed> {
    fn from(feeds: KnownFeeds) -> Self {
        feeds.feeds
    }
}
