//! What stays after every cursor has settled it.
//!
//! Records that are settled are *retained* until they are old enough, or take too much room, so that they can be
//! published again. They go oldest first, a segment at a time, and before any append is refused: nobody waits for them.
//! Of a segment that cannot go yet, because one before it is still wanted, the settled rest goes by compaction.

use std::time::Duration;

use super::{cursors::PathError, file_system::is_passing, log::Log, shared::Segment};

/// How long, and how much, and how records are told apart ([`crate::LogQuery`]).
#[derive(Debug, Clone, Copy)]
pub struct LogRetention {
    /// Records go that are older.
    pub age: Duration,
    /// What is retained takes no more of the disk than this.
    pub bytes_max: u64,
    /// Milliseconds since the Unix epoch, by which records are old.
    pub now_ms: fn() -> i64,
    /// What a record is looked up by; `None` for one that nobody can look up.
    pub describe: fn(&[u8]) -> Option<RecordDescription<'_>>,
}

/// What a record is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordDescription<'a> {
    /// When it was recorded, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    pub kind: &'a str,
    pub key: &'a str,
}

/// What is kept of records that every cursor has settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetainedRecords {
    /// What it takes on disk.
    pub bytes: u64,
    /// When the oldest was recorded, in milliseconds since the Unix epoch; `None` where there is none, or it is not
    /// known yet.
    pub oldest_ms: Option<i64>,
}

impl LogRetention {
    /// Whether a segment whose newest record was recorded then has been kept for long enough.
    pub(super) fn is_over(&self, newest_ms: i64) -> bool {
        let age_ms = i64::try_from(self.age.as_millis()).unwrap_or(i64::MAX);
        (self.now_ms)().saturating_sub(newest_ms) > age_ms
    }
}

impl Log {
    /// The segments in front that every cursor has durably passed; never the newest, which tells the next number.
    fn settled_segments(&self) -> &[Segment] {
        let (Some(settled), Some((_, older))) = (self.cursors().lowest_durable(), self.segments().split_last()) else {
            return &[];
        };
        let oldest_needed = self.cursors().oldest_on_page();
        let may_go = |segment: &Segment| segment.last_sequence <= settled && segment.id < oldest_needed;
        &older[..older.partition_point(may_go)]
    }

    /// Whether the oldest of the settled segments is to go now.
    fn is_oldest_due(&self) -> bool {
        let settled = self.settled_segments();
        let Some(oldest) = settled.first() else {
            return false;
        };
        let Some(retention) = self.shared().retention() else {
            return true;
        };
        let bytes: u64 = settled.iter().map(|segment| segment.disk_bytes).sum();
        let newest_ms = self.shared().indexes.newest_ms(oldest.id);
        bytes + self.shared().retained_between() > retention.bytes_max
            || newest_ms.is_some_and(|newest_ms| retention.is_over(newest_ms))
    }

    /// Deletes the segments that every cursor has durably passed and that are not retained, and lets go of the records
    /// in memory.
    pub(super) fn delete_settled(&mut self) -> Result<(), PathError> {
        let Some(settled) = self.cursors().lowest_durable() else {
            return Ok(());
        };
        self.shared().forget_records(settled);
        while self.is_oldest_due() {
            if !self.delete_oldest()? {
                break;
            }
        }
        let retained = match self.shared().retention() {
            None => RetainedRecords::default(),
            Some(_) => RetainedRecords {
                bytes: self.settled_segments().iter().map(|segment| segment.disk_bytes).sum(),
                oldest_ms: self
                    .settled_segments()
                    .first()
                    .and_then(|oldest| self.shared().indexes.oldest_ms(oldest.id)),
            },
        };
        self.shared().publish_retained(retained);
        Ok(())
    }

    /// Deletes the oldest segment, if every cursor has durably passed it. `false`: it stays.
    pub(super) fn delete_oldest(&mut self) -> Result<bool, PathError> {
        let Some(oldest) = self.settled_segments().first().copied() else {
            return Ok(false);
        };
        let path = self.shared().segments_dir.join(oldest.file_name());
        match self.fs().unlink(&path) {
            Err(error) if is_passing(&error) => return Ok(false),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err((path, error)),
            _ => {}
        }
        // One by one, so that no crash leaves a gap between the segments.
        let dir = self.shared().segments_dir.clone();
        self.fs().sync_dir(&dir).map_err(|error| (dir, error))?;
        self.remove_first_segment();
        self.shared().indexes.remove(self.fs(), oldest.id);
        self.shared().forget_segment(oldest.id);
        self.publish();
        Ok(true)
    }

    /// Bytes of bulk records that count against their share: what is retained makes room for them.
    pub(super) fn bulk_bytes(&self) -> u64 {
        let retained = match self.shared().retention() {
            None => 0,
            Some(_) => self.settled_segments().len(),
        };
        self.segments()[retained..]
            .iter()
            .map(|segment| segment.bulk_bytes)
            .sum()
    }
}
