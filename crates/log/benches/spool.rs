//! How many records a second the spool takes and gives.
//!
//! Method: records of 450 bytes. Appending: rounds of 1, 16, 64 and 512 concurrent appends, each round waited for as a
//! whole, for two seconds each: what shares a sync is a round. Reading: all of it once more, from disk and, the newest,
//! from memory. The directory is a temporary one, in `FOREBAY_BENCH_DIR` where it is set: choose the disk that is to be
//! measured.
//!
//! `cargo bench --bench spool`

#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use forebay_log::{LogObserver, LogOptions, LogReader, RecordClass, Spool};

const RECORD_BYTES: usize = 450;
const ROUND_TIME: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Syncs(AtomicUsize);

impl LogObserver for Syncs {
    fn synced(&self, _records: usize, _took: Duration) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn damage(&self, kind: &'static str) {
        panic!("damage: {kind}");
    }
}

fn main() -> anyhow::Result<()> {
    let dir = match env::var_os("FOREBAY_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let options = LogOptions {
        dir: dir.path().to_owned(),
        bytes_max: 20 << 30,
        bulk_share_max: 0.5,
        segment_bytes: 64 << 20,
        replica: String::new(),
        numbers_from: 0,
        record_bytes_max: 0,
        hot_bytes_max: 64 << 20,
        readers_bytes_max: 128 << 20,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let syncs = Arc::new(Syncs::default());
        let spool = Spool::open(options.clone(), syncs.clone())?;
        for round in [1, 16, 64, 512] {
            append(&spool, &syncs, round).await?;
        }
        let head = spool.state().head;
        let hot = head.saturating_sub(100_000).max(1);
        read("from memory", spool.reader(hot), hot, head).await?;
        spool.close().await;

        let started = Instant::now();
        let spool = Spool::open(options, syncs)?;
        println!("open with {head} records: {:?}", started.elapsed());
        read("from disk", spool.reader(1), 1, head).await?;
        spool.close().await;
        anyhow::Ok(())
    })
}

async fn append(spool: &Spool, syncs: &Syncs, round: usize) -> anyhow::Result<()> {
    let record = Bytes::from(vec![b'x'; RECORD_BYTES]);
    let syncs_before = syncs.0.load(Ordering::Relaxed);
    let started = Instant::now();
    let mut records = 0;
    while started.elapsed() < ROUND_TIME {
        let waiting: Vec<_> = (0..round)
            .map(|_| spool.append(record.clone(), RecordClass::Ordinary))
            .collect();
        for one in waiting {
            one.await?;
        }
        records += round;
    }
    let per_second = records as f64 / started.elapsed().as_secs_f64();
    let per_sync = records as f64 / (syncs.0.load(Ordering::Relaxed) - syncs_before) as f64;
    println!("append, {round:3} at a time: {per_second:9.0} records/s, {per_sync:5.1} a sync");
    Ok(())
}

async fn read(what: &str, mut reader: LogReader, from: u64, head: u64) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut out = Vec::new();
    let mut last = 0;
    while last < head {
        out.clear();
        reader.next(512, 1 << 20, &mut out).await?;
        last = out.last().map_or(last, |record| record.sequence);
    }
    let per_second = (head - from + 1) as f64 / started.elapsed().as_secs_f64();
    println!("read {what}: {per_second:.0} records/s");
    Ok(())
}
