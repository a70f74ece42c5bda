//! The bytes of an index. docs/spool-format.md has the tables.
//!
//! A head of whole blocks, with the times, the kinds and the first hash of each block of keys; then blocks of keys,
//! each key's hash with where its offsets are; then blocks of offsets. Each block has a checksum, so that a look-up
//! reads a few of them and trusts no more.

use std::{collections::BTreeMap, io};

use super::{LogQuery, damaged};
use crate::{file_system::File, segment::SegmentSeed, shared::Segment};

const MAGIC: [u8; 8] = *b"FBAYINDX";
const VERSION: u32 = 1;
const BLOCK: usize = 4096;
/// Of a block, the rest is its checksum.
const BLOCK_CONTENT: usize = BLOCK - 4;
/// Hash, first offset, number of offsets.
const KEY_LEN: usize = 16;
const KEYS_IN_BLOCK: usize = BLOCK_CONTENT / KEY_LEN;
const OFFSETS_IN_BLOCK: usize = BLOCK_CONTENT / 4;
const HEAD_FIXED: usize = 64;
/// No head is longer: that of a segment of the largest size has a fence for every 255 records.
const HEAD_BYTES_MAX: usize = 64 << 20;

/// The name of a segment's index.
pub(super) fn file_name(segment: u64) -> String {
    format!("{segment:016x}.idx")
}

/// The segment in an index's name.
pub(super) fn parse_file_name(name: &str) -> Option<u64> {
    let id = name.strip_suffix(".idx").filter(|id| id.len() == 16)?;
    u64::from_str_radix(id, 16).ok()
}

/// FNV-1a of 64 bits, the same for ever: <https://www.rfc-editor.org/rfc/rfc9923>.
pub(crate) fn key_hash(key: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key.as_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

/// What an index is made of.
#[derive(Default)]
pub(super) struct IndexContent {
    /// When the oldest and the newest record were recorded.
    pub times: Option<(i64, i64)>,
    pub kinds: BTreeMap<String, u32>,
    /// By a key's hash, where its records stand, in rising order.
    pub keys: BTreeMap<u64, Vec<u32>>,
}

impl IndexContent {
    /// The bytes of the index of a segment.
    pub fn encode(&self, segment: &Segment) -> Vec<u8> {
        let seed = block_seed(segment.seed());
        let keys: Vec<_> = self.keys.iter().collect();
        let (mut key_blocks, mut fences, mut first) = (Vec::new(), Vec::new(), 0_u32);
        for block in keys.chunks(KEYS_IN_BLOCK) {
            fences.push(*block[0].0);
            let mut bytes = Vec::with_capacity(BLOCK);
            for (hash, offsets) in block {
                bytes.extend_from_slice(&hash.to_le_bytes());
                bytes.extend_from_slice(&first.to_le_bytes());
                bytes.extend_from_slice(&(offsets.len() as u32).to_le_bytes());
                first += offsets.len() as u32;
            }
            push_block(&mut key_blocks, bytes, seed);
        }
        let mut offset_blocks = Vec::new();
        let offsets: Vec<u32> = keys.iter().flat_map(|(_, offsets)| offsets.iter().copied()).collect();
        for block in offsets.chunks(OFFSETS_IN_BLOCK) {
            let bytes = block.iter().flat_map(|offset| offset.to_le_bytes()).collect();
            push_block(&mut offset_blocks, bytes, seed);
        }
        let mut kinds = Vec::new();
        for (kind, records) in &self.kinds {
            kinds.extend_from_slice(&(kind.len() as u32).to_le_bytes());
            kinds.extend_from_slice(kind.as_bytes());
            kinds.extend_from_slice(&records.to_le_bytes());
        }
        let head_len = HEAD_FIXED + kinds.len() + fences.len() * 8 + 4;
        let head_blocks = head_len.div_ceil(BLOCK);
        let (oldest, newest) = self.times.unwrap_or_default();
        let mut bytes = Vec::with_capacity(head_blocks * BLOCK + key_blocks.len() + offset_blocks.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(head_len as u32).to_le_bytes());
        bytes.extend_from_slice(&segment.end.to_le_bytes());
        bytes.extend_from_slice(&oldest.to_le_bytes());
        bytes.extend_from_slice(&newest.to_le_bytes());
        bytes.extend_from_slice(&(keys.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(offsets.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.kinds.len() as u32).to_le_bytes());
        bytes.resize(HEAD_FIXED, 0);
        bytes.extend_from_slice(&kinds);
        bytes.extend(fences.iter().flat_map(|fence| fence.to_le_bytes()));
        let crc = crc32c::crc32c_append(seed, &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.resize(head_blocks * BLOCK, 0);
        bytes.extend_from_slice(&key_blocks);
        bytes.extend_from_slice(&offset_blocks);
        bytes
    }
}

/// What the checksums of a segment's index begin with, so that one of another segment, or log, is not valid.
fn block_seed(seed: SegmentSeed) -> u32 {
    crc32c::crc32c_append(seed.log, &seed.segment.to_le_bytes())
}

fn push_block(blocks: &mut Vec<u8>, mut content: Vec<u8>, seed: u32) {
    content.resize(BLOCK_CONTENT, 0);
    let crc = crc32c::crc32c_append(seed, &content);
    blocks.extend_from_slice(&content);
    blocks.extend_from_slice(&crc.to_le_bytes());
}

/// What is kept of an index in memory: its head. The file is opened for a look-up, so that however much is retained
/// takes no descriptors.
pub(super) struct SegmentIndex {
    seed: u32,
    /// When the oldest and the newest record were recorded.
    pub times: (i64, i64),
    kinds: Vec<String>,
    /// The first hash of each block of keys.
    fences: Vec<u64>,
    keys: usize,
    offsets: usize,
    keys_start: u64,
}

impl SegmentIndex {
    /// Reads the head of a segment's index.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not that of the segment as it is.
    pub fn read(file: &dyn File, segment: &Segment) -> io::Result<Self> {
        let seed = block_seed(segment.seed());
        let mut fixed = [0; HEAD_FIXED];
        if file.pread(0, &mut fixed)? < HEAD_FIXED || fixed[..8] != MAGIC {
            return Err(damaged("no index"));
        }
        let number = |at: usize| u32::from_le_bytes(fixed[at..at + 4].try_into().expect("four bytes")) as usize;
        let long = |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().expect("eight bytes"));
        let (version, head_len) = (number(8), number(12));
        if version != VERSION as usize || !(HEAD_FIXED + 4..=HEAD_BYTES_MAX).contains(&head_len) {
            return Err(damaged("an index of another version"));
        }
        let mut head = vec![0; head_len];
        let (content, crc) = match file.pread(0, &mut head)? {
            read if read < head_len => return Err(damaged("an index that ends early")),
            _ => head.split_at(head_len - 4),
        };
        if crc != crc32c::crc32c_append(seed, content).to_le_bytes() || long(16) != segment.end {
            return Err(damaged("not the index of the segment"));
        }
        let (keys, offsets, kinds_len) = (number(40), number(44), number(48));
        let mut rest = &content[HEAD_FIXED..];
        let mut kinds = Vec::new();
        for _ in 0..kinds_len {
            let (len, after) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("a kind"))?;
            let (kind, after) = after
                .split_at_checked(u32::from_le_bytes(*len) as usize)
                .ok_or_else(|| damaged("a kind"))?;
            kinds.push(String::from_utf8_lossy(kind).into_owned());
            rest = after.get(4..).ok_or_else(|| damaged("a kind"))?;
        }
        let fences: Vec<u64> = rest
            .chunks_exact(8)
            .map(|fence| u64::from_le_bytes(fence.try_into().expect("eight bytes")))
            .collect();
        if fences.len() != keys.div_ceil(KEYS_IN_BLOCK) {
            return Err(damaged("the fences"));
        }
        Ok(Self {
            seed,
            times: (long(24).cast_signed(), long(32).cast_signed()),
            kinds,
            fences,
            keys,
            offsets,
            keys_start: head_len.next_multiple_of(BLOCK) as u64,
        })
    }

    /// Whether the segment may have what a query asks for.
    pub fn may_have(&self, query: &LogQuery) -> bool {
        self.offsets > 0
            && query.from_ms.is_none_or(|from| self.times.1 >= from)
            && query.to_ms.is_none_or(|to| self.times.0 < to)
            && (query.kinds.is_empty() || query.kinds.iter().any(|kind| self.kinds.contains(kind)))
    }

    /// Where the records of these keys stand, in rising order.
    ///
    /// # Errors
    ///
    /// A block cannot be read, or is not what was written.
    pub fn find(&self, file: &dyn File, hashes: impl Iterator<Item = u64>) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for hash in hashes {
            let block = self.fences.partition_point(|fence| *fence <= hash);
            let Some(block) = block.checked_sub(1) else { continue };
            let keys = self.block(file, self.keys_start, block)?;
            let in_block = KEYS_IN_BLOCK.min(self.keys - block * KEYS_IN_BLOCK);
            let mut entries = keys[..in_block * KEY_LEN].chunks_exact(KEY_LEN);
            let Some(entry) = entries.find(|entry| entry[..8] == hash.to_le_bytes()) else {
                continue;
            };
            let number = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("four bytes")) as usize;
            let (first, end) = (number(8), number(8) + number(12));
            if end > self.offsets {
                return Err(damaged("a key"));
            }
            let offsets_start = self.keys_start + (self.fences.len() * BLOCK) as u64;
            let mut at = first;
            while at < end {
                let block = self.block(file, offsets_start, at / OFFSETS_IN_BLOCK)?;
                let until = end.min((at / OFFSETS_IN_BLOCK + 1) * OFFSETS_IN_BLOCK);
                let of_block = &block[at % OFFSETS_IN_BLOCK * 4..][..(until - at) * 4];
                let offsets = of_block.chunks_exact(4);
                found.extend(
                    offsets.map(|offset| u64::from(u32::from_le_bytes(offset.try_into().expect("four bytes")))),
                );
                at = until;
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn block(&self, file: &dyn File, start: u64, number: usize) -> io::Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        let read = file.pread(start + (number * BLOCK) as u64, &mut block)?;
        let (content, crc) = block.split_at(BLOCK_CONTENT);
        match read == BLOCK && crc == crc32c::crc32c_append(self.seed, content).to_le_bytes() {
            true => Ok(block),
            false => Err(damaged("a block")),
        }
    }
}
