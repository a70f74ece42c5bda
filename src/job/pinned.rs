//! For whom an event is, and what was there before this process for each of them.

use std::{sync::Arc, time::Duration};

use super::{Job, plan, sizes::RouteSizes};
use crate::{
    config::Match,
    event::Event,
    sink::Sink,
    spool::{Audience, Cursor, ReadError, Record, Spool},
};

/// Before the log is read again that could not be.
const AGAIN_DELAY: Duration = Duration::from_secs(10);

/// Which routes there are, and which events each wants.
#[derive(Clone, Default)]
pub struct Routing {
    routes: Arc<Vec<(Match, Arc<Cursor>)>>,
}

impl Routing {
    pub fn of<S: Sink>(jobs: &[Job<S>]) -> Self {
        let routes = jobs.iter().map(|job| {
            let matches = job.plan.matches().clone();
            (matches, job.cursor.clone())
        });
        Self {
            routes: Arc::new(routes.collect()),
        }
    }

    /// The routes that want an event.
    pub fn audience(&self, event: &Event) -> Audience {
        let accepts = |matches: &Match| matches.accepts(&event.kind, &event.endpoint);
        let wanting = self.routes.iter().filter(|(matches, _)| accepts(matches));
        Audience::of(wanting.map(|(_, cursor)| &**cursor))
    }

    /// Counts what the log held for each route when it was opened, from front to back, beside the routes that publish
    /// it; then never ends.
    pub async fn count_found(self, spool: Spool) {
        let (through, sizes) = (spool.state().head, RouteSizes::now());
        let mut reader = spool.reader(self.lowest() + 1);
        let mut next = self.lowest() + 1;
        while next <= through && !self.routes.is_empty() {
            // What every route has settled meanwhile need not be read.
            if self.lowest() >= next {
                next = self.lowest() + 1;
                reader.seek(next);
                continue;
            }
            let mut read = Vec::new();
            match reader
                .next(sizes.read_records_max, sizes.read_bytes_max, &mut read)
                .await
            {
                Ok(read_through) => {
                    read.retain(|record| record.sequence <= through);
                    self.count(next, &read, read_through.min(through));
                    next = read_through + 1;
                }
                Err(ReadError::Closed) => break,
                Err(error) => {
                    tracing::warn!(%error, "what the routes pin of the spool cannot be counted; it is tried again");
                    tokio::time::sleep(AGAIN_DELAY).await;
                }
            }
        }
        std::future::pending().await
    }

    /// All up to here is settled by every route.
    fn lowest(&self) -> u64 {
        let positions = self.routes.iter().map(|(_, cursor)| cursor.position());
        positions.min().unwrap_or(0)
    }

    /// Counts what is there from `first` through a number.
    fn count(&self, first: u64, records: &[Record], through: u64) {
        let interests: Vec<_> = records
            .iter()
            .map(|record| Event::interest(&record.bytes).ok())
            .collect();
        for (matches, cursor) in self.routes.iter() {
            let found = records.iter().zip(&interests).map(|(record, interest)| {
                let is_wanted = plan::accepts(matches, *interest);
                (record.sequence, is_wanted.then_some(record.bytes.len()))
            });
            let last = records.last().map_or(first - 1, |record| record.sequence);
            let hole = (last < through).then_some((through, None));
            cursor.count(first, found.chain(hole));
        }
    }
}
