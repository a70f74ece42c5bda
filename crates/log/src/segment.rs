//! The bytes of a segment: its header, its frames, its seal. docs/spool-format.md has the tables.

mod seed;

pub(super) use self::seed::find_log_seed;
use super::RecordClass;

/// Where the frames start. The header and the seal have this block for themselves, so that no append rewrites it.
pub(super) const DATA_START: u64 = 4096;
pub(super) const HEADER_LEN: usize = 96;
const HEADER_V1_LEN: usize = 48;
pub(super) const SEAL_OFFSET: usize = 512;
pub(super) const SEAL_LEN: usize = 56;
pub(super) const FRAME_HEADER_LEN: usize = 32;
pub(super) const BATCH_HEADER_LEN: usize = 48;
const ALIGN: u64 = 8;

const HEADER_MAGIC: [u8; 8] = *b"FOREBAYS";
const SEAL_MAGIC: [u8; 8] = *b"FBAYSEAL";
const FRAME_MARK: u16 = 0xF0BA;
const BATCH_MARK: u16 = 0xF0BB;
const FILLER_MARK: u16 = 0xF0BC;
/// The version that is written. Versions 2 and 3 were never released.
pub(super) const VERSION: u32 = 4;
/// The first version: no identity, and no headers of batches.
const VERSION_1: u32 = 1;
/// What a file may have that a reader must know, as bits. There is none yet.
pub(super) const FEATURES: u32 = 0;

/// The longest payload that the format can say.
pub(super) const PAYLOAD_BYTES_MAX: u64 = 1 << 30;

/// A segment's name: the header's fields once more, so that a damaged header loses nothing.
pub(super) fn file_name(id: u64, first_sequence: u64) -> String {
    format!("{id:016x}-{first_sequence:016x}.seg")
}

/// The id and the first sequence number in a segment's name.
pub(super) fn parse_file_name(name: &str) -> Option<(u64, u64)> {
    let (id, first) = name.strip_suffix(".seg")?.split_once('-')?;
    let number = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
    Some((number(id)?, number(first)?))
}

/// What every checksum of a segment's content begins with, so that the bytes of another log, or of another segment, are
/// not valid in this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentSeed {
    pub segment: u64,
    /// Of the log's UUID; 0 in version 1.
    pub log: u32,
}

impl SegmentSeed {
    /// For what stands at `offset`.
    fn at(self, offset: u64) -> u32 {
        let mut place = [0; 16];
        place[..8].copy_from_slice(&self.segment.to_le_bytes());
        place[8..].copy_from_slice(&offset.to_le_bytes());
        crc32c::crc32c_append(self.log, &place)
    }
}

/// The log's part of a [`SegmentSeed`].
pub(super) fn log_seed(log: &[u8; 16]) -> u32 {
    crc32c::crc32c(log)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// What the first bytes of a segment say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentHeader {
    Valid {
        id: u64,
        first_sequence: u64,
        /// Which log it belongs to, and in which of its lives it was made; `None` in version 1.
        identity: Option<LogIdentity>,
    },
    /// All zeros: its creation did not finish, or it was overwritten.
    Blank,
    /// A version that this build does not read.
    Unknown(u32),
    /// Features that this build does not know.
    UnknownFeatures(u32),
    Damaged,
}

/// Which log something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogIdentity {
    pub log: [u8; 16],
    /// Rises at every start.
    pub epoch: u64,
}

/// The first block of a new segment.
pub(super) fn encode_header(id: u64, first_sequence: u64, identity: &LogIdentity) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[0..8].copy_from_slice(&HEADER_MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&FEATURES.to_le_bytes());
    bytes[16..24].copy_from_slice(&id.to_le_bytes());
    bytes[24..32].copy_from_slice(&first_sequence.to_le_bytes());
    bytes[32..48].copy_from_slice(&identity.log);
    bytes[48..56].copy_from_slice(&identity.epoch.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..HEADER_LEN - 4]);
    bytes[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads the header from a segment's first block, as much of it as there is.
pub(super) fn parse_header(block: &[u8]) -> SegmentHeader {
    let is_whole = |len: usize| {
        let bytes = block.get(..len);
        bytes.is_some_and(|bytes| crc32c::crc32c(&bytes[..len - 4]) == u32_at(bytes, len - 4))
    };
    if is_blank(&block[..block.len().min(HEADER_LEN)]) {
        return SegmentHeader::Blank;
    }
    if block.get(..8) != Some(&HEADER_MAGIC) || !(is_whole(HEADER_V1_LEN) || is_whole(HEADER_LEN)) {
        return SegmentHeader::Damaged;
    }
    let (version, features) = (u32_at(block, 8), u32_at(block, 12));
    if version != VERSION && version != VERSION_1 {
        return SegmentHeader::Unknown(version);
    }
    if features & !FEATURES != 0 {
        return SegmentHeader::UnknownFeatures(features & !FEATURES);
    }
    let identity = (version == VERSION && is_whole(HEADER_LEN)).then(|| LogIdentity {
        log: block[32..48].try_into().expect("sixteen bytes"),
        epoch: u64_at(block, 48),
    });
    if identity.is_none() && version != VERSION_1 {
        return SegmentHeader::Damaged;
    }
    SegmentHeader::Valid {
        id: u64_at(block, 16),
        first_sequence: u64_at(block, 24),
        identity,
    }
}

/// What a segment holds, written once nothing is added any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentSeal {
    pub records: u64,
    /// Bytes of the frames of bulk records.
    pub bulk_bytes: u64,
    /// One below the segment's first when there is no record.
    pub last_sequence: u64,
    /// Where the last frame ends.
    pub end: u64,
}

/// The seal and the offset it is written at.
pub(super) fn encode_seal(seed: SegmentSeed, seal: &SegmentSeal) -> (u64, [u8; SEAL_LEN]) {
    let mut bytes = [0; SEAL_LEN];
    bytes[0..8].copy_from_slice(&SEAL_MAGIC);
    bytes[8..16].copy_from_slice(&seed.segment.to_le_bytes());
    bytes[16..24].copy_from_slice(&seal.records.to_le_bytes());
    bytes[24..32].copy_from_slice(&seal.bulk_bytes.to_le_bytes());
    bytes[32..40].copy_from_slice(&seal.last_sequence.to_le_bytes());
    bytes[40..48].copy_from_slice(&seal.end.to_le_bytes());
    let crc = crc32c::crc32c_append(seed.log, &bytes[..SEAL_LEN - 4]);
    bytes[SEAL_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
    (SEAL_OFFSET as u64, bytes)
}

/// Reads the seal from a segment's first block, if it has one that is whole.
pub(super) fn parse_seal(block: &[u8], seed: SegmentSeed) -> Option<SegmentSeal> {
    let bytes = block.get(SEAL_OFFSET..SEAL_OFFSET + SEAL_LEN)?;
    let valid = bytes[0..8] == SEAL_MAGIC
        && u64_at(bytes, 8) == seed.segment
        && crc32c::crc32c_append(seed.log, &bytes[..SEAL_LEN - 4]) == u32_at(bytes, SEAL_LEN - 4);
    valid.then(|| SegmentSeal {
        records: u64_at(bytes, 16),
        bulk_bytes: u64_at(bytes, 24),
        last_sequence: u64_at(bytes, 32),
        end: u64_at(bytes, 40),
    })
}

/// A frame without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub payload_crc: u32,
    pub payload_len: u32,
    /// Where the batch starts that the frame was written with.
    pub batch_start: u32,
    pub sequence: u64,
    pub class: RecordClass,
}

impl FrameHeader {
    /// Bytes from this frame's start to the next one's.
    pub(super) fn frame_len(&self) -> u64 {
        frame_len(self.payload_len as usize)
    }
}

/// Bytes that a record takes in a segment.
pub(super) fn frame_len(payload_len: usize) -> u64 {
    (FRAME_HEADER_LEN as u64 + payload_len as u64).next_multiple_of(ALIGN)
}

/// Appends a frame to `buffer`, which will be written at `batch_start`.
pub(super) fn encode_frame(
    buffer: &mut Vec<u8>,
    seed: SegmentSeed,
    batch_start: u64,
    sequence: u64,
    class: RecordClass,
    payload: &[u8],
) {
    let at = buffer.len();
    buffer.resize(at + FRAME_HEADER_LEN, 0);
    buffer.extend_from_slice(payload);
    buffer.resize(at + frame_len(payload.len()) as usize, 0);
    let (header, body) = buffer[at..].split_at_mut(FRAME_HEADER_LEN);
    header[4..8].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    header[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[12..16].copy_from_slice(&(batch_start as u32).to_le_bytes());
    header[16..24].copy_from_slice(&sequence.to_le_bytes());
    header[24..26].copy_from_slice(&FRAME_MARK.to_le_bytes());
    header[26] = match class {
        RecordClass::Ordinary => 0,
        RecordClass::Bulk => 1,
    };
    // Over where it stands and what it says. The payload's checksum is part of that, so a right frame in a wrong place
    // is wrong.
    let crc = crc32c::crc32c_append(seed.at(batch_start + at as u64), &header[4..]);
    header[0..4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the frame header that stands at `offset` of a segment, if one does.
pub(super) fn parse_frame_header(bytes: &[u8], seed: SegmentSeed, offset: u64) -> Option<FrameHeader> {
    let bytes = bytes.get(..FRAME_HEADER_LEN)?;
    if u16_at(bytes, 24) != FRAME_MARK || u32_at(bytes, 0) != crc32c::crc32c_append(seed.at(offset), &bytes[4..]) {
        return None;
    }
    Some(FrameHeader {
        payload_crc: u32_at(bytes, 4),
        payload_len: u32_at(bytes, 8),
        batch_start: u32_at(bytes, 12),
        sequence: u64_at(bytes, 16),
        class: match bytes[26] {
            0 => RecordClass::Ordinary,
            _ => RecordClass::Bulk,
        },
    })
}

/// What is written over a torn place between records that are whole: `len` bytes, with this, that hold nothing.
pub(super) fn encode_filler(seed: SegmentSeed, offset: u64, len: u64) -> [u8; FRAME_HEADER_LEN] {
    let mut bytes = [0; FRAME_HEADER_LEN];
    bytes[8..12].copy_from_slice(&(len as u32).to_le_bytes());
    bytes[24..26].copy_from_slice(&FILLER_MARK.to_le_bytes());
    let crc = crc32c::crc32c_append(seed.at(offset), &bytes[4..]);
    bytes[0..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The length of the filler that stands at `offset`, if one does.
pub(super) fn parse_filler(bytes: &[u8], seed: SegmentSeed, offset: u64) -> Option<u64> {
    let bytes = bytes.get(..FRAME_HEADER_LEN)?;
    let valid =
        u16_at(bytes, 24) == FILLER_MARK && u32_at(bytes, 0) == crc32c::crc32c_append(seed.at(offset), &bytes[4..]);
    valid
        .then(|| u64::from(u32_at(bytes, 8)))
        .filter(|len| *len >= FRAME_HEADER_LEN as u64)
}

/// What stands before the frames that were written with one call and made durable with one sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub records: u32,
    /// Bytes of the batch, with this header.
    pub len: u32,
    /// Where the batch before it starts in this segment, 0 when it is the first.
    pub previous: u32,
    pub first_sequence: u64,
    /// Every record up to this number was durable when the batch was written.
    pub durable: u64,
}

impl BatchHeader {
    /// The bytes that stand at `offset`.
    pub(super) fn encode(&self, seed: SegmentSeed, offset: u64) -> [u8; BATCH_HEADER_LEN] {
        let mut bytes = [0; BATCH_HEADER_LEN];
        bytes[4..8].copy_from_slice(&self.records.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.previous.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[24..26].copy_from_slice(&BATCH_MARK.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.durable.to_le_bytes());
        let crc = crc32c::crc32c_append(seed.at(offset), &bytes[4..]);
        bytes[0..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header that stands at `offset` of a segment, if one does.
    pub(super) fn parse(bytes: &[u8], seed: SegmentSeed, offset: u64) -> Option<Self> {
        let bytes = bytes.get(..BATCH_HEADER_LEN)?;
        if u16_at(bytes, 24) != BATCH_MARK || u32_at(bytes, 0) != crc32c::crc32c_append(seed.at(offset), &bytes[4..]) {
            return None;
        }
        Some(Self {
            records: u32_at(bytes, 4),
            len: u32_at(bytes, 8),
            previous: u32_at(bytes, 12),
            first_sequence: u64_at(bytes, 16),
            durable: u64_at(bytes, 32),
        })
    }
}

/// Whether it is all zeros.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(8);
    words.all(|word| word == [0; 8]) && bytes[bytes.len() - bytes.len() % 8..].iter().all(|byte| *byte == 0)
}
