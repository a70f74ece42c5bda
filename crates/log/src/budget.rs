//! What readers have handed out and is still held by anybody, all readers together, within a limit.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Record, sizes::ReadSizes};

/// A record's cost in memory beyond its bytes.
pub const RECORD_OVERHEAD_BYTES: usize = 64;

/// The memory that all readers of a spool share.
pub(super) struct ReadBudget {
    bytes_max: AtomicUsize,
    held: AtomicUsize,
    freed: Notify,
}

/// The part of one reader.
pub(super) struct ReadShare {
    budget: Arc<ReadBudget>,
    held: AtomicUsize,
    bytes_min: usize,
}

impl ReadBudget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max: AtomicUsize::new(bytes_max),
            held: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }

    /// What is held above the new limit stays until it is let go.
    pub(super) fn limit(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl ReadShare {
    pub(super) fn new(budget: Arc<ReadBudget>) -> Arc<Self> {
        Arc::new(Self {
            budget,
            held: AtomicUsize::new(0),
            bytes_min: ReadSizes::now().reader_bytes_min,
        })
    }

    /// How many bytes the reader may hold beyond what it holds, once that is more than none. Cancel-safe.
    pub(super) async fn room(&self) -> usize {
        loop {
            let freed = self.budget.freed.notified();
            tokio::pin!(freed);
            // From here on nothing that is freed is missed.
            freed.as_mut().enable();
            let own = self.bytes_min.saturating_sub(self.held.load(Ordering::Relaxed));
            let room = own.max(self.budget.bytes_max().saturating_sub(self.budget.held()));
            if room > 0 {
                return room;
            }
            freed.await;
        }
    }

    /// Counts a record for as long as any part of it is held.
    pub(super) fn charge(self: &Arc<Self>, record: Record) -> Record {
        let bytes = record.bytes.len() + RECORD_OVERHEAD_BYTES;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        let held = HeldRecord {
            payload: record.bytes,
            bytes,
            share: self.clone(),
        };
        Record {
            sequence: record.sequence,
            bytes: Bytes::from_owner(held),
        }
    }
}

struct HeldRecord {
    payload: Bytes,
    bytes: usize,
    share: Arc<ReadShare>,
}

impl AsRef<[u8]> for HeldRecord {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Drop for HeldRecord {
    fn drop(&mut self) {
        let budget = &self.share.budget;
        self.share.held.fetch_sub(self.bytes, Ordering::Relaxed);
        if budget.held.fetch_sub(self.bytes, Ordering::Relaxed) >= budget.bytes_max() {
            budget.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const READER_BYTES_MIN: usize = 1 << 20;

    fn record(bytes: usize) -> Record {
        Record {
            sequence: 1,
            bytes: vec![0; bytes].into(),
        }
    }

    #[tokio::test]
    async fn what_any_part_of_a_record_keeps_alive_counts_until_it_is_dropped() {
        let budget = Arc::new(ReadBudget::new(1000));
        let share = ReadShare::new(budget.clone());
        let charged = share.charge(record(500));
        let part = charged.bytes.slice(10..20);
        drop(charged);
        assert_eq!(budget.held(), 500 + RECORD_OVERHEAD_BYTES);
        drop(part);
        assert_eq!((budget.held(), share.held.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn a_reader_waits_for_room_unless_it_holds_little() {
        let budget = Arc::new(ReadBudget::new(READER_BYTES_MIN));
        let (greedy, modest) = (ReadShare::new(budget.clone()), ReadShare::new(budget.clone()));
        let held = greedy.charge(record(2 * READER_BYTES_MIN));
        assert_eq!(modest.room().now_or_never(), Some(READER_BYTES_MIN));
        let waiting = tokio::spawn({
            let greedy = greedy.clone();
            async move { greedy.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        assert_eq!(waiting.await.unwrap(), READER_BYTES_MIN);
    }
}
