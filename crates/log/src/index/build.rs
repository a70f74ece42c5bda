//! Makes the indexes of sealed segments, beside the log's other work.

use std::{collections::HashSet, io, sync::Arc};

use super::file::{IndexContent, SegmentIndex, key_hash, parse_file_name};
use crate::{
    file_system::is_passing,
    retention::LogRetention,
    scan::{PayloadUse, ScanFound, SegmentScan},
    segment::DATA_START,
    shared::{LogShared, Segment},
};

/// Segments that are read for their index at a time.
const BUILT_MAX: usize = 2;

/// Makes what is missing, as long as something is retained.
#[derive(Default)]
pub(crate) struct IndexBuilder {
    has_looked: bool,
    /// Of these none can be made.
    given_up: HashSet<u64>,
}

impl IndexBuilder {
    /// Opens the indexes that there are, once; then makes some of those that are missing.
    pub(crate) fn run(&mut self, shared: &LogShared) {
        if !self.has_looked {
            self.has_looked = true;
            self.open_found(shared);
        }
        let Some(retention) = shared.retention() else {
            return;
        };
        let mut built = 0;
        for segment in shared.sealed_segments() {
            if built == BUILT_MAX {
                return;
            }
            if shared.indexes.get(segment.id).is_some() || self.given_up.contains(&segment.id) {
                continue;
            }
            built += 1;
            match build(shared, &segment, &retention) {
                Ok(index) => shared.indexes.insert(segment.id, index),
                // It was deleted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if is_passing(&error) => return,
                Err(error) => {
                    let path = shared.indexes.path(segment.id);
                    tracing::warn!(path = %path.display(), %error, "a segment gets no index: it is read as a whole where one would help");
                    self.given_up.insert(segment.id);
                }
            }
        }
    }

    /// Opens what is there of segments that are there; the rest goes.
    fn open_found(&self, shared: &LogShared) {
        let segments = shared.sealed_segments();
        for name in shared.fs.list(&shared.indexes.dir).unwrap_or_default() {
            let id = parse_file_name(&name);
            let segment = segments.iter().find(|segment| Some(segment.id) == id);
            let path = shared.indexes.dir.join(&name);
            let opened = segment.map(|segment| {
                let index = shared.fs.open(&path);
                index.and_then(|file| SegmentIndex::read(file.as_ref(), segment))
            });
            match (segment, opened) {
                (Some(segment), Some(Ok(index))) => shared.indexes.insert(segment.id, index),
                // It is made again, or is of a segment that is gone.
                _ => drop(shared.fs.unlink(&path)),
            }
        }
    }
}

fn build(shared: &LogShared, segment: &Segment, retention: &LogRetention) -> io::Result<SegmentIndex> {
    let content = read(shared, segment, retention)?;
    let bytes = content.encode(segment);
    let path = shared.indexes.path(segment.id);
    shared.fs.make_dir(&shared.indexes.dir)?;
    // One that is there is not whole.
    let _ = shared.fs.unlink(&path);
    let file = shared.fs.create(&path, bytes.len() as u64)?;
    let written = file.pwrite(0, &bytes).and_then(|()| file.sync_data());
    if let Err(error) = written {
        let _ = shared.fs.unlink(&path);
        return Err(error);
    }
    SegmentIndex::read(file.as_ref(), segment)
}

fn read(shared: &LogShared, segment: &Segment, retention: &LogRetention) -> io::Result<IndexContent> {
    let mut content = IndexContent::default();
    let file = shared.fs.open(&shared.segments_dir.join(segment.file_name()))?;
    let mut scan = SegmentScan::new(Arc::clone(&file), segment.seed(), DATA_START, segment.end);
    while let Some(found) = scan.next(|_| PayloadUse::Copied(&|_| true))? {
        let ScanFound::Frame {
            offset,
            payload: Some(payload),
            ..
        } = found
        else {
            // Damage is found, and told, by who needs what is there.
            continue;
        };
        let Some(record) = (retention.describe)(&payload) else {
            continue;
        };
        let (oldest, newest) = content.times.unwrap_or((record.time_ms, record.time_ms));
        content.times = Some((oldest.min(record.time_ms), newest.max(record.time_ms)));
        match content.kinds.get_mut(record.kind) {
            Some(records) => *records += 1,
            None => drop(content.kinds.insert(record.kind.to_owned(), 1)),
        }
        let offset = u32::try_from(offset).expect("a segment is at most a gibibyte");
        content.keys.entry(key_hash(record.key)).or_default().push(offset);
    }
    Ok(content)
}
