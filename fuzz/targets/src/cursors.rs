//! The readers of what a log keeps beside its segments: the page of the cursors, the superblock, the cursors' files of
//! version 1. Damaged, they say something older or nothing, never something newer.
//!
//! The input takes a log with two cursors that it writes itself, or one of a released format, and damages these files.
//! Then:
//!
//! - it opens, and every record that was there is read;
//! - the cursors are as the newest slot of the page had them, or else as the other one, or else at the oldest record:
//!   which of these is said by the slots that are whole;
//! - nothing is settled that was not settled in the newest slot;
//! - it goes on, under a number that was never used.
//!
//! Where the damage has bytes of the input's own, a checksum may be forged: then the log opens, or is refused with an
//! error.

use std::ops::RangeInclusive;

use bytes::Bytes;
use forebay_log::{Cursor, CursorStart, Record, RecordClass, testing::disk::FakeDisk};

use crate::{
    InputReader,
    damage::DamagedPlaces,
    memory_log::{MemoryLog, choose_sizes, files, put},
};

macro_rules! fixture {
    ($version:literal, $path:literal) => {
        (
            $path,
            include_bytes!(concat!("../../../tests/fixtures/spool/", $version, "/", $path)),
        )
    };
}

/// The released formats: their files, by their paths in the log's directory.
const RELEASED: [&[(&str, &[u8])]; 2] = [
    &[
        fixture!("v1", "cursors/a%20route%2f1.cursor"),
        fixture!("v1", "segments/0000000000000001-0000000000000001.seg"),
        fixture!("v1", "segments/0000000000000002-0000000000000005.seg"),
        fixture!("v1", "segments/0000000000000003-0000000000000009.seg"),
    ],
    &[
        fixture!("v4", "cursors/page"),
        fixture!("v4", "segments/0000000000000001-0000000000000001.seg"),
        fixture!("v4", "segments/0000000000000002-0000000000000005.seg"),
        fixture!("v4", "segments/0000000000000003-0000000000000009.seg"),
        fixture!("v4", "superblock"),
    ],
];

/// The first is that of the released formats.
const NAMES: [&str; 2] = ["a route/1", "another"];
const STEPS_MAX: usize = 32;
const SLOTS: [usize; 2] = [0, 1];

/// See the module.
pub fn cursors(input: &[u8]) {
    let mut input = InputReader::new(input);
    choose_sizes(&mut input);
    let disk = FakeDisk::new(input.byte().into());
    match RELEASED.get(input.below(RELEASED.len() + 1)) {
        Some(files) => files.iter().for_each(|(path, bytes)| put(&disk, path, bytes.to_vec())),
        None => write(&disk, &mut input),
    }
    let before = LogContent::read(&disk.fork());
    let undamaged = disk.fork();
    let mut damaged_files = files(&disk, "cursors");
    damaged_files.extend(files(&disk, "superblock"));
    let damaged = DamagedPlaces::make(&disk, &damaged_files, &mut input);
    if damaged.is_forged {
        return read_forged(&disk);
    }

    let after = LogContent::read(&disk.fork());
    assert!(after.has_records_of(&before), "a record is lost for {damaged:?}");
    let touched = SLOTS.map(|slot| is_slot_touched(&undamaged, &damaged, slot));
    let mut expected = vec![before.cursors.clone()];
    for lost in [&SLOTS[..1], &SLOTS[1..], &SLOTS] {
        if lost.iter().all(|slot| touched[*slot]) {
            expected.push(LogContent::read(&without_slots(&undamaged, lost)).cursors);
        }
    }
    assert!(
        expected.contains(&after.cursors),
        "{:?} for {damaged:?}, not of {expected:?}",
        after.cursors
    );
    for (now, then) in after.cursors.iter().zip(&before.cursors) {
        let newer = (1..=before.head).find(|number| now.has_settled(*number) && !then.has_settled(*number));
        assert_eq!(newer, None, "settled by damage: {damaged:?}");
    }
    check_going_on(&disk, before.head);
}

/// What a process finds.
struct LogContent {
    cursors: Vec<CursorContent>,
    records: Vec<Record>,
    head: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct CursorContent {
    position: u64,
    settled: Vec<RangeInclusive<u64>>,
}

impl LogContent {
    fn read(disk: &FakeDisk) -> Self {
        let mut log = MemoryLog::open(disk);
        let content = |cursor: Cursor| CursorContent {
            position: cursor.position(),
            settled: cursor.settled(),
        };
        Self {
            records: log.read_all(),
            head: log.stepped.head(),
            cursors: cursors_of(&mut log).map(content).into(),
        }
    }

    fn has_records_of(&self, other: &Self) -> bool {
        let all = |content: &Self| -> Vec<(u64, Bytes)> {
            let records = content.records.iter();
            records.map(|record| (record.sequence, record.bytes.clone())).collect()
        };
        all(self) == all(other)
    }
}

impl CursorContent {
    fn has_settled(&self, number: u64) -> bool {
        number <= self.position || self.settled.iter().any(|range| range.contains(&number))
    }
}

fn cursors_of(log: &mut MemoryLog) -> [Cursor; 2] {
    NAMES.map(|name| {
        let cursor = log.stepped.cursor(name, CursorStart::Oldest);
        cursor.expect("there is room for two cursors")
    })
}

/// A log that a few processes wrote, one after the other, the last of which is gone.
fn write(disk: &FakeDisk, input: &mut InputReader<'_>) {
    let mut log = MemoryLog::open(disk);
    let mut cursors = cursors_of(&mut log);
    for number in 0..input.below(STEPS_MAX + 1) {
        match input.below(8) {
            0 | 1 => {
                let len = usize::from(input.byte());
                let record = |at| format!("record {number} {at} {}", "x".repeat(len * 4)).into();
                log.append((0..=len % 4).map(|at| (record(at), RecordClass::Ordinary)));
            }
            2 | 3 => {
                let cursor = &cursors[input.below(cursors.len())];
                let first = cursor.position() + 1 + input.below(8) as u64;
                cursor.settle(first..=first + input.below(8) as u64);
            }
            4 => drop(log.stepped.keep_cursors()),
            5 => log.stepped.tick(),
            end => {
                match end {
                    6 => log.stepped.close(),
                    _ => disk.kill_process(),
                }
                log = MemoryLog::open(disk);
                cursors = cursors_of(&mut log);
            }
        }
    }
    disk.kill_process();
}

/// Whether something of a slot of the page is damaged, or of a cursor's file of version 1.
fn is_slot_touched(undamaged: &FakeDisk, damaged: &DamagedPlaces, slot: usize) -> bool {
    files(undamaged, "cursors").iter().any(|path| {
        let half = undamaged.bytes(path).map_or(0, |bytes| bytes.len() / 2);
        let bytes = (slot * half) as u64..((slot + 1) * half) as u64;
        damaged.touch(path, &bytes)
    })
}

fn without_slots(undamaged: &FakeDisk, slots: &[usize]) -> FakeDisk {
    let disk = undamaged.fork();
    for path in files(&disk, "cursors") {
        disk.corrupt(&path, |bytes| {
            let half = bytes.len() / 2;
            slots.iter().for_each(|slot| bytes[slot * half..][..half].fill(0));
        });
    }
    disk
}

fn check_going_on(disk: &FakeDisk, head: u64) {
    let mut log = MemoryLog::open(disk);
    log.append([(Bytes::from_static(b"more"), RecordClass::Ordinary)]);
    let records = log.read_all();
    let last = records.last().expect("there is the one that was just appended");
    assert_eq!(&last.bytes[..], b"more");
    assert!(last.sequence > head, "{} was used", last.sequence);
}

fn read_forged(disk: &FakeDisk) {
    if let Ok(mut log) = MemoryLog::try_open(disk, 0) {
        cursors_of(&mut log);
        log.read_all();
    }
}
