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
    pub fn of<'c>(cursors: impl IntoIterator<Item = &'c Cursor>) -> Self {
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
pub(super) struct Appended {
    pub number: u64,
    pub bytes: u64,
    pub audience: Option<Audience>,
}

/// The open cursors of a log, each at its place in an [`Audience`].
#[derive(Default)]
pub(super) struct Followers {
    cursors: Vec<Option<Arc<CursorState>>>,
}

impl Followers {
    /// Whether the cursor is new among them.
    pub(super) fn add(&mut self, cursor: &Arc<CursorState>) -> bool {
        let is_one = |open: &Option<Arc<CursorState>>| open.as_ref().is_some_and(|open| Arc::ptr_eq(open, cursor));
        if self.cursors.iter().any(is_one) {
            return false;
        }
        let free = self.cursors.iter().position(Option::is_none);
        let place = free.unwrap_or(self.cursors.len());
        cursor.set_place(place);
        match free {
            Some(place) => self.cursors[place] = Some(cursor.clone()),
            None => self.cursors.push(Some(cursor.clone())),
        }
        true
    }

    pub(super) fn remove(&mut self, cursor: &Arc<CursorState>) {
        for open in &mut self.cursors {
            open.take_if(|open| Arc::ptr_eq(open, cursor));
        }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &Arc<CursorState>)> {
        let cursors = self.cursors.iter().enumerate();
        cursors.filter_map(|(place, cursor)| Some((place, cursor.as_ref()?)))
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
    pub(super) fn count(&self, first: u64, records: &[Appended]) {
        for (place, cursor) in self.iter() {
            let bytes = |record: &Appended| match record.audience {
                Some(audience) => audience.wants(place).then_some(record.bytes),
                // Whoever wants it settles it.
                None => Some(0),
            };
            cursor.count_appended(first, records.iter().map(|record| (record.number, bytes(record))));
        }
    }
}
