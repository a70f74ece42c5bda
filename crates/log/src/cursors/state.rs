//! One cursor in memory: what it has settled, and what it pins.
//!
//! A cursor *pins* a record that it wants and has not settled: for its sake the record stays. The writer counts records
//! as they are appended for an [`Audience`](crate::Audience), and settles them at once for the cursors that do
//! not want them, so that one that reads nothing pins no more than its own. What was there when the cursor was followed
//! is counted by [`Cursor::count`](crate::Cursor::count). A record that is damaged counts until the position has
//! passed it together with all that is counted.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::SETTLED_RANGES_MAX;
use crate::settled::SettledRanges;

/// A cursor, shared by its handles and those who write it.
pub(crate) struct CursorState {
    /// The low mark: all up to here is settled.
    pub position: AtomicU64,
    marks: Mutex<CursorMarks>,
    /// What `marks` counts, and whether they have room for another range, for those who only look.
    pinned_bytes: AtomicU64,
    has_room_for_ranges: AtomicBool,
    /// Pinned by records that are being written. Of the writer alone.
    reserved_bytes: AtomicU64,
    /// What it may pin; `u64::MAX` where there is no limit.
    pinned_bytes_max: AtomicU64,
    /// Above the limit nothing more is appended for it.
    refuses: AtomicBool,
    /// Which bit of an audience is its own.
    place: AtomicU64,
}

struct CursorMarks {
    /// What is settled above the position.
    settled: SettledRanges,
    /// Bytes of the records that were counted and are not settled.
    pinned_bytes: u64,
    counted_through: u64,
    /// These were there when the cursor was followed, and are not counted yet.
    uncounted: Option<RangeInclusive<u64>>,
}

impl CursorState {
    pub(super) fn new(position: u64, settled: SettledRanges) -> Arc<Self> {
        Arc::new(Self {
            position: AtomicU64::new(position),
            marks: Mutex::new(CursorMarks {
                settled,
                pinned_bytes: 0,
                counted_through: 0,
                uncounted: None,
            }),
            pinned_bytes: AtomicU64::new(0),
            has_room_for_ranges: AtomicBool::new(true),
            reserved_bytes: AtomicU64::new(0),
            pinned_bytes_max: AtomicU64::new(u64::MAX),
            refuses: AtomicBool::new(false),
            place: AtomicU64::new(u64::MAX),
        })
    }

    /// One that no page has.
    pub(crate) fn detached(position: u64) -> Arc<Self> {
        Self::new(position, SettledRanges::default())
    }

    pub(crate) fn mark_settled(&self, numbers: RangeInclusive<u64>) {
        self.settle_records([(numbers, 0)]);
    }

    /// Settles numbers, of which the last is that of a record that takes so many bytes.
    pub(crate) fn settle_records(&self, records: impl IntoIterator<Item = (RangeInclusive<u64>, u64)>) {
        let mut marks = self.marks.lock();
        let mut joined: Option<RangeInclusive<u64>> = None;
        for (numbers, bytes) in records {
            let number = *numbers.end();
            let is_counted = !marks.uncounted.as_ref().is_some_and(|range| range.contains(&number));
            if bytes > 0 && is_counted && !self.is_settled(&marks, number) {
                marks.pinned_bytes = marks.pinned_bytes.saturating_sub(bytes);
            }
            // Neighbours are settled together.
            joined = match joined {
                Some(before) if *before.end() + 1 == *numbers.start() => Some(*before.start()..=number),
                before => {
                    before.into_iter().for_each(|before| self.raise(&mut marks, before));
                    Some(numbers)
                }
            };
        }
        joined.into_iter().for_each(|numbers| self.raise(&mut marks, numbers));
        self.show(&mut marks);
    }

    /// Counts records that were appended, in rising order, all that there are between `first` and the last. Each with
    /// what it takes, if the cursor wants it.
    pub(crate) fn count_appended(&self, first: u64, records: impl IntoIterator<Item = (u64, Option<u64>)>) {
        let mut marks = self.marks.lock();
        self.count(&mut marks, first, records);
        self.release_reserved();
        self.show(&mut marks);
    }

    /// Counts records that were there when the cursor was followed, likewise.
    pub(crate) fn count_found(&self, first: u64, records: impl IntoIterator<Item = (u64, Option<u64>)>) {
        let mut marks = self.marks.lock();
        let next = self.count(&mut marks, first, records);
        if let Some(uncounted) = marks.uncounted.take() {
            let left = next.max(*uncounted.start())..=*uncounted.end();
            marks.uncounted = Some(left).filter(|range| !range.is_empty());
        }
        self.show(&mut marks);
    }

    /// Returns the number behind the last one.
    fn count(&self, marks: &mut CursorMarks, first: u64, records: impl IntoIterator<Item = (u64, Option<u64>)>) -> u64 {
        let mut next = first;
        let mut unwanted_from = first;
        for (number, bytes) in records {
            if let Some(bytes) = bytes {
                self.settle_unwanted(marks, unwanted_from..=number - 1);
                unwanted_from = number + 1;
                if !self.is_settled(marks, number) {
                    marks.pinned_bytes += bytes;
                }
            }
            next = number + 1;
        }
        self.settle_unwanted(marks, unwanted_from..=next - 1);
        marks.counted_through = marks.counted_through.max(next - 1);
        next
    }

    /// What there is up to `through`, and is not settled, is yet to be counted, whatever was counted before.
    pub(crate) fn expect_count(&self, through: u64) {
        let first = self.position.load(Ordering::Acquire) + 1;
        let mut marks = self.marks.lock();
        marks.pinned_bytes = 0;
        marks.uncounted = Some(first..=through).filter(|range| !range.is_empty());
        self.show(&mut marks);
    }

    /// Settles what is not wanted, unless that makes more ranges than are kept: it is then read and settled by the
    /// cursor's owner.
    fn settle_unwanted(&self, marks: &mut CursorMarks, numbers: RangeInclusive<u64>) {
        let joins = || {
            let position = self.position.load(Ordering::Acquire);
            position + 1 >= *numbers.start() || marks.settled.contains(numbers.start() - 1)
        };
        if !numbers.is_empty() && (marks.settled.len() < SETTLED_RANGES_MAX || joins()) {
            self.raise(marks, numbers);
        }
    }

    fn raise(&self, marks: &mut CursorMarks, numbers: RangeInclusive<u64>) {
        let position = marks
            .settled
            .insert_settled(self.position.load(Ordering::Acquire), numbers);
        self.position.fetch_max(position, Ordering::AcqRel);
    }

    fn is_settled(&self, marks: &CursorMarks, number: u64) -> bool {
        number <= self.position.load(Ordering::Acquire) || marks.settled.contains(number)
    }

    fn show(&self, marks: &mut CursorMarks) {
        if self.position.load(Ordering::Acquire) >= marks.counted_through {
            // What was counted and never settled by its owner was damaged, and passed.
            marks.pinned_bytes = 0;
        }
        self.pinned_bytes.store(marks.pinned_bytes, Ordering::Release);
        let has_room = marks.settled.len() < SETTLED_RANGES_MAX;
        self.has_room_for_ranges.store(has_room, Ordering::Release);
    }

    pub(crate) fn settled(&self) -> Vec<RangeInclusive<u64>> {
        self.marks.lock().settled.iter().collect()
    }

    pub(super) fn snapshot(&self) -> (u64, Vec<RangeInclusive<u64>>) {
        let marks = self.marks.lock();
        let position = self.position.load(Ordering::Acquire);
        let above = marks.settled.iter().filter(|range| *range.start() > position);
        (position, above.take(SETTLED_RANGES_MAX).collect())
    }

    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes.load(Ordering::Acquire)
    }

    /// What was there when the cursor was followed, and is not counted yet.
    pub(crate) fn uncounted(&self) -> Option<RangeInclusive<u64>> {
        self.marks.lock().uncounted.clone()
    }

    /// Whether what it wants is refused above its limit.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn refuses_above_limit(&self) -> bool {
        self.refuses.load(Ordering::Acquire)
    }

    pub(crate) fn limit(&self, pinned_bytes_max: u64) {
        self.pinned_bytes_max.store(pinned_bytes_max, Ordering::Release);
    }

    pub(crate) fn refuse_above_limit(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Release);
    }

    /// Whether it pins more than `share` of what it may, or is about to keep more ranges than it can.
    pub(crate) fn is_above(&self, share: f64) -> bool {
        let max = self.pinned_bytes_max.load(Ordering::Acquire);
        max < u64::MAX && (self.pinned_bytes() as f64 > max as f64 * share || !self.has_room_for_ranges())
    }

    /// Whether a record of so many bytes, which it wants, must not be appended. Where it pins nothing, one of any size
    /// may.
    pub(crate) fn refuses(&self, bytes: u64) -> bool {
        let max = self.pinned_bytes_max.load(Ordering::Acquire);
        if max == u64::MAX || !self.refuses.load(Ordering::Acquire) {
            return false;
        }
        let pinned = self.pinned_bytes() + self.reserved_bytes.load(Ordering::Relaxed);
        pinned > 0 && (pinned + bytes > max || !self.has_room_for_ranges())
    }

    fn has_room_for_ranges(&self) -> bool {
        self.has_room_for_ranges.load(Ordering::Acquire)
    }

    /// A record that it wants is being written.
    pub(crate) fn reserve(&self, bytes: u64) {
        self.reserved_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn release_reserved(&self) {
        self.reserved_bytes.store(0, Ordering::Relaxed);
    }

    pub(crate) fn place(&self) -> usize {
        self.place.load(Ordering::Acquire) as usize
    }

    pub(crate) fn set_place(&self, place: usize) {
        self.place.store(place as u64, Ordering::Release);
    }
}
