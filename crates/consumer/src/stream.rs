//! The state of a stream.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Change, Feed, Latest, MediaPhase, Progress, RecordingPhase, StreamEvent, TranscoderStatus, Transition,
    ViewersStatus,
    feeds::{FeedStep, KnownFeeds},
    phase::{self, ById},
};
use forebay_event::Time;

/// What is known of a stream: a join. Events may be applied in any order and any number of times, and states be merged
/// in any order and any number of times: what comes out is the same.
///
/// It does not hold its own key, as a row of a database or an entry of a map does that.
///
/// As JSON, with what is empty left out:
///
/// ```json
/// {"feeds": {"369e4a86-…": {"startedAt": "2021-12-02T16:44:46.359Z", "endedAt": "2021-12-02T17:10:00.120Z"}},
///  "recordings": {"1000001": {"phase": "completed", "at": "2021-12-02T17:10:30.000Z"}},
///  "media": {"369e4a86…": {"phase": "processing", "at": "2021-12-02T17:10:10.000Z"}},
///  "transcoders": {"5f6a…": {"status": "active", "at": "2021-12-02T16:40:00.000Z", "id": "06d659c8-…"}},
///  "viewers": {"status": "noactiveviewers", "at": "2021-12-02T17:11:00.000Z", "id": "9b24ed67-…"},
///  "offlineDue": "2021-12-02T17:10:10.120Z"}
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stream {
    #[serde(skip_serializing_if = "KnownFeeds::is_empty")]
    pub(super) feeds: KnownFeeds,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) recordings: ById<RecordingPhase>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) media: ById<MediaPhase>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) transcoders: BTreeMap<String, Latest<TranscoderStatus>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) viewers: Option<Latest<ViewersStatus>>,
    /// When `WentOffline`, which is held back, is to be told.
    #[serde(with = "super::rfc3339::option", skip_serializing_if = "Option::is_none")]
    offline_due: Option<Time>,
}

impl Stream {
    /// Applies an event of this stream, and tells what that changed.
    pub fn apply(&mut self, event: &StreamEvent) -> Vec<Transition> {
        self.apply_and_hold(event, None)
    }

    /// As [`Stream::apply`], but where the stream goes offline, `WentOffline` is held back until `until`, which is
    /// usually now and a few seconds: an encoder that reconnects before gives neither `WentOffline` nor another
    /// `WentLive`. [`Stream::due`] tells it.
    pub fn apply_with_grace(&mut self, event: &StreamEvent, until: Time) -> Vec<Transition> {
        self.apply_and_hold(event, Some(until))
    }

    fn apply_and_hold(&mut self, event: &StreamEvent, until: Option<Time>) -> Vec<Transition> {
        let was_live = self.is_live();
        let mut transitions = Vec::new();
        let (key, at) = (event.key.as_str(), event.time);
        let latest = |id: &String| (at, id.clone());
        match &event.change {
            Change::FeedStarted { feed } => {
                let started = Feed {
                    started_at: Some(at),
                    ended_at: None,
                };
                self.join_feed(key, feed, &started, &mut transitions);
            }
            Change::FeedEnded { feed } => {
                let ended = Feed {
                    started_at: None,
                    ended_at: Some(at),
                };
                self.join_feed(key, feed, &ended, &mut transitions);
            }
            Change::Recording { recording, phase } => {
                let progress = Progress { phase: *phase, at };
                transitions.extend(phase::join(&mut self.recordings, key, recording, progress));
            }
            Change::Media { media, phase } => {
                let progress = Progress { phase: *phase, at };
                transitions.extend(phase::join(&mut self.media, key, media, progress));
            }
            Change::Transcoder { transcoder, status } => {
                let (at, id) = latest(&event.id);
                let status = *status;
                self.join_transcoder(key, transcoder, &Latest { status, at, id }, &mut transitions);
            }
            Change::Viewers { status } => {
                let (at, id) = latest(&event.id);
                let status = *status;
                self.join_viewers(key, &Latest { status, at, id }, &mut transitions);
            }
            Change::None => {}
        }
        self.tell_live(key, was_live, until, &mut transitions);
        transitions
    }

    /// Joins what another consumer knows of the same stream, `key`, and tells what that changed here.
    ///
    /// A `WentOffline` that `other` holds back stays with it.
    pub fn merge(&mut self, key: &str, other: &Self) -> Vec<Transition> {
        self.merge_and_hold(key, other, None)
    }

    /// As [`Stream::merge`], with the grace time of [`Stream::apply_with_grace`].
    pub fn merge_with_grace(&mut self, key: &str, other: &Self, until: Time) -> Vec<Transition> {
        self.merge_and_hold(key, other, Some(until))
    }

    fn merge_and_hold(&mut self, key: &str, other: &Self, until: Option<Time>) -> Vec<Transition> {
        let was_live = self.is_live();
        let mut transitions = Vec::new();
        for (id, feed) in other.feeds.iter() {
            self.join_feed(key, id, feed, &mut transitions);
        }
        for (id, progress) in &other.recordings {
            transitions.extend(phase::join(&mut self.recordings, key, id, *progress));
        }
        for (id, progress) in &other.media {
            transitions.extend(phase::join(&mut self.media, key, id, *progress));
        }
        for (id, latest) in &other.transcoders {
            self.join_transcoder(key, id, latest, &mut transitions);
        }
        if let Some(latest) = &other.viewers {
            self.join_viewers(key, latest, &mut transitions);
        }
        self.tell_live(key, was_live, until, &mut transitions);
        transitions
    }

    /// `WentOffline`, once, if it was held back and its time has come by `now`.
    pub fn due(&mut self, key: &str, now: Time) -> Option<Transition> {
        self.offline_due.take_if(|due| *due <= now)?;
        Some(Transition::WentOffline { key: key.to_owned() })
    }

    /// When [`Stream::due`] will have something to tell.
    pub fn due_at(&self) -> Option<Time> {
        self.offline_due
    }

    /// Any of the feeds is open. Not held back by a grace time.
    pub fn is_live(&self) -> bool {
        self.feeds.any_open()
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// All feeds that are not forgotten, by their ids.
    pub fn feeds(&self) -> impl Iterator<Item = (&str, &Feed)> {
        self.feeds.iter()
    }

    /// All recordings that are not forgotten, by their ids.
    pub fn recordings(&self) -> &BTreeMap<String, Progress<RecordingPhase>> {
        &self.recordings
    }

    /// All media assets that are not forgotten, by their ids.
    pub fn media(&self) -> &BTreeMap<String, Progress<MediaPhase>> {
        &self.media
    }

    /// All transcoders that are not forgotten, by their ids.
    pub fn transcoders(&self) -> &BTreeMap<String, Latest<TranscoderStatus>> {
        &self.transcoders
    }

    /// Who watches, if anything was told of it.
    pub fn viewers(&self) -> Option<&Latest<ViewersStatus>> {
        self.viewers.as_ref()
    }

    /// Drops feeds that ended, recordings and media that failed, were completed or deleted, and transcoders that were
    /// deleted, all before `before`, by the time of their events. What is open or under way stays, however old.
    ///
    /// What is forgotten can come again: an event that arrives after what it is about was forgotten is taken for the
    /// first one. A duplicate of `completed` then gives `RecordingCompleted` a second time; and a `started` that
    /// arrives only after its ended feed was forgotten makes the stream live for good. So `before` must lie further
    /// back than any event can be late or be read again: the retention of the topic, if consumers may start anew, or
    /// else the longest outage that you reckon with. A day costs some hundred bytes per feed.
    pub fn forget(&mut self, before: Time) {
        self.feeds.forget(before);
        phase::forget(&mut self.recordings, before);
        phase::forget(&mut self.media, before);
        self.transcoders
            .retain(|_, known| known.status != TranscoderStatus::Deleted || known.at >= before);
    }

    fn join_feed(&mut self, key: &str, id: &str, other: &Feed, transitions: &mut Vec<Transition>) {
        let Some(step) = self.feeds.join(id, other) else {
            return;
        };
        let (key, feed) = (key.to_owned(), id.to_owned());
        transitions.push(match step {
            FeedStep::Started => Transition::FeedStarted { key, feed },
            FeedStep::Ended => Transition::FeedEnded { key, feed },
        });
    }

    fn join_transcoder(
        &mut self,
        key: &str,
        id: &str,
        other: &Latest<TranscoderStatus>,
        transitions: &mut Vec<Transition>,
    ) {
        let changed = match self.transcoders.get_mut(id) {
            Some(known) => known.join(other),
            None => self.transcoders.insert(id.to_owned(), other.clone()).is_none(),
        };
        if changed {
            let (key, transcoder, status) = (key.to_owned(), id.to_owned(), other.status);
            transitions.push(Transition::TranscoderChanged {
                key,
                transcoder,
                status,
            });
        }
    }

    fn join_viewers(&mut self, key: &str, other: &Latest<ViewersStatus>, transitions: &mut Vec<Transition>) {
        let changed = match &mut self.viewers {
            Some(known) => known.join(other),
            none => none.replace(other.clone()).is_none(),
        };
        if changed {
            let (key, status) = (key.to_owned(), other.status);
            transitions.push(Transition::ViewersChanged { key, status });
        }
    }

    /// Live and offline in turn: what is held back was not told, so what it would have ended goes on.
    fn tell_live(&mut self, key: &str, was_live: bool, until: Option<Time>, transitions: &mut Vec<Transition>) {
        let key = || key.to_owned();
        match (was_live, self.is_live()) {
            (false, true) if self.offline_due.take().is_none() => transitions.push(Transition::WentLive { key: key() }),
            (true, false) if until.is_some() => self.offline_due = until,
            (true, false) => transitions.push(Transition::WentOffline { key: key() }),
            _ => {}
        }
    }
}
