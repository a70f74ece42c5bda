//! Which cursors a record is appended for.

use std::sync::Arc;

use super::{
    Cursor,
    cursors::{CURSORS_MAX, CursorState},
};

/// The cursors that want a record, of those that are open; all others do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Audience([u64; CURSORS_MAX / 64]);

impl Audience {
    /// The cursors are of the log that the record is appended to.
    pub fn from_cursors<'c>(cursors: impl IntoIterator<Item = &'c Cursor>) -> Self {
        let mut audience = Self::default();
        for cursor in cursors {
            let place = cursor.state.place();
            if let Some(word) = audience.0.get_mut(place / 64) {
                *word |= 1 << (place % 64);
            }
        }
        audience
    }

    fn wants(&self, place: usize) -> bool {
        self.0[place / 64] & (1 << (place % 64)) != 0
    }
}

/// A record that was appended.
pub(super) struct AppendedRecord {
    pub number: u64,
    pub bytes: u64,
    pub audience: Option<Audience>,
}

/// The open cursors of a log, each at its place in an [`Audience`].
#[derive(Default)]
pub(super) struct OpenCursors {
    cursors: Vec<Option<OpenCursor>>,
}

struct OpenCursor {
    cursor: Arc<CursorState>,
    /// What is appended is counted for it, or settled. Before, it is neither: the cursor's owner finds it in the log.
    is_counted: bool,
}

impl OpenCursors {
    /// Gives the cursor a place, if it has none.
    pub(super) fn add(&mut self, cursor: &Arc<CursorState>) {
        if self.find(cursor).is_some() {
            return;
        }
        let free = self.cursors.iter().position(Option::is_none);
        let place = free.unwrap_or(self.cursors.len());
        cursor.set_place(place);
        let follower = Some(OpenCursor {
            cursor: cursor.clone(),
            is_counted: false,
        });
        match free {
            Some(place) => self.cursors[place] = follower,
            None => self.cursors.push(follower),
        }
    }

    /// Whether what is appended is counted for the cursor.
    pub(super) fn counts(&self, cursor: &Arc<CursorState>) -> bool {
        self.find(cursor)
            .and_then(|place| self.cursors[place].as_ref())
            .is_some_and(|follower| follower.is_counted)
    }

    /// From here on what is appended is counted for the cursor.
    pub(super) fn count_for(&mut self, cursor: &Arc<CursorState>) {
        if let Some(place) = self.find(cursor)
            && let Some(follower) = &mut self.cursors[place]
        {
            follower.is_counted = true;
        }
    }

    pub(super) fn remove(&mut self, cursor: &Arc<CursorState>) {
        if let Some(place) = self.find(cursor) {
            self.cursors[place] = None;
        }
    }

    fn find(&self, cursor: &Arc<CursorState>) -> Option<usize> {
        let is_one = |open: &Option<OpenCursor>| open.as_ref().is_some_and(|open| Arc::ptr_eq(&open.cursor, cursor));
        self.cursors.iter().position(is_one)
    }

    /// Those that are counted for.
    fn iter(&self) -> impl Iterator<Item = (usize, &Arc<CursorState>)> {
        let followers = self.cursors.iter().enumerate();
        followers.filter_map(|(place, follower)| {
            let follower = follower.as_ref().filter(|follower| follower.is_counted)?;
            Some((place, &follower.cursor))
        })
    }

    fn wanting(&self, audience: Audience) -> impl Iterator<Item = &Arc<CursorState>> {
        let cursors = self.iter().filter(move |(place, _)| audience.wants(*place));
        cursors.map(|(_, cursor)| cursor)
    }

    /// Whether any of those who want it refuses a record of so many bytes.
    pub(super) fn refuse(&self, audience: Audience, bytes: u64) -> bool {
        self.wanting(audience).any(|cursor| cursor.refuses(bytes))
    }

    /// A record is being written.
    pub(super) fn reserve(&self, audience: Audience, bytes: u64) {
        self.wanting(audience).for_each(|cursor| cursor.reserve(bytes));
    }

    /// What was reserved was not written.
    pub(super) fn release_reserved(&self) {
        self.iter().for_each(|(_, cursor)| cursor.release_reserved());
    }

    /// Counts records that are durable, in rising order. There is none between `first` and them.
    pub(super) fn count(&self, first: u64, records: &[AppendedRecord]) {
        for (place, cursor) in self.iter() {
            let bytes = |record: &AppendedRecord| match record.audience {
                Some(audience) => audience.wants(place).then_some(record.bytes),
                // Whoever wants it settles it.
                None => Some(0),
            };
            cursor.count_appended(first, records.iter().map(|record| (record.number, bytes(record))));
        }
    }
}
