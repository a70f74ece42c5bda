//! For whom an event is, and what was there for each of them before it was followed.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{plan, sizes::RouteSizes};
use crate::{
    config::EventMatch,
    event::Event,
    spool::{AppendError, AppendReplies, Audience, Cursor, ReadError, Record, RecordClass, Spool},
};

/// Before the log is read again that could not be.
const AGAIN_DELAY: Duration = Duration::from_secs(10);

/// Which routes there are, and which events each wants. Clones share it.
#[derive(Clone, Default)]
pub struct EventRouting {
    subscriptions: Arc<RwLock<Vec<RouteSubscription>>>,
}

/// What one route wants.
#[derive(Clone)]
pub struct RouteSubscription {
    pub matches: EventMatch,
    pub cursor: Arc<Cursor>,
}

impl EventRouting {
    pub fn new(subscriptions: Vec<RouteSubscription>) -> Self {
        Self {
            subscriptions: Arc::new(RwLock::new(subscriptions)),
        }
    }

    /// Other routes, or routes that want something else. What is appended after this returns is for these; what was
    /// appended before is in the log's queue, if it is not in the log.
    pub fn replace(&self, subscriptions: Vec<RouteSubscription>) {
        *self.subscriptions.write() = subscriptions;
    }

    /// The routes that want an event.
    #[cfg(test)]
    pub(super) fn audience(&self, event: &Event) -> Audience {
        audience(&self.subscriptions.read(), event)
    }

    /// Gives an event's record to the log, for the routes that want it.
    ///
    /// # Errors
    ///
    /// Those of [`Spool::append_for`].
    pub fn append(
        &self,
        spool: &Spool,
        event: &Event,
        record: Bytes,
        class: RecordClass,
        (desk, ticket): (&Arc<AppendReplies>, u64),
    ) -> Result<(), AppendError> {
        // Held until it is in the queue: who replaces the subscriptions knows that what comes behind is for the new
        // ones.
        let subscriptions = self.subscriptions.read();
        spool.append_for(desk, ticket, record, class, audience(&subscriptions, event))
    }

    /// Counts what the log holds for each route and is not counted yet, from front to back, beside the routes that
    /// publish it. Ends once all is counted.
    pub async fn count_found(self, spool: Spool) {
        let Some(mut count) = PinnedCount::new(&self.subscriptions.read()) else {
            return;
        };
        let sizes = RouteSizes::now();
        let mut reader = spool.reader(count.next);
        while count.next <= count.through {
            // What every route has settled meanwhile need not be read.
            let lowest = count.lowest();
            if lowest >= count.next {
                count.next = lowest + 1;
                reader.seek(count.next);
                continue;
            }
            let mut read = Vec::new();
            match reader
                .next(sizes.read_records_max, sizes.read_bytes_max, &mut read)
                .await
            {
                Ok(read_through) => {
                    read.retain(|record| record.sequence <= count.through);
                    count.add(&read, read_through.min(count.through));
                    count.next = read_through + 1;
                }
                Err(ReadError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "what the routes pin of the spool cannot be counted; it is tried again");
                    tokio::time::sleep(AGAIN_DELAY).await;
                }
            }
        }
    }
}

fn audience(subscriptions: &[RouteSubscription], event: &Event) -> Audience {
    let wanting = subscriptions
        .iter()
        .filter(|subscription| subscription.matches.accepts(&event.kind, &event.endpoint));
    Audience::from_cursors(wanting.map(|subscription| &*subscription.cursor))
}

/// The counting of what is not counted yet.
struct PinnedCount {
    /// Each with the numbers that are.
    uncounted: Vec<(RouteSubscription, RangeInclusive<u64>)>,
    /// All before was counted.
    next: u64,
    through: u64,
}

impl PinnedCount {
    /// `None`: there is nothing to count.
    fn new(subscriptions: &[RouteSubscription]) -> Option<Self> {
        let uncounted: Vec<_> = subscriptions
            .iter()
            .filter_map(|subscription| Some((subscription.clone(), subscription.cursor.uncounted()?)))
            .collect();
        Some(Self {
            next: *uncounted.iter().map(|(_, numbers)| numbers.start()).min()?,
            through: *uncounted.iter().map(|(_, numbers)| numbers.end()).max()?,
            uncounted,
        })
    }

    /// All up to here is settled by every route.
    fn lowest(&self) -> u64 {
        let positions = self.uncounted.iter().map(|(route, _)| route.cursor.position());
        positions.min().unwrap_or(0)
    }

    /// Counts what is there from `next` through a number.
    fn add(&self, records: &[Record], through: u64) {
        let interests: Vec<_> = records
            .iter()
            .map(|record| Event::interest(&record.bytes).ok())
            .collect();
        for (RouteSubscription { matches, cursor }, numbers) in &self.uncounted {
            let (first, last) = (self.next.max(*numbers.start()), through.min(*numbers.end()));
            if first > last {
                continue;
            }
            let found = records.iter().zip(&interests);
            let found = found.filter(|(record, _)| (first..=last).contains(&record.sequence));
            let mut end = None;
            let found: Vec<_> = found
                .map(|(record, interest)| {
                    end = Some(record.sequence);
                    let is_wanted = plan::accepts(matches, *interest);
                    (record.sequence, is_wanted.then_some(record.bytes.len()))
                })
                .collect();
            let hole = (end != Some(last)).then_some((last, None));
            cursor.count(first, found.into_iter().chain(hole));
        }
    }
}
