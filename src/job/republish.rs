//! What is special of a job that publishes what was published before, or was to be: some of the events that are
//! retained, or of a route's dead letters.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::time::Instant;

use super::{DeadLetter, EventSelection, Job, status::now_ms};
use crate::{
    event::render::Republication,
    sink::{PublishFailure, PublishedAgain, Sink},
    spool::{Cursor, Record, WantedRecords},
};

/// So much of what a second may bring is published at once.
const BURST_ONE_IN: f64 = 10.0;

/// Which records, and how.
pub struct Republishing {
    pub selection: EventSelection,
    pub source: RepublishSource,
    /// Messages in a second, at most.
    pub rate: Option<NonZeroU32>,
    pub progress: Arc<RepublishProgress>,
}

/// Where the records are.
pub enum RepublishSource {
    /// In the log of events.
    Events,
    /// Among a route's dead letters; what is published is settled for this cursor, by which it is gone.
    DeadLetters(Arc<Cursor>),
}

/// How far it is, for whoever asks.
#[derive(Debug, Default)]
pub struct RepublishProgress {
    chosen: AtomicU64,
    published: AtomicU64,
    failed: AtomicU64,
    /// All up to here was read.
    read: AtomicU64,
}

/// What has become of what was chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RepublishCounts {
    pub chosen: u64,
    pub published: u64,
    pub failed: u64,
}

impl RepublishProgress {
    /// One that goes on where another was.
    pub fn from_counts(counts: RepublishCounts) -> Self {
        Self {
            // What was on its way comes again.
            chosen: AtomicU64::new(counts.published + counts.failed),
            published: AtomicU64::new(counts.published),
            failed: AtomicU64::new(counts.failed),
            read: AtomicU64::new(0),
        }
    }

    pub fn counts(&self) -> RepublishCounts {
        let (published, failed) = (
            self.published.load(Ordering::Relaxed),
            self.failed.load(Ordering::Relaxed),
        );
        RepublishCounts {
            chosen: self.chosen.load(Ordering::Relaxed).max(published + failed),
            published,
            failed,
        }
    }

    /// The number up to which the log was read.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// A [`Republishing`] that is under way.
pub(super) struct RunningRepublishing {
    pub setup: Republishing,
    /// Of the log of events.
    is_meant: WantedRecords,
    /// The highest number that was counted as chosen.
    counted: u64,
    pace: Option<PublishPace>,
}

impl RunningRepublishing {
    fn new(setup: Republishing, is_meant: WantedRecords) -> Self {
        Self {
            pace: setup.rate.map(PublishPace::new),
            is_meant,
            counted: 0,
            setup,
        }
    }

    pub fn why(&self) -> Republication {
        match self.setup.source {
            RepublishSource::Events => Republication::Replayed,
            RepublishSource::DeadLetters(_) => Republication::Redriven,
        }
    }

    /// Whether it is to publish a record. A dead letter of a route is one of its events, whatever the route wants now.
    fn has(&self, record: &Record, letter: Option<&DeadLetter>) -> bool {
        match letter {
            Some(letter) => self.setup.selection.has_letter(record.sequence, letter),
            None => (self.is_meant)(&record.bytes),
        }
    }

    /// A record is chosen; one that is read again was counted before.
    fn count_chosen(&mut self, number: u64) {
        if number > self.counted {
            self.counted = number;
            self.setup.progress.chosen.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The cursor by which dead letters are gone.
    fn kept(&self) -> Option<&Cursor> {
        match &self.setup.source {
            RepublishSource::Events => None,
            RepublishSource::DeadLetters(kept) => Some(kept),
        }
    }
}

/// How many messages may go out in a second.
struct PublishPace {
    rate: f64,
    /// What may go out now.
    credit: f64,
    at: Instant,
}

impl PublishPace {
    fn new(rate: NonZeroU32) -> Self {
        Self {
            rate: f64::from(rate.get()),
            credit: 1.0,
            at: Instant::now(),
        }
    }

    /// Whether one may go out now; if so, it is counted.
    fn spend(&mut self, now: Instant) -> bool {
        let earned = now.duration_since(self.at).as_secs_f64() * self.rate;
        self.at = now;
        self.credit = (self.credit + earned).min((self.rate / BURST_ONE_IN).max(1.0));
        let may = self.credit >= 1.0;
        if may {
            self.credit -= 1.0;
        }
        may
    }
}

impl<S: Sink> Job<S> {
    /// Publishes some of a log once more. The log is that of the job; its cursor is a detached one.
    #[must_use]
    pub fn republishing(mut self, setup: Republishing) -> Self {
        let is_meant = setup.selection.of_route(self.plan.matches());
        let from = self.cursor.position() + 1;
        self.reader = match setup.source {
            RepublishSource::Events => {
                let query = setup.selection.query();
                self.spool.reader_of_query(from, is_meant.clone(), query)
            }
            // They are no events: what a route wants of those says nothing of them.
            RepublishSource::DeadLetters(_) => self.spool.reader(from),
        };
        self.again = Some(RunningRepublishing::new(setup, is_meant));
        self
    }

    /// The record of the event that a record of the log is about, and the number that it has in its replica; `None`: it
    /// is not for this job.
    pub(super) fn event_record(&mut self, record: &Record) -> Option<Record> {
        let Some(again) = &mut self.again else {
            return Some(record.clone());
        };
        let letter = match again.setup.source {
            RepublishSource::Events => None,
            // One that cannot be read stays where it is.
            RepublishSource::DeadLetters(_) => Some(DeadLetter::decode(&record.bytes).ok()?),
        };
        if !again.has(record, letter.as_ref()) {
            return None;
        }
        let event = match letter {
            None => record.clone(),
            Some(letter) => Record {
                sequence: letter.sequence,
                bytes: letter.record,
            },
        };
        again.count_chosen(record.sequence);
        Some(event)
    }

    /// What a message says of being published again, whose event has this number in its replica.
    pub(super) fn published_again(&self, sequence: u64) -> Option<PublishedAgain> {
        let why = self.again.as_ref()?.why();
        Some(PublishedAgain { why, sequence })
    }

    /// Whether the next message may go out, as far as the rate is concerned.
    pub(super) fn is_paced(&mut self, now: Instant) -> bool {
        let pace = self.again.as_mut().and_then(|again| again.pace.as_mut());
        pace.is_none_or(|pace| pace.spend(now))
    }

    pub(super) fn count_published(&self, messages: u64) {
        if let Some(again) = &self.again {
            again.setup.progress.published.fetch_add(messages, Ordering::Relaxed);
        }
    }

    pub(super) fn count_failed(&self) {
        if let Some(again) = &self.again {
            again.setup.progress.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn note_read(&self) {
        if let Some(again) = &self.again {
            again
                .setup
                .progress
                .read
                .store(self.cursor.position(), Ordering::Relaxed);
        }
    }

    /// What is about to be settled is gone, where it was a dead letter.
    pub(super) fn settle_letters(&self) {
        if let Some(kept) = self.again.as_ref().and_then(RunningRepublishing::kept) {
            // Not what lies before each: that may have been passed over, and stays.
            self.settleable
                .iter()
                .for_each(|settled| settle_letter(kept, *settled.numbers.end()));
        }
    }

    /// What becomes of a record that was refused once more.
    pub(super) async fn store_refused_again(&self, record: &Record, failure: &PublishFailure) {
        let Some(again) = &self.again else { return };
        self.count_failed();
        let Some(kept) = again.kept() else {
            tracing::warn!(
                route = self.route,
                sequence = record.sequence,
                reason = failure.label,
                "an event that is replayed was refused: {failure}"
            );
            return;
        };
        let letter = match DeadLetter::decode(&record.bytes) {
            Ok(before) => DeadLetter {
                reason: failure.label.into(),
                text: failure.text.clone(),
                at_ms: now_ms(),
                attempts: before.attempts.saturating_add(1),
                ..before
            },
            Err(_) => return,
        };
        tracing::warn!(
            route = self.route,
            sequence = letter.sequence,
            reason = failure.label,
            attempts = letter.attempts,
            "a dead letter that is redriven was refused again: {failure}"
        );
        match self.dead_letters.append(&letter).await {
            Ok(_) => settle_letter(kept, record.sequence),
            // It stays the dead letter that it is.
            Err(error) => tracing::warn!(route = self.route, %error, "how often it was refused cannot be kept"),
        }
    }
}

/// Of a dead letter that is gone; of its neighbours nothing is known.
fn settle_letter(kept: &Cursor, number: u64) {
    kept.settle(number..=number);
}
