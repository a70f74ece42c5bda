//! What a segment holds that only a few records are wanted of.

use std::{
    os::unix::fs::MetadataExt as _,
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::spool::compaction::Compactor;

const RECORDS: u64 = 400;

fn small(dir: &Path) -> Options {
    Options {
        bytes_max: 4 << 20,
        segment_bytes: 256 << 10,
        hot_bytes_max: 0,
        bulk_share_max: 1.0,
        ..options(dir)
    }
}

fn record(number: u64) -> Bytes {
    format!("{number} {}", "z".repeat(5000 + (number * 131 % 3000) as usize)).into()
}

/// One record in a hundred waits.
fn waits(number: u64) -> bool {
    number % 100 == 7
}

fn on_disk(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir.join("segments")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}

#[test]
fn a_few_records_that_wait_hold_little_and_are_read_before_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let counts = Arc::new(Counts::default());
    let open = || Log::open(Arc::new(RealFileSystem::new()), &small(dir.path()), counts.clone()).unwrap();
    let mut log = open();
    let cursor = log.cursor("pictures", Start::Oldest).unwrap();
    let other = log.cursor("events", Start::Oldest).unwrap();
    for number in 1..=RECORDS {
        assert_eq!(append(&mut log, &[record(number)], Class::Bulk), [Ok(number)]);
        if !waits(number) {
            cursor.settle(number..=number);
        }
    }
    let mut compactor = Compactor::default();
    assert_eq!(
        compactor.run(log.cursors(), log.shared()).unwrap(),
        0,
        "the other route wants them"
    );
    other.settle(0..=RECORDS);
    let before = log.shared().state();
    while compactor.run(log.cursors(), log.shared()).unwrap() > 0 {}
    tick(&mut log);
    let after = log.shared().state();
    // The newest segment stays as it is.
    assert!(after.bytes * 3 < before.bytes, "{} of {}", after.bytes, before.bytes);
    assert!(
        on_disk(dir.path()) <= after.bytes + (64 << 10),
        "{} on disk, {}",
        on_disk(dir.path()),
        after.bytes
    );

    let check = |log: &Log| {
        let read = read_all(log);
        for number in (1..=RECORDS).filter(|number| waits(*number)) {
            let found = read.iter().find(|read| read.sequence == number);
            assert_eq!(found.map(|found| &found.bytes), Some(&record(number)), "{number}");
        }
        assert!((read.len() as u64) < RECORDS / 2, "{}", read.len());
    };
    check(&log);
    log.close();
    drop(log);
    let mut log = open();
    check(&log);
    assert!(log.shared().state().bytes * 3 < before.bytes);
    assert_eq!(
        append(&mut log, &[record(RECORDS + 1)], Class::Ordinary),
        [Ok(RECORDS + 1)]
    );
    log.tick();
    assert_eq!(*counts.damage.lock(), Vec::<&str>::new());
}

#[test]
fn a_reader_that_stands_within_it_takes_nothing_for_damage() {
    let dir = tempfile::tempdir().unwrap();
    let counts = Arc::new(Counts::default());
    let mut log = Log::open(Arc::new(RealFileSystem::new()), &small(dir.path()), counts.clone()).unwrap();
    let cursor = log.cursor("events", Start::Oldest).unwrap();
    for number in 1..=RECORDS {
        append(&mut log, &[record(number)], Class::Ordinary);
    }
    let shared = log.shared().clone();
    let reading = thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(2);
        let mut rounds = 0;
        while Instant::now() < until {
            let mut disk = DiskReader::new(shared.clone());
            let (mut next, mut waiting) = (1, 0);
            while next <= RECORDS {
                let read = disk.read(next, 3, 1 << 20).unwrap();
                waiting += read.records.iter().filter(|record| waits(record.sequence)).count();
                next = read.through + 1;
            }
            assert_eq!(waiting, 4, "none of those that are wanted is passed over");
            rounds += 1;
        }
        rounds
    });
    let mut compactor = Compactor::default();
    for number in (1..=RECORDS).rev().filter(|number| !waits(*number)) {
        cursor.settle(number..=number);
        if number % 5 == 0 {
            compactor.run(log.cursors(), log.shared()).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(reading.join().unwrap() > 1);
    log.tick();
    assert_eq!(*counts.damage.lock(), Vec::<&str>::new());
}
