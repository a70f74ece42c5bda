//! A simulator: random work and random faults on a fake disk, checked against a model. `FOREBAY_SIM_SEED` replays one
//! seed, `FOREBAY_SIM_SEEDS` says how many are run, and `FOREBAY_SIM_FROM` with which it begins.

mod compact;
mod rot;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
};

use super::{
    disk::{DiskLies, FakeDisk, FiredFaults},
    *,
};
use crate::{
    compaction::Compactor,
    disk_reader::DiskReader,
    log::{AppendRequest, Log},
};

const SEEDS: u64 = 1500;
const CURSORS: [&str; 3] = ["a", "b", "c"];

/// What must hold, whatever the disk does.
#[derive(Default)]
struct Model {
    /// Acknowledged, or seen by a reader: there for ever, as it is.
    certain: BTreeMap<u64, Bytes>,
    /// Submitted and not acknowledged: may be there, with one of these payloads.
    possible: BTreeMap<u64, Vec<Bytes>>,
    /// Where each cursor was moved to.
    cursors: BTreeMap<&'static str, u64>,
    /// Those that are durable.
    durable_cursors: BTreeSet<&'static str>,
    /// What each of them has settled above that.
    settled: BTreeMap<&'static str, BTreeSet<u64>>,
    /// Settled by all of them when the log was compacted: may be gone.
    compacted: BTreeSet<u64>,
    /// A compaction was cut short: the header of a filler may be torn, which looks like damage.
    unfinished_compaction: bool,
    /// Everything up to here was behind every cursor, and may be gone.
    floor: u64,
    /// A cursor's creation was cut short: what is left of it may be called damage.
    unfinished_cursor: bool,
}

type Check = Result<(), String>;

impl Model {
    fn newest(&self) -> u64 {
        self.certain.last_key_value().map_or(0, |(sequence, _)| *sequence)
    }

    fn settle(&mut self) {
        if let Some(lowest) = self.cursors.values().min() {
            self.floor = self.floor.max(*lowest);
        }
    }

    fn acknowledged(&mut self, sequence: u64, payload: &Bytes) -> Check {
        if sequence <= self.newest() {
            return Err(format!("sequence {sequence} again, after {}", self.newest()));
        }
        self.certain.insert(sequence, payload.clone());
        Ok(())
    }

    fn seen(&mut self, record: &Record) -> Check {
        let sequence = record.sequence;
        match self.certain.get(&sequence) {
            Some(payload) if *payload == record.bytes => Ok(()),
            Some(_) => Err(format!("record {sequence} has another payload")),
            None => {
                let known = self
                    .possible
                    .get(&sequence)
                    .is_some_and(|all| all.contains(&record.bytes));
                if !known {
                    return Err(format!("record {sequence} was never appended"));
                }
                self.certain.insert(sequence, record.bytes.clone());
                Ok(())
            }
        }
    }

    /// `records` is all there is from `from` on.
    fn complete(&mut self, from: u64, records: &[Record]) -> Check {
        let mut previous = 0;
        for record in records {
            if record.sequence < from || record.sequence <= previous {
                return Err(format!("record {} out of order", record.sequence));
            }
            previous = record.sequence;
            self.seen(record)?;
        }
        let from = from.max(self.floor + 1);
        let mut present = records
            .iter()
            .map(|record| record.sequence)
            .filter(|sequence| *sequence >= from)
            .peekable();
        for expected in self.certain.range(from..).map(|(sequence, _)| *sequence) {
            if present.next_if_eq(&expected).is_none() && !self.compacted.contains(&expected) {
                return Err(format!("record {expected} is lost"));
            }
        }
        Ok(())
    }
}

struct Sim {
    random: Random,
    disk: FakeDisk,
    model: Model,
    counts: Arc<Counts>,
    fired: FiredFaults,
    submitted: u64,
    segment_bytes: u64,
    /// What stays of what is settled; `None`: nothing.
    retained_bytes_max: Option<u64>,
    compactor: Compactor,
}

impl Sim {
    fn new(seed: u64, lies: DiskLies) -> Self {
        let disk = FakeDisk::new(seed ^ 0x5EED);
        disk.behave(|behaviour| behaviour.lies = lies);
        let mut random = Random::new(seed);
        Self {
            segment_bytes: if random.one_in(2) { 8 << 10 } else { 16 << 10 },
            retained_bytes_max: random
                .one_in(3)
                .then_some([0, 24 << 10, 1 << 20][random.below(3) as usize]),
            compactor: Compactor::default(),
            random,
            disk,
            model: Model::default(),
            counts: Arc::default(),
            fired: FiredFaults::new(),
            submitted: 0,
        }
    }

    fn fire(&mut self, what: &'static str) {
        *self.fired.entry(what).or_default() += 1;
    }

    fn run(&mut self) -> Check {
        for _ in 0..2 + self.random.below(6) {
            if self.random.one_in(2) {
                let calls = self.random.below(120);
                self.disk.behave(|behaviour| behaviour.power_loss_in = Some(calls));
            }
            let fault_one_in = [0, 0, 20, 60, 200][self.random.below(5) as usize];
            self.disk.behave(|behaviour| behaviour.fault_one_in = fault_one_in);
            self.life()?;
            self.disk.behave(|behaviour| {
                behaviour.fault_one_in = 0;
                behaviour.full = false;
            });
            if !self.disk.is_powered() || self.random.one_in(3) {
                self.disk.lose_power();
            } else {
                self.disk.kill_process();
            }
        }
        self.disk.behave(|behaviour| behaviour.power_loss_in = None);
        let mut log = self.open().map_err(|error| format!("a disk without faults: {error}"))?;
        self.adopt(&mut log)?;
        self.read_all(&log, 1)?;
        log.sync_cursors();
        drop(log);
        self.disk.kill_process();
        match self.random.one_in(2) {
            true => self.rot(),
            false => Ok(()),
        }
    }

    fn open(&mut self) -> Result<Log, OpenError> {
        let options = LogOptions {
            bytes_max: 64 << 10,
            bulk_share_max: 0.1,
            segment_bytes: self.segment_bytes,
            record_bytes_max: 0,
            hot_bytes_max: 2000,
            readers_bytes_max: 1 << 20,
            dir: "/spool".into(),
            replica: "replica-0".into(),
            numbers_from: 0,
        };
        let log = Log::open(Arc::new(self.disk.clone()), &options, self.counts.clone())?;
        log.shared()
            .retain(self.retained_bytes_max.map(|bytes_max| LogRetention {
                age: Duration::from_secs(1),
                bytes_max,
                now_ms: || 0,
                describe: |_| None,
            }));
        Ok(log)
    }

    /// From the start of a process to its end, however it ends.
    fn life(&mut self) -> Check {
        self.compactor = Compactor::default();
        let mut log = match self.open() {
            Ok(log) => log,
            Err(OpenError::Io { .. }) => {
                self.fire("open refused");
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        self.adopt(&mut log)?;
        self.read_all(&log, 1)?;
        for _ in 0..self.random.below(40) {
            match self.random.below(17) {
                0..=4 => self.append(&mut log)?,
                5 => self.open_cursor(&mut log),
                6 | 7 => self.advance(&mut log),
                8 => log.sync_cursors(),
                9 => log.tick(),
                11 | 12 => self.settle_some(&mut log),
                13..=15 => self.compact(&log),
                10 => {
                    let from = 1 + self.random.below(self.model.newest() + 1);
                    self.read_all(&log, from)?;
                }
                _ => {
                    let full = self.random.one_in(4);
                    self.disk.behave(|behaviour| behaviour.full = full);
                }
            }
            let on_page = CURSORS.into_iter().filter(|name| log.cursors().is_on_page(name));
            self.model.durable_cursors.extend(on_page);
            if log.shared().is_failed() {
                self.fire("poisoned");
                let mut results = Vec::new();
                let record = Bytes::new();
                let class = RecordClass::Ordinary;
                log.append_batch(
                    &[AppendRequest {
                        record: &record,
                        class,
                        audience: None,
                    }],
                    &mut results,
                );
                return match results[..] {
                    [Err(AppendError::Failed)] => Ok(()),
                    _ => Err(format!("a failed log answered {results:?}")),
                };
            }
            let state = log.shared().state();
            if state.bytes > state.bytes_max {
                return Err(format!("{} bytes of {}", state.bytes, state.bytes_max));
            }
        }
        if self.random.one_in(3) {
            log.close();
            self.fire("closed");
        }
        self.damage()
    }

    /// No loss of power is damage.
    fn damage(&mut self) -> Check {
        let damage = std::mem::take(&mut *self.counts.damage.lock());
        match damage.iter().find(|kind| match **kind {
            "cursor" => !self.model.unfinished_cursor,
            "record" => !self.model.unfinished_compaction,
            _ => true,
        }) {
            Some(kind) => Err(format!("damage where there is none: {kind}")),
            None => Ok(()),
        }
    }

    /// Takes over the positions that the cursors were found at.
    fn adopt(&mut self, log: &mut Log) -> Check {
        let names = log.cursor_names();
        for name in CURSORS {
            let known = self.model.cursors.get(name).copied();
            if !names.iter().any(|there| there == name) {
                if self.model.durable_cursors.contains(name) {
                    return Err(format!("cursor {name} is lost"));
                }
                self.model.cursors.remove(name);
                continue;
            }
            let found = log
                .cursor(name, CursorStart::Oldest)
                .map_err(|error| error.to_string())?;
            let position = found.position.load(Ordering::Acquire);
            // One that lost both slots starts at the oldest record, which may be after where it was.
            if known.is_some_and(|known| position > known.max(self.model.floor)) {
                return Err(format!("cursor {name} at {position}, beyond {known:?}"));
            }
            let settled: BTreeSet<u64> = found.settled().into_iter().flatten().collect();
            let known = self.model.settled.entry(name).or_default();
            if let Some(number) = settled.difference(known).next() {
                return Err(format!("cursor {name} has settled {number}, which nobody did"));
            }
            *known = settled;
            self.model.cursors.insert(name, position);
        }
        self.model.settle();
        self.damage()
    }

    fn append(&mut self, log: &mut Log) -> Check {
        let payloads: Vec<(Bytes, RecordClass)> = (0..1 + self.random.below(6))
            .map(|_| {
                self.submitted += 1;
                let len = if self.random.one_in(30) {
                    5000
                } else {
                    self.random.below(900)
                };
                let class = if self.random.one_in(4) {
                    RecordClass::Bulk
                } else {
                    RecordClass::Ordinary
                };
                let mut bytes = vec![self.random.number() as u8; 8 + len as usize];
                bytes[..8].copy_from_slice(&self.submitted.to_le_bytes());
                (bytes.into(), class)
            })
            .collect();
        let requests: Vec<_> = payloads
            .iter()
            .map(|(record, class)| AppendRequest {
                record,
                class: *class,
                audience: None,
            })
            .collect();
        let mut next = log.shared().head() + 1;
        let mut results = Vec::new();
        log.append_batch(&requests, &mut results);
        if results.len() != requests.len() {
            return Err(format!("{} answers to {} requests", results.len(), requests.len()));
        }
        for ((payload, _), result) in payloads.iter().zip(results) {
            match result {
                Ok(sequence) => {
                    next = sequence + 1;
                    self.model.acknowledged(sequence, payload)?;
                    self.fire("acknowledged");
                }
                Err(AppendError::Failed) => {
                    // Which number it would have had depends on which of those before it went into the batch.
                    for sequence in next..next + payloads.len() as u64 {
                        self.model.possible.entry(sequence).or_default().push(payload.clone());
                    }
                }
                Err(AppendError::Full) => self.fire("full"),
                Err(AppendError::BulkFull) => self.fire("bulk full"),
                Err(AppendError::TooLarge) => self.fire("too large"),
                Err(error) => return Err(format!("append: {error}")),
            }
        }
        Ok(())
    }

    fn open_cursor(&mut self, log: &mut Log) {
        let name = CURSORS[self.random.below(3) as usize];
        let start = if self.random.one_in(4) {
            CursorStart::Head
        } else {
            CursorStart::Oldest
        };
        match log.cursor(name, start) {
            Ok(state) => {
                self.model.cursors.insert(name, state.position.load(Ordering::Acquire));
            }
            Err(_) => self.model.unfinished_cursor = true,
        }
        self.model.settle();
    }

    fn advance(&mut self, log: &mut Log) {
        let name = CURSORS[self.random.below(3) as usize];
        let Some(position) = self.model.cursors.get_mut(name) else {
            return;
        };
        let head = log.shared().head();
        *position += self.random.below(head.saturating_sub(*position) + 1);
        if let Ok(state) = log.cursor(name, CursorStart::Head) {
            state.position.fetch_max(*position, Ordering::AcqRel);
        }
        self.model.settle();
    }

    /// Reads everything from `from` on, from memory where it is there.
    fn read_all(&mut self, log: &Log, from: u64) -> Check {
        let shared = log.shared();
        let mut disk = DiskReader::new(shared.clone());
        let mut records: Vec<Record> = Vec::new();
        let mut next = from;
        while next <= shared.head() {
            if self.random.one_in(2) && shared.read_hot(next, 1 + self.random.below(5) as usize, 1000, &mut records) {
                self.fire("read from memory");
            } else {
                let (records_max, bytes_max) = (1 + self.random.below(8) as usize, self.random.below(2000) as usize);
                let Ok(read) = disk.read(next, records_max, bytes_max) else {
                    self.fire("read refused");
                    return Ok(());
                };
                records.extend(read.records);
                next = read.through + 1;
                self.fire("read from disk");
                continue;
            }
            next = records.last().map_or(next, |record| record.sequence + 1);
        }
        self.model.complete(from, &records)
    }
}

fn run(seed: u64, lies: DiskLies, fired: &mut FiredFaults) -> Check {
    let mut sim = Sim::new(seed, lies);
    let result = sim.run();
    for (what, times) in sim.fired.into_iter().chain(sim.disk.fired()) {
        *fired.entry(what).or_default() += times;
    }
    result
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_the_disk_does_nothing_acknowledged_is_lost() {
    let one = number("FOREBAY_SIM_SEED");
    let from = number("FOREBAY_SIM_FROM").unwrap_or(0);
    let end = from + number("FOREBAY_SIM_SEEDS").unwrap_or(SEEDS);
    let seeds = one.map_or(from..end, |seed| seed..seed + 1);
    let mut fired = FiredFaults::new();
    for seed in seeds.clone() {
        if let Err(problem) = run(seed, DiskLies::None, &mut fired) {
            panic!("{problem}; FOREBAY_SIM_SEED={seed} replays it");
        }
    }
    println!("{fired:#?}");
    let all = [
        "acknowledged",
        "bit flipped",
        "bulk full",
        "closed",
        "compacted",
        "create failed",
        "create without space",
        "directory sync failed",
        "full",
        "length lost",
        "new entry lost",
        "open failed",
        "open refused",
        "page in memory alone",
        "pages evicted",
        "pages forgotten that the disk does not have",
        "poisoned",
        "power lost",
        "process killed",
        "punch failed",
        "read failed",
        "read from disk",
        "read from memory",
        "read refused",
        "sector gone bad",
        "sector kept",
        "sector lost",
        "sector torn",
        "sector zeroed",
        "sync failed",
        "too large",
        "truncate failed",
        "unlink failed",
        "unreadable sector met",
        "unlink lost",
        "write failed",
    ];
    let is_whole = seeds.end - seeds.start >= SEEDS;
    for what in all {
        assert!(!is_whole || fired.contains_key(what), "never happened: {what}");
    }
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in 0..30 {
        let outcome = || {
            let mut fired = FiredFaults::new();
            let mut sim = Sim::new(seed, DiskLies::None);
            let result = sim.run();
            fired.extend(sim.fired);
            fired.extend(sim.disk.fired());
            let files: Vec<_> = sim.disk.paths().iter().map(|path| sim.disk.bytes(path)).collect();
            (result, fired, files)
        };
        assert!(outcome() == outcome(), "seed {seed}");
    }
}

#[test]
fn a_disk_that_only_says_it_synced_is_found_out() {
    for lies in [DiskLies::AboutFiles, DiskLies::AboutDirectories] {
        let found = (0..SEEDS).find(|seed| run(*seed, lies, &mut FiredFaults::new()).is_err());
        assert!(found.is_some(), "the model does not see a missing sync: {lies:?}");
    }
}
