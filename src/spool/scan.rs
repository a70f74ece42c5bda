//! Reads a segment from a place on, in chunks, and finds its way again after damage.

use std::{io, sync::Arc};

use bytes::Bytes;

use super::{
    file_system::File,
    segment::{FRAME_HEADER_LEN, FrameHeader, is_blank, parse_frame_header},
};

/// Bytes read at a time, unless one frame is longer.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

/// The next thing in a segment.
#[derive(Debug)]
pub(super) enum Found {
    Frame {
        offset: u64,
        header: FrameHeader,
        payload: Bytes,
    },
    /// Bytes that are no valid frame, up to the next header that is valid, or the end.
    Hole {
        offset: u64,
        len: u64,
        /// The header, when it is only the payload that is wrong.
        header: Option<FrameHeader>,
        /// Nothing but zeros: never written, as far as one can tell.
        blank: bool,
    },
}

/// A position in a segment.
pub(super) struct Scan {
    file: Arc<dyn File>,
    segment: u64,
    offset: u64,
    end: u64,
    chunk: Bytes,
    chunk_start: u64,
}

impl Scan {
    /// Scans `file` from `offset`, where a frame starts, to `end`.
    pub(super) fn new(file: Arc<dyn File>, segment: u64, offset: u64, end: u64) -> Self {
        Self {
            file,
            segment,
            offset,
            end,
            chunk: Bytes::new(),
            chunk_start: offset,
        }
    }

    /// The same scan, from another frame's start.
    pub(super) fn restart(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    pub(super) fn segment(&self) -> u64 {
        self.segment
    }

    /// Whether the next frame is already in memory, as far as its header tells.
    pub(super) fn is_buffered(&self) -> bool {
        self.offset >= self.chunk_start
            && self.offset + (FRAME_HEADER_LEN as u64) <= self.chunk_start + self.chunk.len() as u64
    }

    /// More became durable behind the old end.
    pub(super) fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// The next frame or hole; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let offset = self.offset;
        let Some(header) = self.header_at(offset)? else {
            return self.hole(offset).map(Some);
        };
        let len = header.frame_len();
        let frame = self.bytes(offset, len as usize)?;
        let payload_end = FRAME_HEADER_LEN + header.payload_len as usize;
        self.offset = offset + len;
        if (frame.len() as u64) < len || crc32c::crc32c(&frame[FRAME_HEADER_LEN..]) != header.payload_crc {
            self.offset = self.offset.min(self.end);
            return Ok(Some(Found::Hole {
                offset,
                len: self.offset - offset,
                header: Some(header),
                blank: false,
            }));
        }
        Ok(Some(Found::Frame {
            offset,
            header,
            payload: frame.slice(FRAME_HEADER_LEN..payload_end),
        }))
    }

    fn header_at(&mut self, offset: u64) -> io::Result<Option<FrameHeader>> {
        let segment = self.segment;
        let bytes = self.bytes(offset, FRAME_HEADER_LEN)?;
        // A frame beyond the end was cut off: it never counted.
        Ok(parse_frame_header(&bytes, segment, offset).filter(|header| offset + header.frame_len() <= self.end))
    }

    /// Goes on to the next valid header. Frames are aligned, and a header has a checksum of its own, so this is linear.
    fn hole(&mut self, offset: u64) -> io::Result<Found> {
        let mut blank = true;
        let mut at = offset;
        loop {
            let word = self.bytes(at, 8)?;
            blank &= is_blank(&word);
            at += 8;
            if at >= self.end || word.len() < 8 {
                at = self.end;
                break;
            }
            if self.skips_blank(&mut at) {
                continue;
            }
            if self.header_at(at)?.is_some() {
                break;
            }
        }
        self.offset = at;
        Ok(Found::Hole {
            offset,
            len: at - offset,
            header: None,
            blank,
        })
    }

    /// Passes over a run of zeros within the chunk quickly: the unused end of a preallocated segment.
    fn skips_blank(&self, at: &mut u64) -> bool {
        const RUN: usize = 4096;
        let Some(start) = at.checked_sub(self.chunk_start).map(|start| start as usize) else {
            return false;
        };
        match self.chunk.get(start..start + RUN) {
            Some(run) if *at + RUN as u64 <= self.end && is_blank(run) => {
                // A header may straddle the run's end: its last bytes are looked at one by one.
                *at += (RUN - FRAME_HEADER_LEN) as u64;
                true
            }
            _ => false,
        }
    }

    /// `len` bytes at `at`, fewer where the file or the segment ends.
    fn bytes(&mut self, at: u64, len: usize) -> io::Result<Bytes> {
        let len = len.min(self.end.saturating_sub(at) as usize);
        let inside = at >= self.chunk_start && at + len as u64 <= self.chunk_start + self.chunk.len() as u64;
        if !inside {
            let want = len.max(CHUNK_BYTES).min((self.end - at) as usize);
            let mut buffer = vec![0; want];
            let read = self.file.pread(at, &mut buffer)?;
            buffer.truncate(read);
            self.chunk = buffer.into();
            self.chunk_start = at;
        }
        let start = (at - self.chunk_start) as usize;
        Ok(self
            .chunk
            .slice(start.min(self.chunk.len())..(start + len).min(self.chunk.len())))
    }
}
