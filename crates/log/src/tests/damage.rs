//! A flipped bit, a zeroed sector or page, a cut file, at every offset that holds something.

use std::{ops::Range, path::PathBuf};

use super::{disk::FakeDisk, *};
use crate::{
    scan::{PayloadUse, ScanFound, SegmentScan},
    segment::{
        BATCH_HEADER_LEN, DATA_START, FRAME_HEADER_LEN, SegmentHeader, SegmentSeed, log_seed, parse_file_name,
        parse_header,
    },
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
    disk: FakeDisk,
    files: Vec<(PathBuf, Vec<u8>)>,
    records: Vec<Placed>,
    /// The segment without a seal.
    newest: u64,
}

fn small() -> LogOptions {
    LogOptions {
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
            append(&mut log, &payloads, RecordClass::Ordinary);
        }
        match life {
            2 => disk.kill_process(),
            _ => log.close(),
        }
    }
    let files: Vec<_> = disk
        .paths()
        .into_iter()
        .filter(|path| path.starts_with("/spool/segments"))
        .map(|path| (path.clone(), disk.bytes(&path).unwrap()))
        .collect();
    let mut records = Vec::new();
    for (path, bytes) in &files {
        let (segment, _) = parse_file_name(path.file_name().unwrap().to_str().unwrap()).unwrap();
        let file = crate::file_system::FileSystem::open(&disk, path).unwrap();
        let SegmentHeader::Valid {
            identity: Some(identity),
            ..
        } = parse_header(bytes)
        else {
            panic!("a segment without an identity");
        };
        let log = log_seed(&identity.log);
        let mut scan = SegmentScan::new(file, SegmentSeed { segment, log }, DATA_START, bytes.len() as u64);
        while let Some(found) = scan.next(|_| PayloadUse::Checked).unwrap() {
            let ScanFound::Frame { offset, header, .. } = found else {
                continue;
            };
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
    Original {
        disk,
        files,
        records,
        newest,
    }
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
        let disk = self.disk.fork();
        let (path, bytes) = &self.files[nth];
        let mut changed = bytes.clone();
        change(&mut changed);
        // Zeros that were zeros before are no damage.
        let differs = |at: &usize| changed.get(*at) != Some(&bytes[*at]);
        let Some(first) = range.clone().find(differs) else {
            return;
        };
        let range = first..range.clone().rfind(differs).expect("there is a first") + 1;
        disk.put(path, changed);
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
        let mut lost = 0;
        for record in &self.records {
            let is_there = found.iter().any(|found| found.sequence == record.sequence);
            assert!(is_there || touched(&record), "{context}: lost {record:?}");
            lost += u32::from(!is_there);
        }
        let damage = counts.damage.lock().clone();
        if lost > 0 && proven {
            assert!(!damage.is_empty(), "{context}: {lost} lost, nothing counted");
        }
        // Without a record in it, it is the header of a batch.
        if let Some(first) = first_touched.filter(|_| lost > 0 && damage.contains(&"record")) {
            let covers = |path: &PathBuf| {
                let name = path
                    .strip_prefix("/spool/quarantine")
                    .ok()?
                    .to_str()?
                    .strip_suffix(".bad")?;
                let mut parts = name.split('-');
                let id = u64::from_str_radix(parts.next()?, 16).ok()?;
                let (offset, len): (u64, u64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
                Some(id == segment && (offset..offset + len).contains(&first))
            };
            let named = disk.paths().iter().any(|path| covers(path) == Some(true));
            assert!(named, "{context}: {:?}", disk.paths());
        }
        let newest = found.last().map_or(0, |record| record.sequence);
        let sequence = append(&mut log, &[short(0)], RecordClass::Ordinary)[0].expect("it goes on");
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
    let disk = original.disk.fork();
    let (path, mut bytes) = original.files[0].clone();
    bytes[4096 + BATCH_HEADER_LEN + 40] ^= 1;
    disk.put(&path, bytes);
    let (mut log, counts) = open(&disk);
    for _ in 0..3 {
        assert_eq!(read_all(&log)[0].sequence, 2);
        log.tick();
    }
    assert_eq!(*counts.damage.lock(), ["record"]);
}

#[test]
fn a_missing_segment_is_noticed_wherever_it_was() {
    let original = original();
    let known = original.disk.fork();
    open(&known).0.sync_cursors();
    for lost in [vec![0], vec![1], vec![2], vec![0, 1], vec![1, 2], vec![0, 1, 2]] {
        let disk = known.fork();
        for nth in &lost {
            crate::file_system::FileSystem::unlink(&disk, &original.files[*nth].0).unwrap();
        }
        let (mut log, counts) = open(&disk);
        assert_eq!(*counts.damage.lock(), ["segment_missing"], "{lost:?}");
        assert!(read_all(&log).len() < original.records.len());
        let newest = original.records.last().unwrap().sequence;
        let next = append(&mut log, &[short(1)], RecordClass::Ordinary)[0].unwrap();
        assert!(next > newest, "{lost:?}: {next} after {newest}");
    }
}

#[test]
fn another_log_s_segment_is_named_and_not_read() {
    let original = original();
    let disk = original.disk.fork();
    let other = FakeDisk::new(2);
    let (mut log, _) = open(&other);
    append(&mut log, &[short(99)], RecordClass::Ordinary);
    log.close();
    let path = PathBuf::from("/spool/segments/0000000000000001-0000000000000001.seg");
    let name = "/spool/segments/0000000000000009-0000000000000063.seg";
    disk.put(Path::new(name), other.bytes(&path).unwrap());
    let (mut log, counts) = open(&disk);
    assert_eq!(*counts.damage.lock(), ["foreign"]);
    assert_eq!(read_all(&log).len(), original.records.len());
    append(&mut log, &[short(1)], RecordClass::Ordinary)[0].unwrap();
    assert!(disk.bytes(Path::new(name)).is_some(), "it is left where it is");
}

#[test]
fn a_superblock_that_is_gone_or_older_is_noticed_and_the_log_is_read() {
    let original = original();
    let path = Path::new("/spool/superblock");
    let old = {
        let disk = FakeDisk::new(1);
        let (mut log, _) = open(&disk);
        log.close();
        disk.bytes(path).unwrap()
    };
    let zeros = vec![0; 8192];
    for (what, bytes, kind) in [
        ("gone", None, "superblock"),
        ("zeros", Some(zeros), "superblock"),
        ("older", Some(old), "restored"),
    ] {
        let disk = original.disk.fork();
        match bytes {
            Some(bytes) => disk.put(path, bytes),
            None => crate::file_system::FileSystem::unlink(&disk, path).unwrap(),
        }
        let (mut log, counts) = open(&disk);
        assert_eq!(*counts.damage.lock(), [kind], "{what}");
        assert_eq!(read_all(&log).len(), original.records.len(), "{what}");
        log.close();
        let (_, counts) = open(&disk);
        assert!(counts.damage.lock().is_empty(), "{what}: once");
    }
}

/// The log of `original`, and its page of cursors written once more after the last record.
fn known_durable() -> (Original, FakeDisk) {
    let original = original();
    let disk = original.disk.fork();
    let (mut log, _) = open(&disk);
    for number in 0..4 {
        append(
            &mut log,
            &[short(number), short(number), short(number)],
            RecordClass::Ordinary,
        );
    }
    log.sync_cursors();
    disk.kill_process();
    (original, disk)
}

#[test]
fn damage_in_the_last_batch_is_told_from_a_torn_one_by_what_is_known_to_be_durable() {
    let (original, disk) = known_durable();
    let before = original.records.len() as u64;
    let path = disk
        .paths()
        .into_iter()
        .filter(|path| path.starts_with("/spool/segments"))
        .max()
        .unwrap();
    let bytes = disk.bytes(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for (what, from, to) in [
        ("the last record", end - 6, end),
        ("the last batch's first record", end - 150, end - 148),
    ] {
        let disk = disk.fork();
        let mut changed = bytes.clone();
        changed[from..to].iter_mut().for_each(|byte| *byte ^= 0x55);
        disk.put(&path, changed);
        let (mut log, counts) = open(&disk);
        assert_eq!(*counts.damage.lock(), ["record"], "{what}");
        assert_eq!(
            read_all(&log).len() as u64,
            before + 11,
            "{what}: what is whole is kept"
        );
        let next = append(&mut log, &[short(1)], RecordClass::Ordinary)[0].unwrap();
        assert_eq!(next, before + 13, "{what}: no number is given out twice");
    }
    // A newest segment that is wholly zeroed.
    disk.put(&path, vec![0; bytes.len()]);
    let (_, counts) = open(&disk);
    assert_eq!(*counts.damage.lock(), ["segment_missing"]);
}

#[test]
fn numbers_begin_at_the_clock_where_there_is_one() {
    let (_, disk) = known_durable();
    let with = |numbers_from| {
        let options = LogOptions {
            numbers_from,
            ..small()
        };
        Log::open(Arc::new(disk.clone()), &options, Arc::new(Counts::default())).unwrap()
    };
    let mut log = with(1_000_001);
    assert_eq!(append(&mut log, &[short(1)], RecordClass::Ordinary), [Ok(1_000_001)]);
    // What there is to publish is counted, not subtracted.
    let all = read_all(&log).len() as u64;
    assert_eq!(log.shared().backlog(0, &[]).records, all);
    assert_eq!(log.shared().backlog(500_000, &[]).records, 1);
    log.close();
    // A clock that was put back gives no number twice.
    let mut log = with(7);
    assert_eq!(append(&mut log, &[short(1)], RecordClass::Ordinary), [Ok(1_000_002)]);
}

#[test]
fn a_later_format_is_refused_by_name() {
    let original = original();
    let disk = FakeDisk::new(1);
    let (path, mut bytes) = original.files[0].clone();
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..92]);
    bytes[92..96].copy_from_slice(&crc.to_le_bytes());
    disk.put(&path, bytes);
    match Log::open(Arc::new(disk), &small(), Arc::new(Counts::default())) {
        Err(OpenError::Format(text)) => assert!(text.contains("version 9"), "{text}"),
        _ => panic!("it was opened"),
    }
}
