//! Every released format is read for ever. `cargo test -p forebay-log golden::write -- --ignored` makes the
//! fixture of a new version; a fixture that is there is never written again.

use std::{fs, path::PathBuf};

use super::{disk::FakeDisk, *};

pub(super) fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/fixtures/spool/v{version}"))
}

fn open(dir: &Path) -> (Log, Arc<Counts>) {
    let options = LogOptions {
        segment_bytes: 8 << 10,
        ..options(dir)
    };
    let counts = Arc::new(Counts::default());
    let log = Log::open(Arc::new(RealFileSystem::with_spares(0)), &options, counts.clone()).unwrap();
    (log, counts)
}

/// One log with all that the format has: two sealed segments, one that is not, both classes, a cursor with ranges above
/// its position. On the fake disk a log's UUID is the same each time.
fn write_log() -> Vec<(PathBuf, Vec<u8>)> {
    let disk = FakeDisk::new(4);
    for life in 0..3u64 {
        let options = LogOptions {
            segment_bytes: 8 << 10,
            ..options(Path::new("/spool"))
        };
        let mut log = Log::open(Arc::new(disk.clone()), &options, Arc::new(Counts::default())).unwrap();
        let payloads: Vec<_> = (life * 4 + 1..=life * 4 + 3).map(payload).collect();
        append(&mut log, &payloads, RecordClass::Ordinary);
        append(&mut log, &[payload(life * 4 + 4)], RecordClass::Bulk);
        let cursor = log.cursor("a route/1", CursorStart::Oldest).unwrap();
        cursor.mark_settled(0..=life + 1);
        cursor.mark_settled(6..=7);
        match life {
            2 => tick(&mut log),
            _ => log.close(),
        }
    }
    let within = |path: &Path| path.strip_prefix("/spool").unwrap().to_owned();
    let paths = disk.paths().into_iter();
    paths.map(|path| (within(&path), disk.bytes(&path).unwrap())).collect()
}

/// The files of a log in a directory, by path within it.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for sub in ["segments", "cursors", ""] {
        for entry in fs::read_dir(dir.join(sub)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && !path.ends_with("LOCK") {
                found.push((path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// A copy of a fixture, as a process finds it.
pub(super) fn copy(version: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files(&fixture(version)) {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

/// Reads a fixture, goes on with it, and reads it again.
fn check(version: u32, position: u64, settled: &[RangeInclusive<u64>], damage: &[&str]) {
    let dir = copy(version);
    let (mut log, counts) = open(dir.path());
    let records = read_all(&log);
    assert!(records.iter().map(|record| record.sequence).eq(1..=12));
    for record in records {
        assert_eq!(record.bytes, payload(record.sequence));
    }
    assert_eq!(log.cursor_names(), ["a route/1"]);
    let cursor = log.cursor("a route/1", CursorStart::Head).unwrap();
    assert_eq!(cursor.position.load(Ordering::Acquire), position);
    assert_eq!(cursor.settled(), settled);
    assert_eq!(append(&mut log, &[payload(13)], RecordClass::Ordinary), [Ok(13)]);
    assert_eq!(*counts.damage.lock(), damage);
    cursor.mark_settled(0..=position + 1);
    log.close();

    let (mut log, counts) = open(dir.path());
    assert_eq!(read_all(&log).len(), 13);
    let cursor = log.cursor("a route/1", CursorStart::Head).unwrap();
    assert!(cursor.position.load(Ordering::Acquire) > position);
    assert!(counts.damage.lock().is_empty(), "{:?}", counts.damage.lock());
    let of_version_1 = files(dir.path())
        .into_iter()
        .any(|(path, _)| path.extension().is_some_and(|end| end == "cursor"));
    assert!(!of_version_1, "the page has replaced the files of version 1");
}

#[test]
fn version_1_is_read_and_gone_on_with() {
    check(1, 3, &[], &[]);
}

#[test]
fn version_4_is_read_and_gone_on_with() {
    // A copy of a directory is not the directory.
    check(4, 3, &[6..=7], &["restored"]);
}

#[test]
fn version_4_is_still_what_is_written() {
    assert!(
        write_log() == files(&fixture(4)),
        "the bytes changed: give the format a new version, and a fixture of its own"
    );
}

#[test]
#[ignore = "writes the fixture of a new version"]
fn write() {
    assert!(!fixture(4).exists(), "a fixture is never written again");
    for (path, bytes) in write_log() {
        let path = fixture(4).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
