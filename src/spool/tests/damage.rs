//! A flipped bit, a zeroed sector or page, a cut file, at every offset that holds something.

use std::{ops::Range, path::PathBuf};

use super::{disk::FakeDisk, *};
use crate::spool::{
    scan::{Found, Payload, Scan},
    segment::{DATA_START, FRAME_HEADER_LEN, parse_file_name},
};

const DIR: &str = "/spool";

/// A record where it stands.
#[derive(Debug, Clone)]
struct Placed {
    segment: u64,
    offset: u64,
    end: u64,
    batch_start: u64,
    sequence: u64,
}

/// The undamaged files, and where their records are.
struct Original {
    files: Vec<(PathBuf, Vec<u8>)>,
    records: Vec<Placed>,
    /// The segment without a seal.
    newest: u64,
}

fn small() -> Options {
    Options {
        hot_bytes_max: 0,
        ..options(Path::new(DIR))
    }
}

fn open(disk: &FakeDisk) -> (Log, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let log = Log::open(Arc::new(disk.clone()), &small(), counts.clone()).expect("damage is no reason not to start");
    (log, counts)
}

fn short(number: u64) -> Bytes {
    format!("record {number}").repeat(1 + (number % 4) as usize).into()
}

/// Three segments with batches of one to three records; the process died with the last one open.
fn original() -> Original {
    let disk = FakeDisk::new(1);
    let mut number = 0;
    for life in 0..3 {
        let (mut log, _) = open(&disk);
        for batch in 0..4 {
            let payloads: Vec<_> = (0..1 + batch % 3)
                .map(|_| {
                    number += 1;
                    short(number)
                })
                .collect();
            append(&mut log, &payloads, Class::Ordinary);
        }
        match life {
            2 => disk.kill_process(),
            _ => log.close(),
        }
    }
    let files: Vec<_> = disk
        .paths()
        .into_iter()
        .map(|path| (path.clone(), disk.bytes(&path).unwrap()))
        .collect();
    let mut records = Vec::new();
    for (path, bytes) in &files {
        let (segment, _) = parse_file_name(path.file_name().unwrap().to_str().unwrap()).unwrap();
        let file = crate::spool::file_system::FileSystem::open(&disk, path).unwrap();
        let mut scan = Scan::new(file, segment, DATA_START, bytes.len() as u64);
        while let Some(Found::Frame { offset, header, .. }) = scan.next(|_| Payload::Checked).unwrap() {
            records.push(Placed {
                segment,
                offset,
                end: offset + header.frame_len(),
                batch_start: header.batch_start.into(),
                sequence: header.sequence,
            });
        }
    }
    assert_eq!(records.len() as u64, number);
    let newest = records.last().unwrap().segment;
    Original { files, records, newest }
}

impl Original {
    /// Every byte that says something, and samples of the rest.
    fn offsets(&self, segment: u64, len: usize) -> Vec<usize> {
        let in_use = self.records.iter().filter(|record| record.segment == segment);
        let end = in_use.map(|record| record.end).max().unwrap() as usize;
        let is_interesting =
            |at: &usize| *at < 56 || (508..572).contains(at) || (4090..end + 8).contains(at) || at % 512 == 7;
        (0..len).filter(is_interesting).collect()
    }

    /// Damages `range` of the `nth` file by `change`, and checks what is left.
    fn check(&self, nth: usize, what: &str, range: Range<usize>, change: impl Fn(&mut Vec<u8>)) {
        let disk = FakeDisk::new(1);
        let mut range = range;
        for (at, (path, bytes)) in self.files.iter().enumerate() {
            let mut changed = bytes.clone();
            if at == nth {
                change(&mut changed);
                // Zeros that were zeros before are no damage.
                let differs = |at: &usize| changed.get(*at) != Some(&bytes[*at]);
                let Some(first) = range.clone().find(differs) else {
                    return;
                };
                range = first..range.clone().rfind(differs).expect("there is a first") + 1;
            }
            disk.put(path, changed);
        }
        let segment = nth as u64 + 1;
        let (mut log, counts) = open(&disk);
        let found = read_all(&log);
        log.tick();
        let context = format!("{what} at {range:?} of segment {segment}");
        for record in &found {
            assert_eq!(record.bytes, short(record.sequence), "{context}");
        }
        let touched = |record: &&Placed| {
            record.segment == segment && record.offset < range.end as u64 && record.end > range.start as u64
        };
        let first_touched = self.records.iter().find(touched).map(|record| record.offset);
        // A later batch that left a header proves that this was no torn tail.
        let proven = segment != self.newest
            || self.records.iter().any(|record| {
                let header = record.offset..record.offset + FRAME_HEADER_LEN as u64;
                record.segment == segment
                    && first_touched.is_some_and(|first| record.batch_start > first)
                    && (header.end <= range.start as u64 || header.start >= range.end as u64)
            });
        let last_batch = self.records.last().unwrap().batch_start;
        let mut lost = 0;
        for record in &self.records {
            let is_there = found.iter().any(|found| found.sequence == record.sequence);
            let behind = record.segment == segment && record.offset >= range.start as u64;
            let cut = segment == self.newest && behind && (!proven || record.offset >= last_batch);
            assert!(is_there || touched(&record) || cut, "{context}: lost {record:?}");
            lost += u32::from(!is_there);
        }
        let damage = counts.damage.lock().clone();
        if lost > 0 && proven {
            assert!(!damage.is_empty(), "{context}: {lost} lost, nothing counted");
        }
        if damage.contains(&"record") {
            let kept = disk.paths().iter().any(|path| path.starts_with("/spool/quarantine"));
            let first = first_touched.expect("a record was damaged");
            let name = format!("{segment:016x}-{first}-");
            let named = disk.paths().iter().any(|path| path.to_string_lossy().contains(&name));
            assert!(kept && named, "{context}: {:?}", disk.paths());
        }
        let newest = found.last().map_or(0, |record| record.sequence);
        let sequence = append(&mut log, &[short(0)], Class::Ordinary)[0].expect("it goes on");
        assert!(sequence > newest, "{context}");
    }

    fn check_everywhere(&self, what: &str, range: impl Fn(usize, usize) -> Range<usize>, change: impl Fn(&mut [u8])) {
        for (nth, (_, bytes)) in self.files.iter().enumerate() {
            for at in self.offsets(nth as u64 + 1, bytes.len()) {
                let range = range(at, bytes.len());
                self.check(nth, what, range.clone(), |bytes| change(&mut bytes[range.clone()]));
            }
        }
    }
}

#[test]
fn a_flipped_bit_costs_at_most_its_own_record() {
    for bit in [0, 5] {
        original().check_everywhere("bit flipped", |at, _| at..at + 1, |bytes| bytes[0] ^= 1 << bit);
    }
}

#[test]
fn a_zeroed_sector_or_page_costs_only_what_was_in_it() {
    for len in [512, 4096] {
        original().check_everywhere("zeroed", |at, end| at..end.min(at + len), |bytes| bytes.fill(0));
    }
}

#[test]
fn a_cut_file_costs_only_what_was_behind() {
    let original = original();
    for (nth, (_, bytes)) in original.files.iter().enumerate() {
        for at in original.offsets(nth as u64 + 1, bytes.len()) {
            original.check(nth, "cut", at..bytes.len(), |bytes| bytes.truncate(at));
        }
    }
}

#[test]
fn damage_is_counted_once_however_often_it_is_read() {
    let original = original();
    let disk = FakeDisk::new(1);
    for (at, (path, bytes)) in original.files.iter().enumerate() {
        let mut bytes = bytes.clone();
        if at == 0 {
            bytes[4096 + 40] ^= 1;
        }
        disk.put(path, bytes);
    }
    let (mut log, counts) = open(&disk);
    for _ in 0..3 {
        assert_eq!(read_all(&log)[0].sequence, 2);
        log.tick();
    }
    assert_eq!(*counts.damage.lock(), ["record"]);
}

#[test]
fn a_missing_segment_is_noticed() {
    let original = original();
    let disk = FakeDisk::new(1);
    for (path, bytes) in [&original.files[0], &original.files[2]] {
        disk.put(path, bytes.clone());
    }
    let (log, counts) = open(&disk);
    assert_eq!(*counts.damage.lock(), ["segment_missing"]);
    assert!(read_all(&log).len() < original.records.len());
}

#[test]
fn a_later_format_is_refused_by_name() {
    let original = original();
    let disk = FakeDisk::new(1);
    let (path, mut bytes) = original.files[0].clone();
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..44]);
    bytes[44..48].copy_from_slice(&crc.to_le_bytes());
    disk.put(&path, bytes);
    match Log::open(Arc::new(disk), &small(), Arc::new(Counts::default())) {
        Err(OpenError::Format(text)) => assert!(text.contains("version 9"), "{text}"),
        _ => panic!("it was opened"),
    }
}
