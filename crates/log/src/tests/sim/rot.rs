//! What time does to a log that nobody runs on.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Check, Sim};
use crate::{AppendError, RecordClass, disk_reader::DiskReader, tests::append};

impl Sim {
    /// Bits rot at rest, and sectors are no longer given back. What is intact is read, what is lost is counted, and it
    /// goes on.
    pub(super) fn rot(&mut self) -> Check {
        self.damage()?;
        let within = ["/spool/segments", "/spool/cursors", "/spool/superblock"][self.random.below(3) as usize];
        let paths: Vec<_> = self
            .disk
            .paths()
            .into_iter()
            .filter(|path| path.starts_with(within))
            .collect();
        // One place of what is there twice.
        let places = if within == "/spool/segments" {
            1 + self.random.below(3)
        } else {
            1
        };
        for _ in 0..places {
            let Some(path) = paths.get(self.random.below(paths.len() as u64) as usize) else {
                break;
            };
            let at = self
                .random
                .below(self.disk.bytes(path).map_or(0, |bytes| bytes.len() as u64)) as usize;
            let (kind, bit) = (self.random.below(3), 1 << self.random.below(8));
            self.fire(["bit flipped", "sector zeroed", "sector gone bad"][kind as usize]);
            let sector = at / 512 * 512;
            match kind {
                0 => self.disk.corrupt(path, |bytes| bytes[at] ^= bit),
                1 => self.disk.corrupt(path, |bytes| {
                    let end = bytes.len().min(sector + 512);
                    bytes[sector..end].fill(0);
                }),
                _ => self.disk.spoil(path, sector..sector + 512),
            }
        }
        let mut log = self
            .open()
            .map_err(|error| format!("damage keeps it from starting: {error}"))?;
        let (mut disk, mut records, mut next) = (DiskReader::new(log.shared().clone()), Vec::new(), 1);
        for reads in 0.. {
            if next > log.shared().head() {
                break;
            }
            let read = disk
                .read(next, 5, 2000)
                .map_err(|(_, error)| format!("damage stops a reader: {error}"))?;
            records.extend(read.records);
            next = next.max(read.through + 1);
            if reads > 10_000 {
                return Err("a reader gets no further".into());
            }
        }
        for record in &records {
            self.model.seen(record)?;
        }
        log.tick();
        let found: BTreeSet<u64> = records.iter().map(|record| record.sequence).collect();
        let wanted = self.model.certain.range(self.model.floor + 1..);
        let is_lost = |sequence: &u64| !found.contains(sequence) && !self.model.compacted.contains(sequence);
        let lost: Vec<_> = wanted.filter(|(sequence, _)| is_lost(sequence)).collect();
        if !lost.is_empty() && self.counts.damage.lock().is_empty() {
            return Err(format!("{} records are lost, and nothing is counted", lost.len()));
        }
        let newest = self.model.newest();
        match append(&mut log, &[Bytes::from_static(b"more")], RecordClass::Ordinary)[0] {
            Ok(sequence) if sequence <= newest => Err(format!("{sequence} was given out before")),
            Ok(_) | Err(AppendError::Full) => Ok(()),
            Err(error) => Err(format!("after damage: {error}")),
        }
    }
}
