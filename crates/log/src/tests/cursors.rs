//! A cursor is a hint: whatever happens to it costs duplicates, never records.

use super::{disk::FakeDisk, *};
use crate::cursors::{CURSORS_MAX, NAME_BYTES_MAX, SETTLED_RANGES_MAX};

fn open(disk: &FakeDisk) -> (Log, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let log = Log::open(Arc::new(disk.clone()), &options(Path::new("/spool")), counts.clone());
    (log.expect("a cursor is no reason not to start"), counts)
}

fn advance(log: &mut Log, position: u64) {
    log.cursor("route", CursorStart::Oldest)
        .unwrap()
        .mark_settled(0..=position);
    tick(log);
}

const PAGE: &str = "/spool/cursors/page";

/// A log of ten records with a cursor that was written at 4 and then at 7.
fn original() -> FakeDisk {
    let disk = FakeDisk::new(1);
    open(&disk).0.close();
    let (mut log, _) = open(&disk);
    let payloads: Vec<_> = (1..=10).map(payload).collect();
    append(&mut log, &payloads, RecordClass::Ordinary);
    advance(&mut log, 4);
    advance(&mut log, 7);
    disk
}

/// The position and the damage that are found when the page is `bytes`.
fn found_with(bytes: Vec<u8>) -> (u64, Vec<&'static str>) {
    let disk = original();
    disk.put(Path::new(PAGE), bytes);
    let (mut log, counts) = open(&disk);
    let cursor = log.cursor("route", CursorStart::Oldest).unwrap();
    let position = cursor.position.load(Ordering::Acquire);
    // It goes on from there.
    advance(&mut log, 9);
    let (mut log, _) = open(&disk);
    let cursor = log.cursor("route", CursorStart::Head).unwrap();
    assert_eq!(cursor.position.load(Ordering::Acquire), 9);
    assert_eq!(read_all(&log).len(), 10);
    let damage = counts.damage.lock().clone();
    (position, damage)
}

#[test]
fn a_damaged_slot_leaves_the_other() {
    let bytes = original().bytes(Path::new(PAGE)).unwrap();
    assert_eq!(found_with(bytes.clone()), (7, vec![]));
    let in_use = (0..bytes.len()).filter(|at| bytes[*at] != 0 || at % 4096 == 0);
    for at in in_use {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let (position, damage) = found_with(flipped);
        assert!(position == 4 || position == 7, "byte {at}: {position}");
        assert!(damage.is_empty(), "byte {at}: {damage:?}");
    }
}

#[test]
fn a_page_without_a_whole_slot_is_damage_and_costs_repeats() {
    let bytes = original().bytes(Path::new(PAGE)).unwrap();
    for (what, damaged) in [
        ("empty", Vec::new()),
        ("zeros", vec![0; 1024]),
        ("cut", bytes[..60].to_vec()),
    ] {
        assert_eq!(found_with(damaged), (0, vec!["cursor"]), "{what}");
    }
}

#[test]
fn the_page_of_another_log_is_not_taken_for_ours() {
    let other = FakeDisk::new(2);
    let (mut log, _) = open(&other);
    append(&mut log, &[payload(1)], RecordClass::Ordinary);
    advance(&mut log, 1);
    let bytes = other.bytes(Path::new(PAGE)).unwrap();
    assert_eq!(found_with(bytes), (0, vec!["foreign"]));
}

#[test]
fn what_is_settled_above_the_position_is_durable() {
    let disk = original();
    let (mut log, _) = open(&disk);
    let cursor = log.cursor("route", CursorStart::Head).unwrap();
    cursor.mark_settled(9..=10);
    log.sync_cursors();
    disk.lose_power();
    let (mut log, _) = open(&disk);
    let cursor = log.cursor("route", CursorStart::Head).unwrap();
    assert_eq!(
        (cursor.position.load(Ordering::Acquire), cursor.settled()),
        (7, vec![9..=10])
    );
    cursor.mark_settled(8..=8);
    assert_eq!(
        (cursor.position.load(Ordering::Acquire), cursor.settled()),
        (10, vec![])
    );
}

#[test]
fn more_cursors_and_ranges_than_the_page_has_room_for_cost_repeats_only() {
    let disk = FakeDisk::new(1);
    let roomy = || {
        let options = LogOptions {
            bytes_max: 64 << 20,
            segment_bytes: 4 << 20,
            ..options(Path::new("/spool"))
        };
        Log::open(Arc::new(disk.clone()), &options, Arc::new(Counts::default())).unwrap()
    };
    let mut log = roomy();
    let payloads: Vec<Bytes> = (0..40_000).map(|_| Bytes::from_static(b"x")).collect();
    append(&mut log, &payloads, RecordClass::Ordinary);
    let name = |number: usize| format!("{number:0>width$}", width = NAME_BYTES_MAX);
    let all: Vec<_> = (0..CURSORS_MAX)
        .map(|number| log.cursor(&name(number), CursorStart::Oldest).unwrap())
        .collect();
    for cursor in all {
        // Every other record, and those that are far apart.
        (2..2_000)
            .step_by(2)
            .for_each(|settled| cursor.mark_settled(settled..=settled));
        (2_000..40_000)
            .step_by(900)
            .for_each(|settled| cursor.mark_settled(settled..=settled + 500));
    }
    assert!(log.cursor("one more", CursorStart::Oldest).is_err());
    log.sync_cursors();
    let mut log = roomy();
    assert_eq!(log.cursor_names().len(), CURSORS_MAX);
    for number in 0..CURSORS_MAX {
        let cursor = log.cursor(&name(number), CursorStart::Oldest).unwrap();
        assert_eq!(cursor.position.load(Ordering::Acquire), 0);
        let settled = cursor.settled();
        assert!(!settled.is_empty() && settled.len() <= SETTLED_RANGES_MAX);
        assert!(
            settled
                .iter()
                .enumerate()
                .all(|(at, range)| *range == (2 + 2 * at as u64..=2 + 2 * at as u64))
        );
    }
}

#[test]
fn numbers_that_a_cursor_has_passed_are_not_used_again() {
    let disk = original();
    for path in disk.paths() {
        if path.starts_with("/spool/segments") {
            crate::file_system::FileSystem::unlink(&disk, &path).unwrap();
        }
    }
    let (mut log, counts) = open(&disk);
    assert_eq!(*counts.damage.lock(), ["segment_missing"]);
    assert_eq!(append(&mut log, &[payload(1)], RecordClass::Ordinary), [Ok(11)]);
    assert_eq!(read_all(&log)[0].sequence, 11);
}

#[test]
fn without_cursors_nothing_is_deleted() {
    let disk = FakeDisk::new(1);
    let (mut log, _) = open(&disk);
    for _ in 0..100 {
        append(&mut log, &[vec![0; 1000].into()], RecordClass::Ordinary);
        tick(&mut log);
    }
    assert_eq!(log.shared().state().records, 100);
    let cursor = log.cursor("route", CursorStart::Head).unwrap();
    assert_eq!(cursor.position.load(Ordering::Acquire), 100);
    tick(&mut log);
    assert!(log.shared().state().records < 20);
}

#[test]
fn memory_keeps_a_record_until_every_cursor_has_durably_passed_it() {
    let disk = FakeDisk::new(1);
    let (mut log, _) = open(&disk);
    let in_memory = |log: &Log| {
        let held = |from| {
            let mut records = Vec::new();
            log.shared().read_hot(from, 100, usize::MAX, &mut records);
            records
        };
        let first = (1..=20).map(held).find(|records| !records.is_empty());
        first.map(|records| (records[0].sequence, records.len()))
    };
    let slow = log.cursor("slow", CursorStart::Oldest).unwrap();
    let payloads: Vec<_> = (1..=10).map(payload).collect();
    append(&mut log, &payloads, RecordClass::Ordinary);
    advance(&mut log, 7);
    assert_eq!(in_memory(&log), Some((1, 10)), "another cursor is still before them");
    slow.mark_settled(0..=4);
    assert_eq!(
        in_memory(&log),
        Some((1, 10)),
        "it might come back to where it is durable"
    );
    tick(&mut log);
    assert_eq!(in_memory(&log), Some((5, 6)));
    slow.mark_settled(0..=10);
    advance(&mut log, 10);
    assert_eq!(in_memory(&log), None);
    append(&mut log, &payloads, RecordClass::Ordinary);
    assert_eq!(in_memory(&log), Some((11, 10)));
    assert_eq!(read_all(&log).len(), 20, "the disk has them all the same");
}
