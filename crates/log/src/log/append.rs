//! Appending: batches, segments that fill up, their seals.

use std::{io, path::Path, sync::Arc, time::Instant};

use bytes::Bytes;

use super::{ActiveSegment, Log};
use crate::{
    AppendError, Audience, Record, RecordClass,
    audience::AppendedRecord,
    file_system::{File, is_exhausted, is_passing},
    segment::{
        BATCH_HEADER_LEN, BatchHeader, SegmentSeal, encode_frame, encode_header, encode_seal, frame_len, log_seed,
    },
    shared::Segment,
};

/// Records that are written with one call and one sync; more of them wait for the next.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// The write buffer shrinks to this after a larger batch.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// What a caller of [`Log::append_batch`] wants written.
pub(crate) struct AppendRequest<'a> {
    pub record: &'a Bytes,
    pub class: RecordClass,
    /// `None`: nobody counts what pins the log.
    pub audience: Option<Audience>,
}

impl Log {
    /// Appends in order, each batch with one write and one sync, and adds one result for each request.
    ///
    /// After a failure nothing is written any more, by anybody.
    pub(crate) fn append_batch(&mut self, requests: &[AppendRequest<'_>], results: &mut Vec<Result<u64, AppendError>>) {
        let mut done = 0;
        while done < requests.len() {
            if self.shared.is_failed() {
                results.resize(results.len() + requests.len() - done, Err(AppendError::Failed));
                break;
            }
            let before = results.len();
            if let Err(reason) = self.append_some(&requests[done..], results) {
                self.fail(&reason);
                for result in &mut results[before..] {
                    *result = result.and(Err(AppendError::Failed));
                }
                if results.len() == before {
                    results.push(Err(AppendError::Failed));
                }
            }
            done += results.len() - before;
        }
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
    }

    /// Appends as many as go into one write. At least one request gets its result.
    fn append_some(
        &mut self,
        requests: &[AppendRequest<'_>],
        results: &mut Vec<Result<u64, AppendError>>,
    ) -> Result<(), String> {
        self.buffer.clear();
        let before = results.len();
        let mut records = Vec::with_capacity(requests.len());
        let mut appended = Vec::with_capacity(requests.len());
        let mut after = self.segments.last().copied();
        const HEADER: u64 = BATCH_HEADER_LEN as u64;
        let mut bulk_bytes = self.bulk_bytes();
        for request in requests {
            let len = frame_len(request.record.len());
            if let Err(refused) = self.admit(request, len, bulk_bytes) {
                results.push(Err(refused));
                continue;
            }
            let is_open = self.active.as_ref().is_some_and(|active| !active.is_sealing);
            let header = if self.buffer.is_empty() { HEADER } else { 0 };
            let fits = is_open && after.is_some_and(|active| active.end + header + len <= active.disk_bytes);
            if !fits {
                if !self.buffer.is_empty() {
                    break;
                }
                if !self.roll(len)? {
                    results.push(Err(self.no_room.unwrap_or(AppendError::Full)));
                    continue;
                }
                after = self.segments.last().copied();
            }
            if !self.buffer.is_empty() && self.buffer.len() + len as usize > BATCH_BYTES_MAX {
                break;
            }
            let active = after.as_mut().expect("there is room in the active segment");
            let sequence = self.next_sequence + records.len() as u64;
            let batch_start = self.segments.last().expect("the active segment is the last").end;
            if self.buffer.is_empty() {
                // Filled in once it is known what follows.
                self.buffer.resize(BATCH_HEADER_LEN, 0);
                active.end += HEADER;
            }
            encode_frame(
                &mut self.buffer,
                active.seed(),
                batch_start,
                sequence,
                request.class,
                request.record,
            );
            active.end += len;
            active.records += 1;
            active.last_sequence = sequence;
            if request.class == RecordClass::Bulk {
                active.bulk_bytes += len;
                bulk_bytes += len;
            }
            if let Some(audience) = request.audience {
                self.followers.reserve(audience, len);
            }
            appended.push(AppendedRecord {
                number: sequence,
                bytes: len,
                audience: request.audience,
            });
            records.push(Record {
                sequence,
                bytes: request.record.clone(),
            });
            results.push(Ok(sequence));
        }
        let Some(after) = after.filter(|_| !records.is_empty()) else {
            self.publish();
            return Ok(());
        };
        if let Some(refused) = self.write(after, records, &appended)? {
            self.followers.release_reserved();
            for result in results[before..].iter_mut().filter(|result| result.is_ok()) {
                *result = Err(refused);
            }
        }
        Ok(())
    }

    /// Whether a record may be appended at all.
    fn admit(&self, request: &AppendRequest<'_>, len: u64, bulk_bytes: u64) -> Result<(), AppendError> {
        if self.limits.segment_bytes_for(len) > self.limits.large_segment_bytes_max {
            return Err(AppendError::TooLarge);
        }
        if request.class == RecordClass::Bulk && bulk_bytes + len > self.limits.bulk_bytes_max {
            return Err(AppendError::BulkFull);
        }
        if request
            .audience
            .is_some_and(|audience| self.followers.refuse(audience, len))
        {
            return Err(AppendError::RouteFull);
        }
        Ok(())
    }

    /// Writes the buffer, syncs it and shows its records. `Some`: what a write takes is used up, of the disk or of the
    /// process, and none of them is in the log.
    fn write(
        &mut self,
        after: Segment,
        records: Vec<Record>,
        appended: &[AppendedRecord],
    ) -> Result<Option<AppendError>, String> {
        let active = self.active.as_ref().expect("a batch was encoded for it");
        let segment = self.segments.last_mut().expect("the active segment is the last");
        let header = BatchHeader {
            records: records.len() as u32,
            len: self.buffer.len() as u32,
            previous: self.previous_batch as u32,
            first_sequence: self.next_sequence,
            // The batch before was synced before anything of this one is written.
            durable: self.next_sequence - 1,
        };
        self.buffer[..BATCH_HEADER_LEN].copy_from_slice(&header.encode(segment.seed(), segment.end));
        self.previous_batch = segment.end;
        let shared = self.shared.clone();
        let _work = shared.disk_works();
        let started = Instant::now();
        match active.file.pwrite(segment.end, &self.buffer) {
            Err(error) if is_passing(&error) => {
                // Nothing was synced. What was written of it lies behind the segment's end, and the seal covers it.
                tracing::warn!(path = %active.path.display(), %error, "no room to write a batch: its segment ends here");
                self.seal()?;
                return Ok(Some(refusal(&error)));
            }
            written => written.map_err(|error| format!("write to {}: {error}", active.path.display()))?,
        }
        active
            .file
            .sync_data()
            .map_err(|error| format!("fsync of {}: {error}", active.path.display()))?;
        let took = started.elapsed();
        // Between the last record of the life before and the first of this one there is none.
        let first_behind = last_record(&self.segments) + 1;
        let segment = self.segments.last_mut().expect("the active segment is the last");
        *segment = after;
        self.next_sequence += records.len() as u64;
        self.shared.publish_appended(after, records.len() as u64);
        if appended.iter().any(|record| record.audience.is_some()) {
            self.followers.count(first_behind, appended);
        }
        self.observer.synced(records.len(), took);
        self.shared.publish_records(records.into_iter());
        Ok(None)
    }

    /// Seals the active segment, if there is one, and makes a new one with room for `len`. `false`: there is no room.
    pub(super) fn roll(&mut self, len: u64) -> Result<bool, String> {
        let segment_bytes = self.limits.segment_bytes_for(len);
        let shared = self.shared.clone();
        let _work = shared.disk_works();
        // What nobody needs any more goes before anything is refused.
        while self.bytes_once_sealed() + segment_bytes > self.limits.bytes_max {
            if !self.make_room()? {
                self.no_room = Some(AppendError::Full);
                return Ok(false);
            }
        }
        if !self.has_superblock()? || !self.seal()? {
            self.no_room = Some(AppendError::Full);
            return Ok(false);
        }
        while !self.create(segment_bytes)? {
            if self.no_room != Some(AppendError::Full) || !self.make_room()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What all segments take once the active one is sealed.
    fn bytes_once_sealed(&self) -> u64 {
        let segments = self.segments.iter().enumerate();
        let bytes = segments.map(|(at, segment)| match self.active {
            Some(_) if at + 1 == self.segments.len() => segment.end,
            _ => segment.disk_bytes,
        });
        bytes.sum()
    }

    /// Deletes the oldest segment, if nobody needs it.
    fn make_room(&mut self) -> Result<bool, String> {
        self.delete_oldest()
            .map_err(|(path, error)| format!("delete {}: {error}", path.display()))
    }

    /// Whether the superblock is there; tries to write it if not. Without it nobody knows whose segments these are.
    pub(super) fn has_superblock(&mut self) -> Result<bool, String> {
        if self.superblock_file.is_durable() {
            return Ok(true);
        }
        let written = self.superblock_file.write(self.fs.as_ref(), &mut self.superblock);
        let written = written.map_err(|error| format!("{}: {error}", self.superblock_file.path().display()))?;
        if written {
            self.cursors.allow_writing();
        }
        Ok(written)
    }

    fn create(&mut self, bytes: u64) -> Result<bool, String> {
        let log_seed = log_seed(&self.superblock.identity.log);
        let segment = Segment::empty(self.next_segment, log_seed, self.next_sequence, bytes);
        let path = self.shared.segments_dir.join(segment.file_name());
        let made = self.create_file(&path, &segment);
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                // What is left of it holds nothing, and recovery passes over it.
                let _ = self.fs.unlink(&path);
                if !is_passing(&error) && error.kind() != io::ErrorKind::AlreadyExists {
                    return Err(format!("create {}: {error}", path.display()));
                }
                let reason = refusal(&error);
                // Once, not with every append until there is room again.
                if self.no_room.replace(reason) != Some(reason) {
                    tracing::warn!(path = %path.display(), %error, "no room for a new segment");
                }
                return Ok(false);
            }
        };
        let dir = &self.shared.segments_dir;
        self.fs
            .sync_dir(dir)
            .map_err(|error| format!("fsync of {}: {error}", dir.display()))?;
        self.segments.push(segment);
        self.active = Some(ActiveSegment {
            file,
            path,
            is_sealing: false,
        });
        self.next_segment += 1;
        self.previous_batch = 0;
        self.no_room = None;
        self.publish();
        Ok(true)
    }

    fn create_file(&self, path: &Path, segment: &Segment) -> io::Result<Arc<dyn File>> {
        let file = self.fs.create(path, segment.disk_bytes)?;
        let header = encode_header(segment.id, segment.first_sequence, &self.superblock.identity);
        file.pwrite(0, &header)?;
        file.sync_data()?;
        Ok(file)
    }

    /// Writes down what the active segment holds and gives back the space it did not use. Its records are durable
    /// already. `false`: there is no room even for that, and the segment stays the active one.
    pub(super) fn seal(&mut self) -> Result<bool, String> {
        let Some(active) = &mut self.active else {
            return Ok(true);
        };
        let segment = self.segments.last_mut().expect("the active segment is the last");
        match seal_file(active.file.as_ref(), segment) {
            Ok(()) => self.active = None,
            Err(error) if is_passing(&error) => {
                active.is_sealing = true;
                return Ok(false);
            }
            Err(error) => return Err(format!("seal {}: {error}", active.path.display())),
        }
        Ok(true)
    }
}

/// What an append is answered that failed so.
fn refusal(error: &io::Error) -> AppendError {
    match is_exhausted(error) {
        true => AppendError::Exhausted,
        false => AppendError::Full,
    }
}

/// The newest record that there is, 0 if there is none.
fn last_record(segments: &[Segment]) -> u64 {
    let with_records = segments
        .iter()
        .rfind(|segment| segment.last_sequence >= segment.first_sequence);
    with_records.map_or(0, |segment| segment.last_sequence)
}

/// Writes the seal of a segment that is durable up to its end, and cuts the file there.
pub(crate) fn seal_file(file: &dyn File, segment: &mut Segment) -> io::Result<()> {
    let (offset, seal) = encode_seal(
        segment.seed(),
        &SegmentSeal {
            records: segment.records,
            bulk_bytes: segment.bulk_bytes,
            last_sequence: segment.last_sequence,
            end: segment.end,
        },
    );
    file.pwrite(offset, &seal)?;
    match file.truncate(segment.end) {
        Ok(()) => segment.disk_bytes = segment.end,
        // Some file systems need space to give some back.
        Err(error) if is_passing(&error) => {}
        Err(error) => return Err(error),
    }
    // A full disk is known before; from here on the bytes in memory and on disk may differ.
    file.sync_data().map_err(io::Error::other)
}
