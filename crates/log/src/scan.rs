//! Reads a segment from a place on, in chunks, and finds its way again after damage.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;

use super::{
    file_system::{File, PAGE_BYTES, read_around},
    segment::{
        BATCH_HEADER_LEN, BatchHeader, FRAME_HEADER_LEN, FrameHeader, SegmentSeed, is_blank, parse_filler,
        parse_frame_header,
    },
    sizes::ReadSizes,
};

/// What is done with the payload of a frame.
#[derive(Clone, Copy)]
pub(super) enum PayloadUse<'w> {
    /// It is copied out, so that it keeps nothing alive but itself, if it is wanted.
    Copied(&'w dyn Fn(&[u8]) -> bool),
    /// It is held against its checksum.
    Checked,
    /// It is not looked at.
    Skipped,
}

/// The next thing in a segment.
#[derive(Debug)]
pub(super) enum ScanFound {
    Frame {
        offset: u64,
        header: FrameHeader,
        /// What was copied.
        payload: Option<Bytes>,
    },
    Batch {
        offset: u64,
        header: BatchHeader,
    },
    Hole(DamagedHole),
}

/// A header that is valid where it stands.
enum ValidFrame {
    Frame(FrameHeader),
    Batch(BatchHeader),
    /// So many bytes of nothing.
    Filler(u64),
}

/// Bytes that are no valid frame, up to the next header that is valid, or the end.
#[derive(Debug)]
pub(super) struct DamagedHole {
    pub offset: u64,
    pub len: u64,
    /// Behind here, to its end, it is nothing but zeros: never written, as far as one can tell.
    pub content_end: u64,
    /// The disk did not give back some of it.
    pub unreadable: bool,
}

/// A position in a segment.
pub(super) struct SegmentScan {
    file: Arc<dyn File>,
    seed: SegmentSeed,
    offset: u64,
    end: u64,
    chunk_bytes: usize,
    chunk: Vec<u8>,
    chunk_start: u64,
    /// Places of the chunk that the disk did not give back.
    unreadable: Vec<Range<u64>>,
}

impl SegmentScan {
    /// Scans `file` from `offset`, where a frame starts, to `end`.
    pub(super) fn new(file: Arc<dyn File>, seed: SegmentSeed, offset: u64, end: u64) -> Self {
        Self {
            file,
            seed,
            offset,
            end,
            chunk_bytes: ReadSizes::now().chunk_bytes,
            chunk: Vec::new(),
            chunk_start: offset,
            unreadable: Vec::new(),
        }
    }

    /// Reads a page at a time: for going from place to place.
    pub(super) fn by_pages(mut self) -> Self {
        self.chunk_bytes = self.chunk_bytes.min(PAGE_BYTES as usize);
        self
    }

    /// Goes to another frame's start.
    pub(super) fn restart(&mut self, offset: u64) {
        self.offset = offset;
    }

    pub(super) fn segment(&self) -> u64 {
        self.seed.segment
    }

    /// Lets go of the memory for what was read.
    pub(super) fn release(&mut self) {
        self.chunk = Vec::new();
        self.unreadable.clear();
    }

    /// More became durable behind the old end.
    pub(super) fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// The next frame or hole; `None` at the end. `payload` decides, by the header, what is done with what the frame
    /// holds.
    pub(super) fn next<'w>(
        &mut self,
        payload: impl FnOnce(&FrameHeader) -> PayloadUse<'w>,
    ) -> io::Result<Option<ScanFound>> {
        let (offset, header) = loop {
            if self.offset >= self.end {
                return Ok(None);
            }
            let offset = self.offset;
            match self.header_at(offset)? {
                Some(ValidFrame::Frame(header)) => break (offset, header),
                Some(ValidFrame::Batch(header)) => {
                    self.offset = offset + BATCH_HEADER_LEN as u64;
                    return Ok(Some(ScanFound::Batch { offset, header }));
                }
                Some(ValidFrame::Filler(len)) => self.offset += len,
                None => return Ok(Some(ScanFound::Hole(self.hole(offset)?))),
            }
        };
        let next = offset + header.frame_len();
        let read = match payload(&header) {
            PayloadUse::Skipped => Some(None),
            PayloadUse::Checked => self.check(offset, &header)?.then_some(None),
            PayloadUse::Copied(is_wanted) => self.copy(offset, &header, is_wanted)?,
        };
        self.offset = next;
        Ok(Some(match read {
            Some(payload) => ScanFound::Frame {
                offset,
                header,
                payload,
            },
            None => ScanFound::Hole(DamagedHole {
                offset,
                len: next - offset,
                content_end: next,
                unreadable: self.is_unreadable(offset..next),
            }),
        }))
    }

    /// Holds the payload of a frame against its checksum, a chunk at a time.
    fn check(&mut self, offset: u64, header: &FrameHeader) -> io::Result<bool> {
        let (mut at, end) = (offset + FRAME_HEADER_LEN as u64, offset + header.frame_len());
        let mut crc = 0;
        while at < end {
            let piece = self.load(at, (end - at).min(self.chunk_bytes as u64) as usize)?;
            if piece.is_empty() {
                return Ok(false);
            }
            crc = crc32c::crc32c_append(crc, piece);
            let next = at + piece.len() as u64;
            if self.is_unreadable(at..next) {
                return Ok(false);
            }
            at = next;
        }
        Ok(crc == header.payload_crc)
    }

    /// Copies the payload of a frame, if it is wanted; `None` if it is not what was written.
    fn copy(
        &mut self,
        offset: u64,
        header: &FrameHeader,
        is_wanted: &dyn Fn(&[u8]) -> bool,
    ) -> io::Result<Option<Option<Bytes>>> {
        let start = offset + FRAME_HEADER_LEN as u64;
        let len = (header.frame_len() - FRAME_HEADER_LEN as u64) as usize;
        let mut unreadable = Vec::new();
        if len <= self.chunk_bytes {
            let piece = self.load(start, len)?;
            if piece.len() < len || crc32c::crc32c(piece) != header.payload_crc {
                return Ok(None);
            }
            let payload = &piece[..header.payload_len as usize];
            let copied = is_wanted(payload).then(|| Bytes::copy_from_slice(payload));
            return Ok((!self.is_unreadable(start..start + len as u64)).then_some(copied));
        }
        let mut body = vec![0; len];
        let read = read_around(self.file.as_ref(), start, &mut body, &mut unreadable)?;
        let whole = read == len && unreadable.is_empty() && crc32c::crc32c(&body) == header.payload_crc;
        // A hole is looked up there.
        self.unreadable.append(&mut unreadable);
        body.truncate(header.payload_len as usize);
        Ok(whole.then(|| is_wanted(&body).then(|| body.into())))
    }

    fn header_at(&mut self, offset: u64) -> io::Result<Option<ValidFrame>> {
        let (seed, end) = (self.seed, self.end);
        let bytes = self.load(offset, BATCH_HEADER_LEN)?;
        // A frame beyond the end was cut off: it never counted.
        let frame = parse_frame_header(bytes, seed, offset).filter(|header| offset + header.frame_len() <= end);
        Ok(match frame {
            Some(header) => Some(ValidFrame::Frame(header)),
            None => {
                let batch = BatchHeader::parse(bytes, seed, offset).map(ValidFrame::Batch);
                batch.or_else(|| parse_filler(bytes, seed, offset).map(ValidFrame::Filler))
            }
        })
    }

    /// Goes on to the next valid header. Frames are aligned, and a header has a checksum of its own, so this is linear.
    fn hole(&mut self, offset: u64) -> io::Result<DamagedHole> {
        let (mut content_end, mut unreadable) = (offset, false);
        let mut at = offset;
        loop {
            let word = self.load(at, 8)?;
            let cut = word.len() < 8;
            let blank = is_blank(word);
            if let Some(lost) = self.unreadable.iter().find(|lost| lost.contains(&at)) {
                unreadable = true;
                at = lost.end;
                content_end = at;
            } else {
                at += 8;
                if !blank {
                    content_end = at;
                }
            }
            if at >= self.end || cut {
                at = self.end;
                break;
            }
            if blank && self.skips_blank(&mut at) {
                continue;
            }
            if self.header_at(at)?.is_some() {
                break;
            }
        }
        self.offset = at;
        Ok(DamagedHole {
            offset,
            len: at - offset,
            content_end: content_end.min(at),
            unreadable,
        })
    }

    /// Passes over a run of zeros within the chunk quickly: the unused end of a preallocated segment.
    fn skips_blank(&self, at: &mut u64) -> bool {
        const RUN: usize = 4096;
        let Some(start) = at.checked_sub(self.chunk_start).map(|start| start as usize) else {
            return false;
        };
        match self.chunk.get(start..start + RUN) {
            Some(run)
                if *at + RUN as u64 <= self.end && is_blank(run) && !self.is_unreadable(*at..*at + RUN as u64) =>
            {
                // A header may straddle the run's end: its last bytes are looked at one by one.
                *at += (RUN - BATCH_HEADER_LEN) as u64;
                true
            }
            _ => false,
        }
    }

    fn is_unreadable(&self, place: Range<u64>) -> bool {
        let overlaps = |lost: &Range<u64>| lost.start < place.end && lost.end > place.start;
        self.unreadable.iter().any(overlaps)
    }

    /// `len` bytes at `at`, at most a chunk; fewer where the file or the segment ends.
    fn load(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        debug_assert!(len <= self.chunk_bytes);
        let len = len.min(self.end.saturating_sub(at) as usize);
        let inside = at >= self.chunk_start && at + len as u64 <= self.chunk_start + self.chunk.len() as u64;
        if !inside {
            let want = self.chunk_bytes.min((self.end - at) as usize);
            self.unreadable.clear();
            self.chunk_start = at;
            self.chunk.clear();
            self.chunk.resize(want, 0);
            match read_around(self.file.as_ref(), at, &mut self.chunk, &mut self.unreadable) {
                Ok(read) => self.chunk.truncate(read),
                Err(error) => {
                    self.chunk.clear();
                    return Err(error);
                }
            }
        }
        let start = ((at - self.chunk_start) as usize).min(self.chunk.len());
        Ok(&self.chunk[start..(start + len).min(self.chunk.len())])
    }
}
