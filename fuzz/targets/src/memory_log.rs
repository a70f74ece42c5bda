//! A log on a disk in memory, without threads.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use forebay_log::{
    LogObserver, LogOptions, OpenError, Record, RecordClass, Spool,
    sizes::ReadSizes,
    testing::{disk::FakeDisk, stepped::SteppedLog},
};

use crate::InputReader;

/// Where the log is.
const DIR: &str = "/spool";

/// A log that is open.
pub struct MemoryLog {
    pub spool: Spool,
    pub stepped: SteppedLog,
    damage: Arc<DamageCount>,
}

#[derive(Default)]
struct DamageCount(AtomicUsize);

impl LogObserver for DamageCount {
    fn synced(&self, _records: usize, _took: Duration) {}

    fn damage(&self, _kind: &'static str) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl MemoryLog {
    /// Opens what is on the disk, with the smallest segments that there are: no damage is a reason not to.
    pub fn open(disk: &FakeDisk) -> Self {
        Self::open_with(disk, 0)
    }

    pub fn open_with(disk: &FakeDisk, segment_bytes: u64) -> Self {
        let opened = Self::try_open(disk, segment_bytes);
        opened.unwrap_or_else(|error| panic!("the log does not open: {error}"))
    }

    pub fn try_open(disk: &FakeDisk, segment_bytes: u64) -> Result<Self, OpenError> {
        let options = LogOptions {
            dir: DIR.into(),
            replica: "replica-0".into(),
            numbers_from: 0,
            bytes_max: 1 << 20,
            bulk_share_max: 1.0,
            segment_bytes,
            record_bytes_max: 0,
            hot_bytes_max: 0,
            readers_bytes_max: 1 << 20,
        };
        let damage = Arc::new(DamageCount::default());
        let (spool, stepped) = SteppedLog::open(disk, &options, damage.clone())?;
        Ok(Self { spool, stepped, damage })
    }

    /// Appends records as one batch.
    pub fn append(&mut self, records: impl IntoIterator<Item = (Bytes, RecordClass)>) {
        for (bytes, class) in records {
            // The answer says no more than what is read afterwards.
            drop(self.spool.append(bytes, class));
        }
        self.stepped.append();
    }

    /// All that there is, as a reader has it: in rising order.
    pub fn read_all(&self) -> Vec<Record> {
        let records = self.stepped.read_from(1).expect("damage stops no reader");
        let rises = |pair: &[Record]| pair[0].sequence < pair[1].sequence;
        assert!(records.windows(2).all(rises), "the order of the numbers");
        records
    }

    /// How often damage was reported.
    pub fn damage_count(&self) -> usize {
        self.damage.0.load(Ordering::Relaxed)
    }
}

/// The files of the log below one of its directories, or the one that is called so.
pub fn files(disk: &FakeDisk, within: &str) -> Vec<PathBuf> {
    let within = Path::new(DIR).join(within);
    let mut paths = disk.paths();
    paths.retain(|path| path.starts_with(&within));
    paths
}

/// How much is read at a time: little, so that few records meet every edge.
pub fn choose_sizes(input: &mut InputReader<'_>) {
    let chunk_bytes = [64, 207, 1007, 256 << 10][input.below(4)];
    ReadSizes {
        chunk_bytes,
        ..ReadSizes::now()
    }
    .set();
}

/// Puts a file into the log's directory.
pub fn put(disk: &FakeDisk, path: &str, bytes: Vec<u8>) {
    disk.put(&Path::new(DIR).join(path), bytes);
}
