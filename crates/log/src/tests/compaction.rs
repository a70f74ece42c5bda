//! What a segment holds that only a few records are wanted of.

use std::{os::unix::fs::MetadataExt as _, sync::atomic::AtomicBool, thread, time::Duration};

use super::{disk::FakeDisk, *};
use crate::compaction::Compactor;

const RECORDS: u64 = 400;

fn small(dir: &Path) -> LogOptions {
    LogOptions {
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
    let open = || {
        Log::open(
            Arc::new(RealFileSystem::with_spares(0)),
            &small(dir.path()),
            counts.clone(),
        )
        .unwrap()
    };
    let mut log = open();
    let cursor = log.cursor("pictures", CursorStart::Oldest).unwrap();
    let other = log.cursor("events", CursorStart::Oldest).unwrap();
    for number in 1..=RECORDS {
        assert_eq!(append(&mut log, &[record(number)], RecordClass::Bulk), [Ok(number)]);
        if !waits(number) {
            cursor.mark_settled(number..=number);
        }
    }
    let mut compactor = Compactor::default();
    assert_eq!(
        compactor.run(log.cursors(), log.shared()).unwrap(),
        0,
        "the other route wants them"
    );
    other.mark_settled(0..=RECORDS);
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
        append(&mut log, &[record(RECORDS + 1)], RecordClass::Ordinary),
        [Ok(RECORDS + 1)]
    );
    log.tick();
    assert_eq!(*counts.damage.lock(), Vec::<&str>::new());
}

/// A log with one large segment of which one record in a hundred is wanted, and another behind it.
fn mostly_settled(fs: Arc<dyn FileSystem>, dir: &Path, counts: &Arc<Counts>, bytes: u64) -> Log {
    let options = LogOptions {
        bytes_max: 8 * bytes,
        segment_bytes: bytes,
        ..small(dir)
    };
    let mut log = Log::open(fs, &options, counts.clone()).unwrap();
    let cursor = log.cursor("events", CursorStart::Oldest).unwrap();
    for number in 1.. {
        append(&mut log, &[record(number)], RecordClass::Ordinary);
        if !waits(number) {
            cursor.mark_settled(number..=number);
        }
        if !log.shared().sealed_segments().is_empty() {
            break;
        }
    }
    log
}

fn waiting(log: &Log) -> usize {
    read_all(log).iter().filter(|record| waits(record.sequence)).count()
}

#[test]
fn a_reader_that_stands_within_it_takes_nothing_for_damage() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let counts = Arc::new(Counts::default());
        let mut log = mostly_settled(Arc::new(RealFileSystem::with_spares(0)), dir.path(), &counts, 4 << 20);
        let expected = waiting(&log);
        assert!(expected > 3);
        let (shared, is_over) = (log.shared().clone(), Arc::new(AtomicBool::new(false)));
        let over = is_over.clone();
        let reading = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                // All of it with one call, chunk after chunk.
                let read = DiskReader::new(shared.clone()).read(1, 10_000, 64 << 20).unwrap();
                let waiting = read.records.iter().filter(|record| waits(record.sequence));
                assert_eq!(
                    waiting.count(),
                    expected,
                    "none of those that are wanted is passed over"
                );
            }
        });
        thread::sleep(Duration::from_millis(10));
        assert_eq!(Compactor::default().run(log.cursors(), log.shared()).unwrap(), 1);
        thread::sleep(Duration::from_millis(10));
        is_over.store(true, Ordering::Relaxed);
        reading.join().unwrap();
        log.tick();
        assert_eq!(*counts.damage.lock(), Vec::<&str>::new());
    }
}

#[test]
fn where_sectors_are_whole_power_may_go_at_any_call_and_it_is_no_damage() {
    let dir = Path::new("/spool");
    for seed in 0..20 {
        for call in 0.. {
            let disk = FakeDisk::new(seed);
            disk.behave(|behaviour| behaviour.whole_sectors = true);
            let counts = Arc::new(Counts::default());
            let mut log = mostly_settled(Arc::new(disk.clone()), dir, &counts, 256 << 10);
            log.sync_cursors();
            let expected = waiting(&log);
            disk.behave(|behaviour| behaviour.power_loss_in = Some(call));
            let finished = Compactor::default().run(log.cursors(), log.shared()).is_ok();
            drop(log);
            disk.lose_power();
            let log = Log::open(Arc::new(disk.clone()), &small(dir), counts.clone()).unwrap();
            assert_eq!(waiting(&log), expected, "seed {seed}, call {call}");
            let (mut log, found) = (log, counts.damage.lock().clone());
            log.tick();
            assert_eq!(
                (found, counts.damage.lock().len()),
                (Vec::<&str>::new(), 0),
                "seed {seed}, call {call}"
            );
            if finished {
                assert!(call > 4, "it was cut at every one before");
                break;
            }
        }
    }
}

#[test]
fn a_filler_that_is_written_in_part_is_taken_back() {
    let dir = Path::new("/spool");
    let mut failed = 0;
    for seed in 0..400 {
        let disk = FakeDisk::new(seed);
        let counts = Arc::new(Counts::default());
        let mut log = mostly_settled(Arc::new(disk.clone()), dir, &counts, 64 << 10);
        log.sync_cursors();
        let expected = waiting(&log);
        disk.behave(|behaviour| behaviour.fault_one_in = 8);
        let _ = Compactor::default().run(log.cursors(), log.shared());
        disk.behave(|behaviour| behaviour.fault_one_in = 0);
        let fired = disk.fired();
        // One call fails, and what is done about it does not.
        if fired.get("write failed") != Some(&1) || fired.values().sum::<u64>() != 1 {
            continue;
        }
        failed += 1;
        drop(log);
        disk.behave(|behaviour| behaviour.whole_sectors = true);
        disk.lose_power();
        let mut log = Log::open(Arc::new(disk.clone()), &small(dir), counts.clone()).unwrap();
        assert_eq!(waiting(&log), expected, "seed {seed}");
        log.tick();
        assert_eq!(*counts.damage.lock(), Vec::<&str>::new(), "seed {seed}");
    }
    assert!(failed > 10, "{failed} runs had one write fail");
}

#[test]
fn a_reader_that_stood_within_it_finds_its_place_again() {
    let dir = tempfile::tempdir().unwrap();
    let counts = Arc::new(Counts::default());
    let mut log = mostly_settled(Arc::new(RealFileSystem::with_spares(0)), dir.path(), &counts, 256 << 10);
    let expected = waiting(&log);
    let mut disk = DiskReader::new(log.shared().clone());
    let before = disk.read(1, 3, 1 << 20).unwrap();
    assert!(before.records.iter().all(|record| !waits(record.sequence)));
    disk.release();
    assert_eq!(Compactor::default().run(log.cursors(), log.shared()).unwrap(), 1);
    let mut next = before.through + 1;
    let mut found = 0;
    while next <= log.shared().head() {
        let read = disk.read(next, 3, 1 << 20).unwrap();
        found += read.records.iter().filter(|record| waits(record.sequence)).count();
        next = read.through + 1;
    }
    log.tick();
    assert_eq!((found, counts.damage.lock().clone()), (expected, Vec::new()));
}
