//! What was read while its lane had no room: by number alone, lane by lane, to be read again when there is.
//!
//! So a lane that stands holds back nothing but its own, and costs some bytes for each record. To find work for the
//! other lanes the log is read past what is deferred, which is then read twice: worth it while that finds something,
//! and not where all there is goes to one lane that is just slow. So looking ahead takes credit, which what it finds
//! earns.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
    ops::Range,
    time::Duration,
};

use tokio::time::Instant;

use super::sizes::RouteSizes;
use crate::{
    sink::MessagePlace,
    spool::{Cursor, LogReader, ReadError, Record, Spool},
};

/// Credit for looking ahead that each of these gives.
const CREDIT_FOUND: usize = 32;
const CREDIT_PER_LOOK: usize = 32;
/// Each such time gives credit, too.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The deferred records of a session.
#[derive(Default)]
pub(super) struct DeferredRecords {
    lanes: BTreeMap<u64, DeferredLane>,
    /// How many of each stream there are, and in which lane's queue.
    streams: HashMap<u64, (u64, usize)>,
    records: usize,
    /// Credit that was spent, by this time.
    spent: usize,
    spent_at: Option<Instant>,
}

/// Of one lane, in the order in which they are to go out.
struct DeferredLane {
    records: VecDeque<(u64, u64)>,
    /// The lane whose room decides: that of the first record, which can change while a session learns where messages
    /// go.
    waits_for: u64,
    reader: Option<LogReader>,
    /// Where that goes on.
    next: u64,
    /// What was read again, in rising order, and which numbers that covers.
    read: Vec<Record>,
    covered: Range<u64>,
}

/// The first record of a queue.
pub(super) enum NextDeferred {
    Record(Record),
    /// The log does not have it any more: it was damaged.
    Gone(u64),
}

impl DeferredRecords {
    /// Whether a message of this place has to go behind what is deferred, and in which queue.
    pub(super) fn behind(&self, place: MessagePlace) -> Option<u64> {
        let of_stream = self.streams.get(&place.stream).map(|(lane, _)| *lane);
        of_stream.or_else(|| self.lanes.contains_key(&place.lane).then_some(place.lane))
    }

    /// Defers a record, if there is credit for it.
    pub(super) fn add(&mut self, sequence: u64, place: MessagePlace, now: Instant) -> bool {
        let before = *self.spent_at.get_or_insert(now);
        let looks = (now - before).as_millis() / LOOK_INTERVAL.as_millis();
        if looks > 0 {
            self.spent = self
                .spent
                .saturating_sub(CREDIT_PER_LOOK.saturating_mul(looks as usize));
            self.spent_at = Some(now);
        }
        if self.spent >= RouteSizes::now().credit_max {
            return false;
        }
        self.spent += 1;
        let lane = self.behind(place).unwrap_or(place.lane);
        let queue = self.lanes.entry(lane).or_insert_with(|| DeferredLane {
            records: VecDeque::new(),
            waits_for: place.lane,
            reader: None,
            next: 0,
            read: Vec::new(),
            covered: 0..0,
        });
        queue.records.push_back((sequence, place.stream));
        self.streams.entry(place.stream).or_insert((lane, 0)).1 += 1;
        self.records += 1;
        true
    }

    /// A message went out: if others were deferred before, looking ahead found it.
    pub(super) fn found(&mut self) {
        if self.records > 0 {
            self.spent = self.spent.saturating_sub(CREDIT_FOUND);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.records >= RouteSizes::now().deferred_records_max
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// A lane with something deferred that has room.
    pub(super) fn lane_with_room(&self, has_room: impl Fn(u64) -> bool) -> Option<u64> {
        let mut lanes = self.lanes.iter();
        lanes
            .find(|(_, queue)| has_room(queue.waits_for))
            .map(|(lane, _)| *lane)
    }

    /// Reads the first record of a lane's queue again, and some that follow. Cancel-safe.
    pub(super) async fn fetch(&mut self, lane: u64, spool: &Spool, cursor: &Cursor) -> Result<(), ReadError> {
        let Some(queue) = self.lanes.get_mut(&lane) else {
            return Ok(());
        };
        let Some(&(first, _)) = queue.records.front() else {
            return Ok(());
        };
        let reader = match &mut queue.reader {
            Some(reader) if queue.next <= first => reader,
            other => {
                let reader = other.get_or_insert_with(|| spool.reader(first));
                reader.seek(first);
                queue.next = first;
                // What lies between those of this lane is settled by now, most of it.
                reader.skip_settled(cursor.settled());
                reader
            }
        };
        let sizes = RouteSizes::now();
        let (records_max, bytes_max) = (sizes.deferred_read_records_max, sizes.deferred_read_bytes_max);
        loop {
            queue.read.clear();
            queue.covered = 0..0;
            let through = reader.next(records_max, bytes_max, &mut queue.read).await?;
            let from = mem::replace(&mut queue.next, through + 1);
            if through >= first {
                queue.covered = from..through + 1;
                return Ok(());
            }
        }
    }

    /// The first record of a lane's queue, if it was read again.
    pub(super) fn first(&self, lane: u64) -> Option<NextDeferred> {
        let queue = self.lanes.get(&lane)?;
        let &(first, _) = queue.records.front()?;
        if !queue.covered.contains(&first) {
            return None;
        }
        Some(
            match queue.read.binary_search_by_key(&first, |record| record.sequence) {
                Ok(at) => NextDeferred::Record(queue.read[at].clone()),
                Err(_) => NextDeferred::Gone(first),
            },
        )
    }

    /// The first record of a lane's queue goes out, or is gone.
    pub(super) fn pop(&mut self, lane: u64) {
        let Some(queue) = self.lanes.get_mut(&lane) else { return };
        let Some((_, stream)) = queue.records.pop_front() else {
            return;
        };
        if queue.records.is_empty() {
            self.lanes.remove(&lane);
        }
        self.records -= 1;
        if let Some((_, count)) = self.streams.get_mut(&stream) {
            *count -= 1;
            if *count == 0 {
                self.streams.remove(&stream);
            }
        }
    }

    /// The first record of a lane's queue waits for another lane's room.
    pub(super) fn wait_for(&mut self, lane: u64, other: u64) {
        if let Some(queue) = self.lanes.get_mut(&lane) {
            queue.waits_for = other;
        }
    }
}
