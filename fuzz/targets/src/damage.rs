//! Files that are damaged as an input says.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use forebay_log::testing::disk::FakeDisk;

use crate::InputReader;

/// One place after the other is damaged, so often at most: fewer bits than a checksum of a short frame may miss.
const PLACES_MAX: usize = 4;
const RUN_BYTES_MAX: usize = 1024;
const SECTOR_BYTES: usize = 512;
/// What cannot be read is lost by the page.
const PAGE_BYTES: usize = 4096;

/// A place that is no longer as it was written.
#[derive(Debug)]
pub struct DamagedPlace {
    pub path: PathBuf,
    pub bytes: Range<u64>,
}

/// What was done to some files.
#[derive(Debug, Default)]
pub struct DamagedPlaces {
    places: Vec<DamagedPlace>,
    /// There are bytes of the input's own among them, which may be valid.
    pub is_forged: bool,
}

impl DamagedPlaces {
    /// Damages `files` as the input says. What is as before is not damaged.
    pub fn make(disk: &FakeDisk, files: &[PathBuf], input: &mut InputReader<'_>) -> Self {
        let mut damaged = Self::default();
        for _ in 0..PLACES_MAX {
            if input.is_empty() || files.is_empty() {
                break;
            }
            damaged.make_one(disk, files, input);
        }
        damaged
    }

    /// Whether something that stands there is damaged.
    pub fn touch(&self, path: &Path, bytes: &Range<u64>) -> bool {
        let touches =
            |place: &DamagedPlace| place.path == path && place.bytes.start < bytes.end && bytes.start < place.bytes.end;
        self.places.iter().any(touches)
    }

    fn make_one(&mut self, disk: &FakeDisk, files: &[PathBuf], input: &mut InputReader<'_>) {
        let path = &files[input.below(files.len())];
        let before = disk.bytes(path).expect("the file is there");
        if before.is_empty() {
            return;
        }
        let kind = input.below(8);
        let at = place(&before, input);
        let mut after = before.clone();
        let run = |len: usize| at..before.len().min(at + len);
        match kind {
            // As a disk loses bits, and sectors that it never wrote.
            0 => after[at] ^= 1 << input.below(8),
            1 => after[run(1 + input.below(RUN_BYTES_MAX))].fill(0),
            2 => after[run(1 + input.below(RUN_BYTES_MAX))].fill(0xff),
            3 => {
                let sector = at / SECTOR_BYTES * SECTOR_BYTES;
                after[sector..before.len().min(sector + SECTOR_BYTES)].fill(0);
            }
            // As it writes them to a wrong place.
            4 => {
                let other = disk.bytes(&files[input.below(files.len())]).expect("the file is there");
                let from = input.below(other.len());
                let piece = other.get(from..).unwrap_or_default();
                let to = run(piece.len().min(1 + input.below(RUN_BYTES_MAX)));
                after[to.clone()].copy_from_slice(&piece[..to.len()]);
            }
            5 => after.truncate(at),
            6 => {
                let page = at / PAGE_BYTES * PAGE_BYTES;
                let page = page..before.len().min(page + PAGE_BYTES);
                disk.spoil(path, page.clone());
                self.add(path, page);
            }
            // As nothing but the fuzzer does.
            _ => {
                let bytes = input.piece();
                let to = run(bytes.len());
                after[to.clone()].copy_from_slice(&bytes[..to.len()]);
                self.is_forged = true;
            }
        }
        if let Some(changed) = difference(&before, &after) {
            self.add(path, changed);
            disk.corrupt(path, |bytes| bytes.clone_from(&after));
        }
    }

    fn add(&mut self, path: &Path, bytes: Range<usize>) {
        self.places.push(DamagedPlace {
            path: path.to_owned(),
            bytes: bytes.start as u64..bytes.end as u64,
        });
    }
}

/// A place in a file: mostly one where something was written.
fn place(bytes: &[u8], input: &mut InputReader<'_>) -> usize {
    let sectors = bytes.chunks(SECTOR_BYTES).enumerate();
    let written: Vec<_> = sectors
        .filter(|(_, sector)| **sector != [0; SECTOR_BYTES][..sector.len()])
        .collect();
    match written.get(input.below(written.len() + 1)) {
        Some((number, sector)) => number * SECTOR_BYTES + input.below(sector.len()),
        None => input.below(bytes.len()),
    }
}

/// Where a file is no longer as it was, from the first byte to the last one; it may have become shorter.
fn difference(before: &[u8], after: &[u8]) -> Option<Range<usize>> {
    let differs = |at: &usize| after.get(*at) != before.get(*at);
    // By sectors first: most of a file is the same.
    let sectors = (0..before.len()).step_by(SECTOR_BYTES);
    let sector = |bytes: &[u8], at: usize| bytes.get(at..bytes.len().min(at + SECTOR_BYTES)).map(<[u8]>::to_vec);
    let mut changed = sectors.filter(|at| sector(before, *at) != sector(after, *at));
    let first = changed.next()?;
    let last = changed.next_back().unwrap_or(first);
    let of_sector = |at: usize| at..before.len().min(at + SECTOR_BYTES);
    let first = of_sector(first).find(differs).expect("something in it differs");
    let last = of_sector(last).rfind(differs).expect("something in it differs");
    Some(first..last + 1)
}
