//! The log's part of the checksums, found from the checksums themselves: for a log of which superblock, page and
//! headers are lost.
//!
//! A CRC is an affine function of what it begins with, and one that can be inverted. So each header in a segment says
//! with which seed its checksum would be right; where several agree, they are headers, and it is the seed.

use std::collections::HashMap;

use super::{
    ALIGN, BATCH_HEADER_LEN, BATCH_MARK, FILLER_MARK, FRAME_HEADER_LEN, FRAME_MARK, SegmentSeed, u16_at, u32_at,
};

/// So many headers must agree: anything that looks like one asks for some seed.
const HEADERS_MIN: usize = 2;

/// The log's part of the seed with which the most headers in `bytes`, which stand at `offset` of a segment, are right.
pub(crate) fn find_log_seed(bytes: &[u8], segment: u64, offset: u64) -> Option<u32> {
    let mut asked: HashMap<u32, usize> = HashMap::new();
    for at in (0..bytes.len()).step_by(ALIGN as usize) {
        if let Some(seed) = asked_seed(&bytes[at..], segment, offset + at as u64) {
            *asked.entry(seed).or_default() += 1;
        }
    }
    let most = asked.into_iter().max_by_key(|(_, headers)| *headers)?;
    (most.1 >= HEADERS_MIN).then_some(most.0)
}

/// With which seed the header would be right that may stand here.
fn asked_seed(bytes: &[u8], segment: u64, offset: u64) -> Option<u32> {
    let len = match u16_at(bytes.get(..FRAME_HEADER_LEN)?, 24) {
        FRAME_MARK | FILLER_MARK => FRAME_HEADER_LEN,
        BATCH_MARK => BATCH_HEADER_LEN,
        _ => return None,
    };
    let covered = bytes.get(4..len)?;
    let checksum = |log| crc32c::crc32c_append(SegmentSeed { segment, log }.at(offset), covered);
    let zero = checksum(0);
    let columns = std::array::from_fn(|bit| checksum(1 << bit) ^ zero);
    solve(columns, u32_at(bytes, 0) ^ zero)
}

/// The bits whose columns make up `sum`.
fn solve(columns: [u32; 32], mut sum: u32) -> Option<u32> {
    // By their highest bit, the columns that are independent, each with the bits that it is made of.
    let mut rows: [Option<(u32, u32)>; 32] = [None; 32];
    for (bit, column) in columns.into_iter().enumerate() {
        let (mut column, mut made_of) = (column, 1 << bit);
        while column != 0 {
            let highest = column.ilog2() as usize;
            match rows[highest] {
                Some((other, its)) => (column, made_of) = (column ^ other, made_of ^ its),
                None => {
                    rows[highest] = Some((column, made_of));
                    break;
                }
            }
        }
    }
    let mut bits = 0;
    while sum != 0 {
        let (column, made_of) = rows[sum.ilog2() as usize]?;
        (sum, bits) = (sum ^ column, bits ^ made_of);
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        RecordClass,
        segment::{encode_filler, encode_frame},
        testing::Random,
    };

    #[test]
    fn the_seed_of_headers_is_found_and_noise_has_none() {
        let seed = SegmentSeed {
            segment: 7,
            log: 0x1234_5678,
        };
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, seed, 4096, 9, RecordClass::Ordinary, b"a record");
        assert_eq!(find_log_seed(&bytes, 7, 4096), None, "one header says nothing");
        let filler = encode_filler(seed, 4096 + bytes.len() as u64, 64);
        bytes.extend_from_slice(&filler);
        assert_eq!(find_log_seed(&bytes, 7, 4096), Some(0x1234_5678));
        assert_ne!(find_log_seed(&bytes, 8, 4096), Some(0x1234_5678));

        let mut random = Random::new(1);
        let noise: Vec<u8> = (0..1 << 16).map(|_| random.below(256) as u8).collect();
        assert_eq!(find_log_seed(&noise, 7, 4096), None);
    }
}
