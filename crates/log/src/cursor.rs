//! The handle of a cursor, and where a log makes it.

use std::{
    ops::RangeInclusive,
    sync::{Arc, atomic::Ordering},
};

use super::{
    CursorBacklog, CursorStart, OpenError, Spool, cursors::CursorState, segment::frame_len, shared::LogShared,
};

/// The position of a route: everything up to it is confirmed, dead-lettered or not the route's; and what of that kind
/// is above it. Clones share it.
#[derive(Clone)]
pub struct Cursor {
    pub(super) state: Arc<CursorState>,
    pub(super) shared: Arc<LogShared>,
}

impl Cursor {
    /// The sequence number of the last settled record.
    pub fn position(&self) -> u64 {
        self.state.position.load(Ordering::Acquire)
    }

    /// Settles everything up to `sequence`, at most to the head. Made durable soon after, and at
    /// [`Spool::close`]; records behind every cursor are deleted, a segment at a time.
    pub fn advance(&self, sequence: u64) {
        self.settle(0..=sequence);
    }

    /// Settles these numbers, whatever lies before them; the position follows once nothing does. Numbers that no record
    /// has are settled with their neighbours: of a record, from the number after the one that was read before it.
    pub fn settle(&self, numbers: RangeInclusive<u64>) {
        let last = (*numbers.end()).min(self.shared.head());
        self.state.mark_settled(*numbers.start()..=last);
    }

    /// Like [`Cursor::settle`], where the last of the numbers of each is that of a record, with its length, which is
    /// pinned no longer. Many at a time cost little more than one.
    pub fn settle_records(&self, records: impl IntoIterator<Item = (RangeInclusive<u64>, usize)>) {
        let head = self.shared.head();
        let framed = records.into_iter().map(|(numbers, record_bytes)| {
            let last = (*numbers.end()).min(head);
            (*numbers.start()..=last, frame_len(record_bytes))
        });
        self.state.settle_records(framed);
    }

    /// One of them.
    pub fn settle_record(&self, numbers: RangeInclusive<u64>, record_bytes: usize) {
        self.settle_records([(numbers, record_bytes)]);
    }

    /// Counts what was in the log when the cursor was followed, from front to back: all records from `first` on as far
    /// as these go, each with its number, and its length if it is wanted. Those that are not wanted are settled.
    pub fn count(&self, first: u64, records: impl IntoIterator<Item = (u64, Option<usize>)>) {
        let records = records.into_iter();
        let framed = records.map(|(number, len)| (number, len.map(frame_len)));
        self.state.count_found(first, framed);
    }

    /// What of the log is there for its sake: the records that it wants and has not settled.
    pub fn pinned_bytes(&self) -> u64 {
        self.state.pinned_bytes()
    }

    /// From here on it may pin so much. More is taken until [`Cursor::refuse_above_limit`].
    pub fn limit(&self, pinned_bytes_max: u64) {
        self.state.limit(pinned_bytes_max);
    }

    /// Whether records that it wants are refused ([`super::AppendError::RouteFull`]) rather than that it pins more than
    /// it may.
    pub fn refuse_above_limit(&self, refuses: bool) {
        self.state.refuse_above_limit(refuses);
    }

    /// What was in the log when the cursor was followed, and is yet to be counted.
    pub fn uncounted(&self) -> Option<RangeInclusive<u64>> {
        self.state.uncounted()
    }

    #[cfg(any(test, feature = "testing"))]
    pub fn refuses_above_limit(&self) -> bool {
        self.state.refuses_above_limit()
    }

    /// Whether it pins more than this share of its limit.
    pub fn is_above(&self, share: f64) -> bool {
        self.state.is_above(share)
    }

    /// What is not settled, and what the segments that hold it take on disk: what this cursor pins.
    pub fn backlog(&self) -> CursorBacklog {
        self.shared.backlog(self.position(), &self.settled())
    }

    /// What is settled above the position, in rising order: for [`super::LogReader::skip_settled`].
    pub fn settled(&self) -> Vec<RangeInclusive<u64>> {
        self.state.settled()
    }
}

impl Spool {
    /// The names of the cursors on disk.
    pub fn cursors(&self) -> Vec<String> {
        self.handle.inlet.cursor_names()
    }

    /// Opens the cursor `name`, or makes it at `start`, durably. One at a time: handles of one name share the position.
    ///
    /// Waits for the disk.
    pub fn cursor(&self, name: &str, start: CursorStart) -> Result<Cursor, OpenError> {
        Ok(Cursor {
            state: self.handle.inlet.cursor(name, start)?,
            shared: self.handle.shared.clone(),
        })
    }

    /// Like [`Spool::cursor`], for one that others may append for while it is made: what is appended is not counted for
    /// it, nor settled, until [`Spool::follow`]. In between every [`Audience`](super::Audience) must come to know of
    /// it.
    pub fn open_cursor(&self, name: &str, start: CursorStart) -> Result<Cursor, OpenError> {
        Ok(Cursor {
            state: self.handle.inlet.open_cursor(name, start)?,
            shared: self.handle.shared.clone(),
        })
    }

    /// A cursor of nobody's, at a position: it is in memory alone, and keeps nothing.
    pub fn detached_cursor(&self, position: u64) -> Cursor {
        Cursor {
            state: CursorState::detached(position),
            shared: self.handle.shared.clone(),
        }
    }

    /// From here on what is appended is counted for the cursor, or settled, as its audience says. All that was given to
    /// [`Spool::append_for`] before, and is not settled, is yet to be counted ([`Cursor::uncounted`]), also where it
    /// was counted already. Waits for the disk.
    pub fn follow(&self, cursor: &Cursor) -> Result<(), OpenError> {
        self.handle.inlet.follow(cursor.state.clone())
    }

    /// The number of the last record that was given to [`Spool::append_for`] before this call, or a higher one. Waits
    /// for the disk.
    pub fn last_number(&self) -> Result<u64, OpenError> {
        self.handle.inlet.last_number()
    }

    /// Makes durable where the cursors are. `false`: there is no room for that, or the file system is read-only, and a
    /// process that opens the spool next begins where they were. Waits for the disk.
    pub fn keep_cursors(&self) -> bool {
        self.handle.inlet.keep_cursors()
    }

    /// Forgets the cursor `name` and what only it kept. Waits for the disk.
    pub fn remove_cursor(&self, name: &str) -> Result<(), OpenError> {
        self.handle.inlet.remove_cursor(name)
    }
}
