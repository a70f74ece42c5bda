//! A cursor is a hint: whatever happens to it costs duplicates, never records.

use std::path::PathBuf;

use super::{disk::FakeDisk, *};

fn open(disk: &FakeDisk) -> (Log, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let log = Log::open(Arc::new(disk.clone()), &options(Path::new("/spool")), counts.clone());
    (log.expect("a cursor is no reason not to start"), counts)
}

fn advance(log: &mut Log, position: u64) {
    let cursor = log.cursor("route", Start::Oldest).unwrap();
    cursor.position.store(position, Ordering::Release);
    log.tick();
}

/// A log of ten records with a cursor that was written at 4 and then at 7.
fn original() -> (FakeDisk, PathBuf) {
    let disk = FakeDisk::new(1);
    let (mut log, _) = open(&disk);
    let payloads: Vec<_> = (1..=10).map(payload).collect();
    append(&mut log, &payloads, Class::Ordinary);
    advance(&mut log, 4);
    advance(&mut log, 7);
    log.close();
    (disk, "/spool/cursors/route.cursor".into())
}

/// The position and the damage that are found when the cursor's file is `bytes`.
fn found_with(bytes: Vec<u8>) -> (u64, usize) {
    let (disk, path) = original();
    disk.put(&path, bytes);
    let (mut log, counts) = open(&disk);
    let position = log
        .cursor("route", Start::Head)
        .unwrap()
        .position
        .load(Ordering::Acquire);
    // It goes on from there.
    advance(&mut log, 9);
    let (mut log, _) = open(&disk);
    let cursor = log.cursor("route", Start::Head).unwrap();
    assert_eq!(cursor.position.load(Ordering::Acquire), 9);
    assert_eq!(read_all(&log).len(), 10);
    let damage = counts.damage.lock().len();
    (position, damage)
}

#[test]
fn a_damaged_slot_leaves_the_other() {
    let (disk, path) = original();
    let bytes = disk.bytes(&path).unwrap();
    assert_eq!(found_with(bytes.clone()), (7, 0));
    for at in (0..bytes.len()).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let (position, damage) = found_with(flipped);
        assert!(position == 4 || position == 7, "byte {at}: {position}");
        assert_eq!(damage, 0);
    }
}

#[test]
fn a_cursor_without_a_whole_slot_starts_at_the_oldest_record() {
    let (disk, path) = original();
    let bytes = disk.bytes(&path).unwrap();
    let other = String::from_utf8_lossy(&bytes).replace("route", "other").into_bytes();
    for (what, damaged) in [
        ("empty", Vec::new()),
        ("zeros", vec![0; 1024]),
        ("cut", bytes[..100].to_vec()),
        ("another's", other),
    ] {
        assert_eq!(found_with(damaged), (0, 1), "{what}");
    }
}

#[test]
fn numbers_that_a_cursor_has_passed_are_not_used_again() {
    let (disk, _) = original();
    for path in disk.paths() {
        if path.starts_with("/spool/segments") {
            crate::spool::file_system::FileSystem::unlink(&disk, &path).unwrap();
        }
    }
    let (mut log, _) = open(&disk);
    assert_eq!(append(&mut log, &[payload(1)], Class::Ordinary), [Ok(8)]);
    assert_eq!(read_all(&log)[0].sequence, 8);
}

#[test]
fn without_cursors_nothing_is_deleted() {
    let disk = FakeDisk::new(1);
    let (mut log, _) = open(&disk);
    for _ in 0..100 {
        append(&mut log, &[vec![0; 1000].into()], Class::Ordinary);
        log.tick();
    }
    assert_eq!(log.shared().state().records, 100);
    let cursor = log.cursor("route", Start::Head).unwrap();
    assert_eq!(cursor.position.load(Ordering::Acquire), 100);
    log.tick();
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
    let slow = log.cursor("slow", Start::Oldest).unwrap();
    let payloads: Vec<_> = (1..=10).map(payload).collect();
    append(&mut log, &payloads, Class::Ordinary);
    advance(&mut log, 7);
    assert_eq!(in_memory(&log), Some((1, 10)), "another cursor is still before them");
    slow.position.store(4, Ordering::Release);
    assert_eq!(
        in_memory(&log),
        Some((1, 10)),
        "it might come back to where it is durable"
    );
    log.tick();
    assert_eq!(in_memory(&log), Some((5, 6)));
    slow.position.store(10, Ordering::Release);
    advance(&mut log, 10);
    assert_eq!(in_memory(&log), None);
    append(&mut log, &payloads, Class::Ordinary);
    assert_eq!(in_memory(&log), Some((11, 10)));
    assert_eq!(read_all(&log).len(), 20, "the disk has them all the same");
}
