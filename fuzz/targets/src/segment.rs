//! The reader of segments: what stands before damage, and behind it, is read; what is read is what was written.
//!
//! The input writes a log in up to three lives, and damages its segments. Then:
//!
//! - it opens, a reader gets to its end, and the numbers rise;
//! - every record that is read is, byte for byte, the one that was written under its number;
//! - every record is read of which nothing was damaged, before the damage and behind it;
//! - where one is lost, and the log knew that it was durable, damage is reported;
//! - it goes on, under a number that was never used, and reads the same once more after another start.
//!
//! Where the damage has bytes of the input's own, a checksum may be forged: then the log opens, is read to its end and
//! hands out no more than the files hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_log::{
    Record, RecordClass,
    testing::{disk::FakeDisk, stepped::StepPlace},
};

use crate::{
    InputReader,
    damage::DamagedPlaces,
    memory_log::{MemoryLog, choose_sizes, files},
};

const LIVES_MAX: usize = 3;
const BATCHES_MAX: usize = 6;
const RECORDS_IN_BATCH_MAX: usize = 4;

/// See the module.
pub fn segment(input: &[u8]) {
    let mut input = InputReader::new(input);
    choose_sizes(&mut input);
    let disk = FakeDisk::new(input.byte().into());
    let written = WrittenLog::write(&disk, &mut input);
    let segments = files(&disk, "segments");
    let damaged = DamagedPlaces::make(&disk, &segments, &mut input);

    let mut log = MemoryLog::open(&disk);
    let found = log.read_all();
    log.stepped.tick();
    match damaged.is_forged {
        true => written.check_size(&disk, &found),
        false => written.check(&damaged, &found, log.damage_count()),
    }
    written.check_going_on(&disk, log, &found, damaged.is_forged);
}

/// What was written, before it was damaged.
struct WrittenLog {
    records: BTreeMap<u64, Bytes>,
    places: Vec<StepPlace>,
    is_closed: bool,
}

impl WrittenLog {
    fn write(disk: &FakeDisk, input: &mut InputReader<'_>) -> Self {
        let mut written = Vec::new();
        let lives = 1 + input.below(LIVES_MAX);
        for life in 1.. {
            let mut log = MemoryLog::open(disk);
            for _ in 0..input.below(BATCHES_MAX + 1) {
                let batch: Vec<_> = (0..=input.below(RECORDS_IN_BATCH_MAX))
                    .map(|_| record(written.len(), input))
                    .collect();
                written.extend(batch.iter().map(|(bytes, _)| bytes.clone()));
                log.append(batch);
            }
            let is_closed = input.below(2) == 0;
            match is_closed {
                true => log.stepped.close(),
                false => disk.kill_process(),
            }
            if life == lives {
                // A process that is gone reads nothing.
                let log = MemoryLog::open(&disk.fork());
                let records = log.stepped.records();
                assert!(
                    records.iter().map(|record| &record.bytes).eq(&written),
                    "what was appended"
                );
                return Self {
                    records: records
                        .into_iter()
                        .map(|Record { sequence, bytes }| (sequence, bytes))
                        .collect(),
                    places: log.stepped.places(),
                    is_closed,
                };
            }
        }
        unreachable!("there is a last life")
    }

    fn check(&self, damaged: &DamagedPlaces, found: &[Record], damage_count: usize) {
        for Record { sequence, bytes } in found {
            assert_eq!(self.records.get(sequence), Some(bytes), "record {sequence}");
        }
        let mut lost = 0;
        for StepPlace { sequence, path, bytes } in &self.places {
            let is_there = found.binary_search_by_key(sequence, |record| record.sequence).is_ok();
            assert!(
                is_there || damaged.touch(path, bytes),
                "lost {sequence} for {damaged:?}"
            );
            lost += usize::from(!is_there);
        }
        if lost > 0 && self.is_closed {
            assert!(damage_count > 0, "{lost} lost for {damaged:?}, and nothing reported");
        }
    }

    fn check_size(&self, disk: &FakeDisk, found: &[Record]) {
        let on_disk: usize = (files(disk, "segments").iter())
            .filter_map(|path| Some(disk.bytes(path)?.len()))
            .sum();
        let read: usize = found.iter().map(|record| record.bytes.len()).sum();
        assert!(read <= on_disk, "{read} bytes of {on_disk}");
    }

    fn check_going_on(&self, disk: &FakeDisk, mut log: MemoryLog, found: &[Record], is_forged: bool) {
        let more = Bytes::from_static(b"more");
        log.append([(more.clone(), RecordClass::Ordinary)]);
        log.stepped.close();
        let again = MemoryLog::open(disk).read_all();
        if is_forged {
            return;
        }
        let (last, before) = again.split_last().expect("there is the one that was just appended");
        let same = |(one, other): (&Record, &Record)| (one.sequence, &one.bytes) == (other.sequence, &other.bytes);
        assert!(
            before.len() == found.len() && before.iter().zip(found).all(same),
            "the same once more"
        );
        assert_eq!(last.bytes, more);
        let newest = match self.is_closed {
            true => self.records.keys().next_back(),
            false => found.last().map(|record| &record.sequence),
        };
        assert!(
            newest.is_none_or(|newest| last.sequence > *newest),
            "{} was used",
            last.sequence
        );
    }
}

/// The record of this number: of a length and class that the input says.
fn record(number: usize, input: &mut InputReader<'_>) -> (Bytes, RecordClass) {
    let len = usize::from(input.byte());
    let class = match len % 4 {
        3 => RecordClass::Bulk,
        _ => RecordClass::Ordinary,
    };
    let text = format!("record {number} {}", "x".repeat(len * 4));
    (text.into(), class)
}
