//! Follows the log: from memory near the head, else from disk.

use std::{collections::VecDeque, io, ops::RangeInclusive, path::PathBuf, sync::Arc};

use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use super::{
    Record,
    budget::ReadShare,
    cursors::PathError,
    disk_reader::{DiskRead, DiskReader},
    index::LogQuery,
    shared::LogShared,
    sizes::ReadSizes,
};

/// Why a reader cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the spool is closed")]
    Closed,
}

/// Whether the owner of a reader has use for a record, by what it holds.
pub type WantedRecords = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// A read from disk on its way, which brings the disk reader back.
type ReadUnderWay = JoinHandle<(DiskReader, Result<DiskRead, PathError>)>;

/// Follows the log: from memory near the head, else from disk.
pub struct LogReader {
    shared: Arc<LogShared>,
    share: Arc<ReadShare>,
    head: watch::Receiver<u64>,
    closed: watch::Receiver<bool>,
    /// The sequence number to go on at.
    next: u64,
    wanted: WantedRecords,
    /// Settled before, and not handed out: in rising order.
    skipped: VecDeque<RangeInclusive<u64>>,
    /// Read from disk and not yet handed out.
    buffered: VecDeque<Record>,
    /// Everything up to here is in `buffered`, was handed out or is not there.
    buffered_through: u64,
    disk: Option<DiskReader>,
    reading: Option<ReadUnderWay>,
    /// What is being read is no longer wanted.
    stale: bool,
    sizes: ReadSizes,
    query: Option<LogQuery>,
}

impl LogReader {
    pub(super) fn new(shared: Arc<LogShared>, from: u64, wanted: WantedRecords) -> Self {
        Self {
            wanted,
            share: ReadShare::new(shared.read_budget.clone()),
            head: shared.watch_head(),
            closed: shared.watch_closed(),
            next: from,
            skipped: VecDeque::new(),
            buffered: VecDeque::new(),
            buffered_through: 0,
            disk: None,
            reading: None,
            stale: false,
            sizes: ReadSizes::now(),
            query: None,
            shared,
        }
    }

    /// Passes over what an index knows not to be what the query asks for.
    pub(super) fn asking(mut self, query: LogQuery) -> Self {
        self.query = Some(query);
        self
    }

    /// Adds the next durable records to `out`, at most `records_max` and (beyond the first) `bytes_max`, and returns
    /// how far it got: every record up to there was handed out, was to be skipped, or is not there. Waits until it gets
    /// further; that may be without a record, where the log has a hole or much that is not wanted. What is not wanted
    /// may be handed out all the same, where it is in memory anyway.
    ///
    /// Cancel-safe, so it can be raced with a stop. Damaged records are passed over (they are counted and set aside).
    /// While what was handed out and is still held, by all readers together, is more than
    /// [`Options::readers_bytes_max`](super::LogOptions::readers_bytes_max), it waits for some to be dropped.
    pub async fn next(
        &mut self,
        records_max: usize,
        bytes_max: usize,
        out: &mut Vec<Record>,
    ) -> Result<u64, ReadError> {
        let records_max = records_max.max(1);
        loop {
            if let Some(through) = self.take_buffered(records_max, bytes_max, out) {
                return Ok(through);
            }
            if self.reading.is_some() {
                self.finish_reading().await?;
                continue;
            }
            if let Some(skipped) = self.skip() {
                return Ok(skipped);
            }
            if self.next > *self.head.borrow_and_update() {
                self.wait().await?;
                continue;
            }
            let bytes_max = bytes_max.min(self.share.room().await).min(self.sizes.reader_bytes_min);
            if self.read_hot(records_max, bytes_max, out) {
                return Ok(self.next - 1);
            }
            self.read_disk(records_max, bytes_max);
        }
    }

    /// Goes back, or forward, to the first record at or after `sequence`.
    pub fn seek(&mut self, sequence: u64) {
        self.next = sequence;
        self.buffered.clear();
        self.buffered_through = 0;
        self.stale = true;
    }

    /// Hands out nothing of these numbers: they were settled before. They are in rising order, and replace those given
    /// before.
    pub fn skip_settled(&mut self, settled: Vec<RangeInclusive<u64>>) {
        self.skipped = settled.into();
    }

    /// Whether all that is durable was handed out.
    pub fn is_at_head(&self) -> bool {
        self.buffered.is_empty() && self.reading.is_none() && self.next > *self.head.borrow()
    }

    /// Passes over numbers that are to be skipped, if the next one is among them; returns how far.
    fn skip(&mut self) -> Option<u64> {
        while self.skipped.front().is_some_and(|range| *range.end() < self.next) {
            self.skipped.pop_front();
        }
        let range = self.skipped.front().filter(|range| range.contains(&self.next))?;
        let through = (*range.end()).min(*self.head.borrow());
        if through < self.next {
            return None;
        }
        self.next = through + 1;
        Some(through)
    }

    /// Whether a record is to be skipped. What comes later has a higher number.
    fn is_skipped(&mut self, sequence: u64) -> bool {
        while self.skipped.front().is_some_and(|range| *range.end() < sequence) {
            self.skipped.pop_front();
        }
        self.skipped.front().is_some_and(|range| range.contains(&sequence))
    }

    /// How many records may be read from `next` on before one that is to be skipped.
    fn until_skipped(&self) -> u64 {
        self.skipped
            .front()
            .map_or(u64::MAX, |range| range.start().saturating_sub(1))
    }

    fn read_hot(&mut self, records_max: usize, bytes_max: usize, out: &mut Vec<Record>) -> bool {
        let before = out.len();
        if !self.shared.read_hot(self.next, records_max, bytes_max, out) {
            return false;
        }
        let until = self.until_skipped();
        while out.len() > before + 1 && out.last().is_some_and(|record| record.sequence > until) {
            out.pop();
        }
        for record in &mut out[before..] {
            self.next = record.sequence + 1;
            *record = self.share.charge(record.clone());
        }
        // What was read from disk before is behind.
        self.disk.iter_mut().for_each(DiskReader::release);
        true
    }

    /// Begins to read from disk, elsewhere.
    fn read_disk(&mut self, records_max: usize, bytes_max: usize) {
        let disk = self.disk.take();
        let mut disk = disk.unwrap_or_else(|| {
            let reader = DiskReader::new_wanting(self.shared.clone(), self.wanted.clone());
            reader.asking(self.query.clone())
        });
        let from = self.next;
        self.stale = false;
        let records_max = records_max.max(self.sizes.ahead_records);
        let bytes_max = bytes_max.max(self.sizes.ahead_bytes);
        let read = move || {
            let result = disk.read(from, records_max, bytes_max);
            (disk, result)
        };
        self.reading = Some(match self.sizes.simulated_read {
            None => spawn_blocking(read),
            Some(after) => tokio::spawn(async move {
                sleep(after).await;
                read()
            }),
        });
    }

    fn take_buffered(&mut self, records_max: usize, bytes_max: usize, out: &mut Vec<Record>) -> Option<u64> {
        if self.buffered_through < self.next {
            return None;
        }
        let (mut taken, mut bytes) = (0, 0);
        while taken < records_max {
            let Some(record) = self.buffered.front() else { break };
            bytes += record.bytes.len();
            if taken > 0 && bytes > bytes_max {
                break;
            }
            let sequence = record.sequence;
            self.next = sequence + 1;
            let skipped = self.is_skipped(sequence);
            let record = self.buffered.pop_front();
            if !skipped {
                out.extend(record);
                taken += 1;
            }
        }
        if self.buffered.is_empty() {
            self.next = self.buffered_through + 1;
        }
        Some(self.next - 1)
    }

    async fn finish_reading(&mut self) -> Result<(), ReadError> {
        let Some(reading) = &mut self.reading else {
            return Ok(());
        };
        let finished = reading.await;
        self.reading = None;
        // Only a runtime that ends takes the read away.
        let (disk, result) = finished.map_err(|_| ReadError::Closed)?;
        self.disk = Some(disk);
        if self.stale {
            return Ok(());
        }
        let read = result.map_err(|(path, source)| ReadError::Io { path, source })?;
        self.buffered
            .extend(read.records.into_iter().map(|record| self.share.charge(record)));
        self.buffered_through = read.through;
        Ok(())
    }

    /// Waits for a new head.
    async fn wait(&mut self) -> Result<(), ReadError> {
        if *self.closed.borrow_and_update() {
            return Err(ReadError::Closed);
        }
        tokio::select! {
            biased;
            changed = self.head.changed() => changed.map_err(|_| ReadError::Closed),
            changed = self.closed.changed() => changed.map_err(|_| ReadError::Closed),
        }
    }
}
