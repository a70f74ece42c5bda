//! What one read from disk gathers, and when it is enough.

use bytes::Bytes;

use super::{Record, scan::PayloadUse, segment::FrameHeader, sizes::ReadSizes};

/// Places that the disk does not give back that one read looks for its way behind: each may take the disk seconds.
const UNREADABLE_HOLES_MAX: usize = 4;

/// Records that are being read, and how many may be.
pub(super) struct ReadBatch<'w> {
    pub records: Vec<Record>,
    pub bytes: usize,
    pub records_max: usize,
    pub bytes_max: usize,
    pub is_wanted: &'w dyn Fn(&[u8]) -> bool,
    /// Of records that are not wanted.
    pub passed_bytes: usize,
    /// Holes that the disk did not give back.
    pub unreadable: usize,
}

impl<'w> ReadBatch<'w> {
    pub fn is_enough(&self) -> bool {
        self.records.len() >= self.records_max
            || self.passed_bytes >= ReadSizes::now().passed_bytes_max
            || self.unreadable >= UNREADABLE_HOLES_MAX
    }

    pub fn found_any(&self) -> bool {
        !self.records.is_empty() || self.passed_bytes > 0
    }

    pub fn has_room(&self, bytes: usize) -> bool {
        self.records.is_empty() || self.bytes + bytes <= self.bytes_max
    }

    pub fn wants(&self, header: &FrameHeader, from: u64) -> PayloadUse<'w> {
        match header.sequence >= from && self.has_room(header.payload_len as usize) {
            true => PayloadUse::Copied(self.is_wanted),
            false => PayloadUse::Skipped,
        }
    }

    pub fn add(&mut self, header: &FrameHeader, payload: Option<Bytes>) {
        let Some(bytes) = payload else {
            self.passed_bytes += header.frame_len() as usize;
            return;
        };
        self.bytes += bytes.len();
        self.records.push(Record {
            sequence: header.sequence,
            bytes,
        });
    }
}
