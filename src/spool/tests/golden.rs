//! Every released format is read for ever. `cargo test --lib spool::tests::golden::write -- --ignored` makes the fixture of
//! a new version; a fixture that is there is never written again.

use std::{fs, path::PathBuf};

use super::*;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/spool/v1")
}

/// One log with all that the format has: two sealed segments, one that is not, both classes, a cursor written twice.
fn write_log(dir: &Path) {
    let open = || {
        let options = Options {
            segment_bytes: 8 << 10,
            ..options(dir)
        };
        Log::open(Arc::new(RealFileSystem::new()), &options, Arc::new(Counts::default())).unwrap()
    };
    for life in 0..3u64 {
        let mut log = open();
        let payloads: Vec<_> = (life * 4 + 1..=life * 4 + 3).map(payload).collect();
        append(&mut log, &payloads, Class::Ordinary);
        append(&mut log, &[payload(life * 4 + 4)], Class::Bulk);
        let cursor = log.cursor("a route/1", Start::Oldest).unwrap();
        cursor.position.store(life + 1, Ordering::Release);
        match life {
            2 => log.tick(),
            _ => log.close(),
        }
    }
}

/// The files under `dir`, by path within it.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for sub in ["segments", "cursors"] {
        for entry in fs::read_dir(dir.join(sub)).unwrap() {
            let path = entry.unwrap().path();
            found.push((path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn version_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files(&fixture()) {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let counts = Arc::new(Counts::default());
    let mut log = Log::open(Arc::new(RealFileSystem::new()), &options(dir.path()), counts.clone()).unwrap();
    let records = read_all(&log);
    assert!(records.iter().map(|record| record.sequence).eq(1..=12));
    for record in records {
        assert_eq!(record.bytes, payload(record.sequence));
    }
    assert_eq!(log.cursor_names(), ["a route/1"]);
    let cursor = log.cursor("a route/1", Start::Head).unwrap();
    assert_eq!(cursor.position.load(Ordering::Acquire), 3);
    assert_eq!(append(&mut log, &[payload(13)], Class::Ordinary), [Ok(13)]);
    assert!(counts.damage.lock().is_empty());
}

#[test]
fn version_1_is_still_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    write_log(dir.path());
    assert!(
        files(dir.path()) == files(&fixture()),
        "the bytes changed: give the format a new version, and a fixture of its own"
    );
}

#[test]
#[ignore = "writes the fixture of a new version"]
fn write() {
    assert!(!fixture().exists(), "a fixture is never written again");
    write_log(&fixture());
    fs::remove_dir(fixture().join("quarantine")).unwrap();
}
