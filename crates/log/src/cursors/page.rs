//! What is on the page of the cursors, byte for byte.

use std::{collections::BTreeMap, ops::RangeInclusive};

use crate::{
    segment::{FEATURES, LogIdentity, VERSION},
    settled::SettledRanges,
};

const MAGIC: [u8; 8] = *b"FBAYPAGE";
const HEADER_LEN: usize = 80;
/// The longest encoding of a range.
const RANGE_BYTES_MAX: usize = 20;
/// No log gets there: a position beyond it is not one.
pub(super) const POSITION_MAX: u64 = 1 << 62;
/// What a slot takes on disk: all cursors with their ranges.
pub(crate) const SLOT_LEN: usize = 256 << 10;

/// What the page holds beside the cursors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PageFacts {
    /// The newest durable record; 0 when there was never one.
    pub last_sequence: u64,
    /// The oldest segment that some cursor has not passed; the one after the newest where they have passed all.
    pub oldest_segment: u64,
    pub newest_segment: u64,
}

/// A page as it was found.
#[derive(Default)]
pub(crate) struct FoundPage {
    pub generation: u64,
    pub identity: Option<LogIdentity>,
    pub facts: PageFacts,
    pub cursors: BTreeMap<String, (u64, SettledRanges)>,
}

/// A cursor's name, its position, and what is settled above it.
pub(crate) type CursorSnapshot<'a> = (&'a str, (u64, Vec<RangeInclusive<u64>>));

/// A page behind its generation. What is left of the slot for ranges is shared by those who need some.
pub(crate) fn encode(identity: &LogIdentity, facts: &PageFacts, cursors: &[CursorSnapshot<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&identity.log);
    for number in [
        identity.epoch,
        facts.last_sequence,
        facts.oldest_segment,
        facts.newest_segment,
    ] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.extend_from_slice(&(cursors.len() as u32).to_le_bytes());
    // For the length.
    body.extend_from_slice(&[0; 4]);
    let names: usize = cursors.iter().map(|(name, _)| name.len() + 1 + 8 + 4).sum();
    // What is left for ranges is shared by those who need some.
    let mut room = SLOT_LEN - HEADER_LEN - 4 - names;
    for (at, (name, (position, settled))) in cursors.iter().enumerate() {
        let share = room / (cursors.len() - at);
        let before = body.len();
        body.push(name.len() as u8);
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&position.to_le_bytes());
        let count_at = body.len();
        body.extend_from_slice(&[0; 4]);
        let ranges_at = body.len();
        let mut count: u32 = 0;
        let mut end = *position;
        for range in settled {
            if body.len() - ranges_at + RANGE_BYTES_MAX > share {
                break;
            }
            put_varint(&mut body, range.start() - end);
            put_varint(&mut body, range.end() - range.start());
            end = *range.end();
            count += 1;
        }
        body[count_at..ranges_at].copy_from_slice(&count.to_le_bytes());
        room -= body.len() - before - (name.len() + 1 + 8 + 4);
    }
    let len = (body.len() - (HEADER_LEN - FIRST_OF_BODY)) as u32;
    body[HEADER_LEN - FIRST_OF_BODY - 4..HEADER_LEN - FIRST_OF_BODY].copy_from_slice(&len.to_le_bytes());
    body
}

/// A slot: what stands before the body, the body, and the checksum over both.
pub(crate) fn slot(generation: u64, body: &[u8]) -> Vec<u8> {
    let mut slot = Vec::with_capacity(FIRST_OF_BODY + body.len() + 4);
    slot.extend_from_slice(&MAGIC);
    slot.extend_from_slice(&VERSION.to_le_bytes());
    slot.extend_from_slice(&FEATURES.to_le_bytes());
    slot.extend_from_slice(&generation.to_le_bytes());
    slot.extend_from_slice(body);
    let crc = crc32c::crc32c(&slot);
    slot.extend_from_slice(&crc.to_le_bytes());
    slot
}

/// Where in a slot the body begins: behind magic, version, features and generation.
const FIRST_OF_BODY: usize = 24;

/// The page in a slot, if it is whole. One of a version that this build does not know is not: a cursor is a hint.
pub(crate) fn decode(slot: &[u8]) -> Option<FoundPage> {
    let number = |at: usize| Some(u64::from_le_bytes(slot.get(at..at + 8)?.try_into().ok()?));
    let half = |at: usize| Some(u32::from_le_bytes(slot.get(at..at + 4)?.try_into().ok()?));
    if slot.get(..8)? != MAGIC || half(8)? != VERSION || half(12)? & !FEATURES != 0 {
        return None;
    }
    let end = HEADER_LEN.checked_add(half(76)? as usize)?;
    if crc32c::crc32c(slot.get(..end)?) != half(end)? {
        return None;
    }
    let mut page = FoundPage {
        generation: number(16)?,
        identity: Some(LogIdentity {
            log: slot[24..40].try_into().ok()?,
            epoch: number(40)?,
        }),
        facts: PageFacts {
            last_sequence: number(48)?,
            oldest_segment: number(56)?,
            newest_segment: number(64)?,
        },
        cursors: BTreeMap::new(),
    };
    let mut rest = slot.get(HEADER_LEN..end)?;
    for _ in 0..half(72)? {
        let (len, after) = rest.split_first()?;
        let (name, after) = after.split_at_checked(*len as usize)?;
        let (position, after) = after.split_first_chunk::<8>()?;
        let (count, after) = after.split_first_chunk::<4>()?;
        rest = after;
        let position = u64::from_le_bytes(*position);
        let mut settled = SettledRanges::default();
        let mut end = position;
        for _ in 0..u32::from_le_bytes(*count) {
            let start = end.checked_add(take_varint(&mut rest)?)?;
            end = start.checked_add(take_varint(&mut rest)?)?;
            settled.insert_settled(position, start..=end);
        }
        if end > POSITION_MAX {
            return None;
        }
        page.cursors
            .insert(String::from_utf8(name.to_vec()).ok()?, (position, settled));
    }
    Some(page)
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}
