//! The log's cursors: opened, made, made durable and given up.

use std::sync::Arc;

use super::{Log, path_error};
use crate::{
    CursorStart, OpenError,
    cursors::{self, CursorState, PathError},
};

impl Log {
    /// Makes durable where the cursors are; whether there was room for it.
    pub(crate) fn keep_cursors(&mut self) -> bool {
        self.sync_cursors();
        self.cursors.is_written(&self.shared)
    }

    /// Makes durable where the cursors are. The thread of the cursors does it while the log appends.
    pub(crate) fn sync_cursors(&mut self) {
        if let Err((path, error)) = self.cursors.sync(&self.shared) {
            self.fail(&format!("cursors {}: {error}", path.display()));
        }
    }

    pub(crate) fn cursor_names(&self) -> Vec<String> {
        self.cursors.names()
    }

    /// Opens the cursor, or makes it, and follows it.
    pub(crate) fn cursor(&mut self, name: &str, start: CursorStart) -> Result<Arc<CursorState>, OpenError> {
        let cursor = self.open_cursor(name, start)?;
        if !self.followers.counts(&cursor) {
            self.follow(&cursor);
        }
        Ok(cursor)
    }

    /// Opens the cursor, or makes it. What is appended is not counted for it, nor settled, before [`Log::follow`].
    pub(crate) fn open_cursor(&mut self, name: &str, start: CursorStart) -> Result<Arc<CursorState>, OpenError> {
        let cursor = self.find_or_make(name, start)?;
        self.followers.add(&cursor);
        Ok(cursor)
    }

    /// From here on what is appended is counted for the cursor, or settled, as its audience says; what is there is yet
    /// to be counted.
    pub(crate) fn follow(&mut self, cursor: &Arc<CursorState>) {
        self.followers.count_for(cursor);
        cursor.expect_count(self.next_sequence - 1);
    }

    /// The last number that is given out.
    pub(crate) fn last_number(&self) -> u64 {
        self.next_sequence - 1
    }

    fn find_or_make(&mut self, name: &str, start: CursorStart) -> Result<Arc<CursorState>, OpenError> {
        if !cursors::is_name(name) {
            let max = cursors::NAME_BYTES_MAX;
            return Err(OpenError::Format(format!(
                "a cursor's name has 1 to {max} bytes: {name:?}"
            )));
        }
        if let Some(state) = self.cursors.find(name) {
            return Ok(state);
        }
        if !self.cursors.has_room() {
            let max = cursors::CURSORS_MAX;
            return Err(OpenError::Format(format!("a log has at most {max} cursors")));
        }
        let position = match start {
            CursorStart::Head => self.next_sequence - 1,
            CursorStart::Oldest => {
                self.segments
                    .first()
                    .map_or(self.next_sequence, |oldest| oldest.first_sequence)
                    - 1
            }
        };
        self.unless_failed()?;
        let created = self.cursors.create(name, position, &self.shared);
        created.map_err(|error| self.fail_with_cursors(error))
    }

    pub(crate) fn remove_cursor(&mut self, name: &str) -> Result<(), OpenError> {
        self.unless_failed()?;
        if let Some(cursor) = self.cursors.find(name) {
            self.followers.remove(&cursor);
        }
        let removed = self.cursors.remove(name, &self.shared);
        removed.map_err(|error| self.fail_with_cursors(error))
    }

    /// After the first write or sync that failed nothing more is written, also of the page of the cursors.
    fn fail_with_cursors(&mut self, (path, error): PathError) -> OpenError {
        self.fail(&format!("cursors {}: {error}", path.display()));
        path_error((path, error))
    }

    fn unless_failed(&self) -> Result<(), OpenError> {
        match self.shared.is_failed() {
            true => Err(OpenError::Format("the disk failed".to_owned())),
            false => Ok(()),
        }
    }
}
