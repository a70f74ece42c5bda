//! Tests of the spool as a whole.

mod api;
mod compaction;
mod cursors;
mod damage;
mod failures;
mod golden;
mod image;
mod pinned;
mod retention;
mod rewrite;
mod sim;
mod unreadable;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    disk_reader::DiskReader,
    file_system::{FileSystem, RealFileSystem},
    log::{self, Log},
    testing::{Random, disk},
    *,
};

/// Counts what it is told.
#[derive(Default)]
struct Counts {
    syncs: AtomicUsize,
    records: AtomicUsize,
    damage: Mutex<Vec<&'static str>>,
}

impl LogObserver for Counts {
    fn synced(&self, records: usize, _took: Duration) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    fn damage(&self, kind: &'static str) {
        self.damage.lock().push(kind);
    }
}

fn options(dir: &Path) -> LogOptions {
    LogOptions {
        dir: dir.to_owned(),
        replica: "replica-0".into(),
        numbers_from: 0,
        bytes_max: 1 << 20,
        bulk_share_max: 0.5,
        segment_bytes: 16 << 10,
        record_bytes_max: 0,
        hot_bytes_max: 8 << 10,
        readers_bytes_max: 1 << 20,
    }
}

fn payload(number: u64) -> Bytes {
    format!("record {number} {}", "x".repeat((number * 37 % 600) as usize)).into()
}

/// Appends through the log itself.
fn append(log: &mut Log, payloads: &[Bytes], class: RecordClass) -> Vec<Result<u64, AppendError>> {
    let requests: Vec<_> = payloads
        .iter()
        .map(|record| log::AppendRequest {
            record,
            class,
            audience: None,
        })
        .collect();
    let mut results = Vec::new();
    log.append_batch(&requests, &mut results);
    results
}

/// What both threads of a log do now and then.
fn tick(log: &mut Log) {
    log.sync_cursors();
    log.tick();
}

/// All that a reader gets from disk.
fn read_all(log: &Log) -> Vec<Record> {
    let shared = log.shared();
    let mut disk = DiskReader::new(shared.clone());
    let mut records: Vec<Record> = Vec::new();
    let mut next = 1;
    while next <= shared.head() {
        let read = disk.read(next, 50, 1 << 16).expect("the disk reads");
        records.extend(read.records);
        next = read.through + 1;
    }
    records
}
