//! What is found in the directory at the start: sealed segments by their first block, an unsealed one by reading it.

use std::{io, iter, path::Path, sync::Arc};

use super::{
    Class, OpenError,
    file_system::{File, FileSystem, is_full, read_around},
    log::{Active, io_error, seal_file},
    scan::{CHUNK_BYTES, Found, Hole, Payload, Scan},
    segment::{DATA_START, HEADER_LEN, Header, VERSION, encode_header, parse_file_name, parse_header, parse_seal},
    shared::{Damage, DamageKind, Segment},
};

/// The log as it was found.
pub(super) struct Recovered {
    /// By id, all sealed.
    pub segments: Vec<Segment>,
    pub next_sequence: u64,
    pub next_segment: u64,
    pub damage: Vec<Damage>,
    /// The newest segment, when there was no room for its seal.
    pub unsealed: Option<Active>,
}

/// Opens every segment, and cuts, syncs and seals what was not sealed.
pub(super) fn recover(fs: &dyn FileSystem, dir: &Path) -> Result<Recovered, OpenError> {
    let names = fs.list(dir).map_err(|source| io_error(dir, source))?;
    let mut found: Vec<_> = names.iter().filter_map(|name| parse_file_name(name)).collect();
    found.sort_unstable();
    let mut recovered = Recovered {
        segments: Vec::with_capacity(found.len()),
        next_sequence: 1,
        next_segment: 1,
        damage: Vec::new(),
        unsealed: None,
    };
    for (at, &(id, first_sequence)) in found.iter().enumerate() {
        let newest = at + 1 == found.len();
        recovered.add(fs, dir, id, first_sequence.max(1), newest)?;
    }
    // What the process before created or unlinked last may not be durable yet.
    fs.sync_dir(dir).map_err(|source| io_error(dir, source))?;
    Ok(recovered)
}

impl Recovered {
    fn add(
        &mut self,
        fs: &dyn FileSystem,
        dir: &Path,
        id: u64,
        first_sequence: u64,
        newest: bool,
    ) -> Result<(), OpenError> {
        let mut segment = Segment::empty(id, first_sequence, 0);
        let path = dir.join(segment.file_name());
        let failed = |source: io::Error| io_error(&path, source);
        let file = fs.open(&path).map_err(failed)?;
        segment.disk_bytes = file.len().map_err(failed)?;
        let mut is_from_disk = false;
        if newest {
            // After a failed sync memory shows what the disk does not have, and on ext4 the same pages, written again and synced
            // with success, are gone at the next mount all the same: their blocks count as never written.
            is_from_disk = file.forget_cached().map_err(failed)?;
        }
        let mut block = vec![0; DATA_START as usize];
        let read = read_around(file.as_ref(), 0, &mut block, &mut Vec::new()).map_err(failed)?;
        block.truncate(read);

        let header = parse_header(&block);
        if let Header::Unknown(version) = header {
            let path = path.display();
            return Err(OpenError::Format(format!(
                "{path} has format version {version}, this build reads {VERSION}: use the release that wrote it"
            )));
        }
        let expected = Header::Valid { id, first_sequence };
        let seal = parse_seal(&block, id).filter(|seal| seal.end >= DATA_START);
        let mut damage = |kind, offset, len| {
            self.damage.push(Damage {
                kind,
                path: path.clone(),
                segment: id,
                offset,
                len,
            });
        };
        if let Some(previous) = self.segments.last()
            && previous.id + 1 != id
        {
            damage(DamageKind::SegmentMissing, 0, 0);
        }
        if let Some(seal) = seal {
            segment.records = seal.records;
            segment.bulk_bytes = seal.bulk_bytes;
            segment.last_sequence = seal.last_sequence;
            segment.end = seal.end;
            if newest && seal.end <= segment.disk_bytes {
                // Its own sync may have failed, see `rewrite`; the segments before it were sealed before it was made.
                self.unsealed = seal_or_wait(&file, &mut segment, &path).map_err(failed)?;
            }
        } else {
            let tail = scan(&file, &mut segment, newest).map_err(failed)?;
            if newest && header != expected && segment.records == 0 && tail.holes.is_empty() && tail.torn_bytes == 0 {
                tracing::info!(path = %path.display(), "segment whose creation did not finish: removed");
                fs.unlink(&path).map_err(failed)?;
                fs.sync_dir(dir).map_err(|source| io_error(dir, source))?;
                self.next_sequence = self.next_sequence.max(first_sequence);
                self.next_segment = self.next_segment.max(id);
                return Ok(());
            }
            if !newest {
                damage(DamageKind::Seal, 0, 0);
            }
            for &(offset, len) in &tail.holes {
                damage(DamageKind::Record, offset, len);
            }
            if tail.torn_bytes > 0 {
                tracing::info!(path = %path.display(), offset = segment.end, len = tail.torn_bytes,
                    "batch that was never acknowledged: cut off");
            }
            let header = (header == expected).then(|| encode_header(id, first_sequence));
            match rewrite(file.as_ref(), header, tail.last_batch, segment.end) {
                // What was read came from the disk; there is nothing better on one that has no room.
                Err(error) if is_full(&error) && is_from_disk => {
                    tracing::warn!(path = %path.display(), %error, "no room to write the last batch once more");
                }
                result => result.map_err(failed)?,
            }
            let unsealed = seal_or_wait(&file, &mut segment, &path).map_err(failed)?;
            self.unsealed = unsealed.filter(|_| newest);
        }
        if header != expected {
            damage(DamageKind::SegmentHeader, 0, block.len() as u64);
        }
        self.next_sequence = self.next_sequence.max(segment.last_sequence + 1);
        self.next_segment = id + 1;
        self.segments.push(segment);
        Ok(())
    }
}

/// What a segment without a seal was found to hold, beyond what its [`Segment`] says.
struct Tail {
    /// Damage, as offset and length: something later was written after it had been synced.
    holes: Vec<(u64, u64)>,
    /// Bytes after the end that are not zeros: a batch whose sync did not finish.
    torn_bytes: u64,
    /// Where the last batch starts.
    last_batch: u64,
}

/// Reads a whole segment that has no seal, and finds where it ends.
///
/// A batch is written only after the one before it was synced. So a hole before the start of any later batch is damage,
/// and a hole in the last batch, or after it, is a tail that was torn off before anybody was told that it is there. A segment
/// that is not the newest had a seal once, and was cut at its end: every hole is damage.
fn scan(file: &Arc<dyn File>, segment: &mut Segment, newest: bool) -> io::Result<Tail> {
    let file_end = segment.disk_bytes;
    let last_batch = match newest {
        true => last_batch(file, segment.id, file_end)?,
        false => file_end,
    };
    let mut tail = Tail {
        holes: Vec::new(),
        torn_bytes: 0,
        last_batch,
    };
    let mut scan = Scan::new(file.clone(), segment.id, DATA_START, file_end);
    while let Some(found) = scan.next(|_| Payload::Checked)? {
        match found {
            Found::Frame { offset, header, .. } => {
                segment.records += 1;
                segment.last_sequence = segment.last_sequence.max(header.sequence);
                segment.end = offset + header.frame_len();
                if header.class == Class::Bulk {
                    segment.bulk_bytes += header.frame_len();
                }
            }
            Found::Hole(hole) if hole.unreadable || hole.offset < last_batch => {
                tail.holes.push((hole.offset, hole.len));
                segment.end = hole.offset + hole.len;
            }
            Found::Hole(Hole { blank, .. }) => {
                if !blank {
                    tail.torn_bytes = file_end - segment.end;
                }
                break;
            }
        }
    }
    Ok(tail)
}

/// The start of the newest batch that left a valid header.
fn last_batch(file: &Arc<dyn File>, segment: u64, file_end: u64) -> io::Result<u64> {
    let mut newest = DATA_START;
    let mut scan = Scan::new(file.clone(), segment, DATA_START, file_end);
    while let Some(found) = scan.next(|_| Payload::Skipped)? {
        if let Found::Frame { header, .. } = found {
            newest = newest.max(u64::from(header.batch_start));
        }
    }
    Ok(newest)
}

/// Writes the header and the last batch once more, the same bytes, and syncs them.
///
/// If the fsync of the process before failed, its pages are in memory and marked clean: an fsync alone would say yes to
/// what the disk does not have.
fn rewrite(file: &dyn File, header: Option<[u8; HEADER_LEN]>, start: u64, end: u64) -> io::Result<()> {
    if let Some(header) = header {
        file.pwrite(0, &header)?;
    }
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = start;
    while at < end {
        let part = buffer.len().min((end - at) as usize);
        let mut unreadable = Vec::new();
        let read = read_around(file, at, &mut buffer[..part], &mut unreadable)? as u64;
        if read == 0 {
            break;
        }
        let mut written = at;
        for lost in unreadable.into_iter().chain(iter::once(at + read..at + read)) {
            file.pwrite(written, &buffer[(written - at) as usize..(lost.start - at) as usize])?;
            written = lost.end;
        }
        at += read;
    }
    // A full disk is known before the sync.
    file.sync_data().map_err(io::Error::other)
}

/// Seals a segment, unless the disk has no room for that: it is read at each start until it has.
fn seal_or_wait(file: &Arc<dyn File>, segment: &mut Segment, path: &Path) -> io::Result<Option<Active>> {
    match seal_file(file.as_ref(), segment) {
        Err(error) if is_full(&error) => {
            tracing::warn!(path = %path.display(), %error, "no room to seal a segment");
            Ok(Some(Active {
                file: file.clone(),
                path: path.to_owned(),
                is_sealing: true,
            }))
        }
        result => result.map(|()| None),
    }
}
