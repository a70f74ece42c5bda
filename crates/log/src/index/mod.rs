//! Where the records of a sealed segment are, by what they are looked up by: a file beside it, which can be thrown away
//! and is made again.

mod build;
mod file;

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;

use self::file::SegmentIndex;
pub(super) use self::{build::IndexBuilder, file::key_hash};
use super::file_system::FileSystem;

/// Below the directory of the log.
const INDEX_DIR: &str = "index";

/// Which records a reader is after: all that one of these conditions names, where it is not empty. Where a segment has
/// an index, nothing else of it is read; without one all is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    pub keys: Vec<String>,
    pub kinds: Vec<String>,
    /// Recorded at or after then, in milliseconds since the Unix epoch.
    pub from_ms: Option<i64>,
    /// Recorded before then.
    pub to_ms: Option<i64>,
}

/// The indexes that there are, by segment.
pub(super) struct SegmentIndexes {
    dir: PathBuf,
    known: Mutex<HashMap<u64, Arc<SegmentIndex>>>,
}

impl SegmentIndexes {
    /// Those of the log in a directory. None is known before the builder has looked.
    pub(super) fn new(log_dir: &std::path::Path) -> Self {
        Self {
            dir: log_dir.join(INDEX_DIR),
            known: Mutex::default(),
        }
    }

    fn get(&self, segment: u64) -> Option<Arc<SegmentIndex>> {
        self.known.lock().get(&segment).cloned()
    }

    /// When the newest record of a segment was recorded, where its index says so.
    pub(super) fn newest_ms(&self, segment: u64) -> Option<i64> {
        self.get(segment).map(|index| index.times.1)
    }

    /// When the oldest was.
    pub(super) fn oldest_ms(&self, segment: u64) -> Option<i64> {
        self.get(segment).map(|index| index.times.0)
    }

    /// The offsets in a segment of the records that a query asks for, in rising order, and perhaps of others. `None`:
    /// they may be anywhere, for there is no index, or it knows no more.
    pub(super) fn places(&self, fs: &dyn FileSystem, segment: u64, query: &LogQuery) -> Option<VecDeque<u64>> {
        let index = self.get(segment)?;
        if !index.may_have(query) {
            return Some(VecDeque::new());
        }
        if query.keys.is_empty() {
            return None;
        }
        let file = fs.open(&self.path(segment));
        let keys = query.keys.iter().map(|key| key_hash(key));
        let found = file.and_then(|file| index.find(file.as_ref(), keys));
        let found = found.inspect_err(|error| {
            tracing::warn!(segment, %error, "the index of a segment cannot be read; it is made again");
            self.known.lock().remove(&segment);
        });
        Some(found.ok()?.into())
    }

    fn insert(&self, segment: u64, index: SegmentIndex) {
        self.known.lock().insert(segment, Arc::new(index));
    }

    /// Deletes the index of a segment that is gone.
    pub(super) fn remove(&self, fs: &dyn FileSystem, segment: u64) {
        if self.known.lock().remove(&segment).is_some() {
            // What stays of it is deleted at the next start.
            let _ = fs.unlink(&self.path(segment));
        }
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(file::file_name(segment))
    }
}

/// An index that is not what was written.
fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
