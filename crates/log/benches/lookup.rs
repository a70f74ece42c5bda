//! How long it takes to find one stream in what is retained.
//!
//! Method: a log of so many gibibytes (`FOREBAY_BENCH_GIB`, 10 where it is not set) of records of 450 bytes, of 100,000
//! streams in turn, with an index beside each segment; then twenty streams are read, each from its first record to its
//! last: first with nothing of the log in the kernel's memory, where the system can be made to forget it (as root),
//! then again. It says how long one took, the median and the longest, and how much was read for it. The directory is a
//! temporary one, in `FOREBAY_BENCH_DIR` where it is set: choose the disk that is to be measured.
//!
//! `cargo bench -p forebay-log --bench lookup`

#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use std::{
    env, fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use forebay_log::{
    CursorStart, LogObserver, LogOptions, LogQuery, LogRetention, RecordClass, RecordDescription, Spool,
};

const RECORD_BYTES: usize = 450;
const STREAMS: u64 = 100_000;
const LOOK_UPS: u64 = 20;
const ROUND: u64 = 2_000;

struct Quiet;

impl LogObserver for Quiet {
    fn synced(&self, _records: usize, _took: Duration) {}

    fn damage(&self, kind: &'static str) {
        panic!("damage: {kind}");
    }
}

/// A record begins with its stream's key and a blank.
fn describe(record: &[u8]) -> Option<RecordDescription<'_>> {
    let text = std::str::from_utf8(record).ok()?;
    Some(RecordDescription {
        time_ms: 0,
        kind: "feeds",
        key: text.split(' ').next()?,
    })
}

fn key(number: u64) -> String {
    format!("account/stream-{number}")
}

fn main() -> anyhow::Result<()> {
    let gibibytes: u64 = env::var("FOREBAY_BENCH_GIB").map_or(Ok(10), |text| text.parse())?;
    let dir = match env::var_os("FOREBAY_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let options = LogOptions {
        dir: dir.path().to_owned(),
        bytes_max: (gibibytes + 1) << 30,
        bulk_share_max: 0.5,
        segment_bytes: 64 << 20,
        replica: String::new(),
        numbers_from: 0,
        record_bytes_max: 0,
        hot_bytes_max: 0,
        readers_bytes_max: 128 << 20,
    };
    let retention = LogRetention {
        age: Duration::from_secs(3600),
        bytes_max: u64::MAX,
        now_ms: || 0,
        describe,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let spool = Spool::open_retaining(options, Some(retention), Arc::new(Quiet))?;
        let cursor = spool.cursor("route", CursorStart::Oldest)?;
        let started = Instant::now();
        let mut records = 0;
        while spool.state().bytes < gibibytes << 30 {
            let waiting: Vec<_> = (records..records + ROUND)
                .map(|number| {
                    let mut record = format!("{} ", key(number % STREAMS)).into_bytes();
                    record.resize(RECORD_BYTES, b'x');
                    spool.append(Bytes::from(record), RecordClass::Ordinary)
                })
                .collect();
            for one in waiting {
                one.await?;
            }
            records += ROUND;
        }
        cursor.advance(spool.state().head);
        println!("{records} records in {:.1} s", started.elapsed().as_secs_f64());
        let (index, segments) = (dir.path().join("index"), dir.path().join("segments"));
        let started = Instant::now();
        // The newest segment is not sealed.
        while count(&index) + 1 < count(&segments) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!(
            "{} segments, {} bytes of indexes, {:.1} s after the last record",
            count(&segments),
            bytes(&index),
            started.elapsed().as_secs_f64()
        );
        let is_cold = fs::write("/proc/sys/vm/drop_caches", "3").is_ok();
        look_up(
            &spool,
            records,
            if is_cold {
                "from the disk"
            } else {
                "perhaps from memory"
            },
        )
        .await?;
        look_up(&spool, records, "again").await?;
        spool.close().await;
        anyhow::Ok(())
    })
}

async fn look_up(spool: &Spool, records: u64, what: &str) -> anyhow::Result<()> {
    let mut took = Vec::new();
    let before = read_bytes();
    for number in 0..LOOK_UPS {
        let stream = key(number * STREAMS / LOOK_UPS + 7);
        let query = LogQuery {
            keys: vec![stream.clone()],
            ..LogQuery::default()
        };
        let wanted = {
            let begin = format!("{stream} ");
            Arc::new(move |record: &[u8]| record.starts_with(begin.as_bytes()))
        };
        let started = Instant::now();
        let mut reader = spool.reader_of_query(1, wanted, query);
        let (mut found, mut read, head) = (0, Vec::new(), spool.state().head);
        let mut through = 0;
        while through < head {
            through = reader.next(512, 1 << 20, &mut read).await?;
            found += read.drain(..).count() as u64;
        }
        took.push(started.elapsed());
        let expected = records / STREAMS;
        anyhow::ensure!((expected..=expected + 1).contains(&found), "{found} of {expected}");
    }
    took.sort();
    println!(
        "one stream, {} records, {what}: median {:.1} ms, longest {:.1} ms, {} bytes read from the disk for each",
        records / STREAMS,
        took[took.len() / 2].as_secs_f64() * 1000.0,
        took.last().map_or(0.0, Duration::as_secs_f64) * 1000.0,
        (read_bytes() - before) / LOOK_UPS,
    );
    Ok(())
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

fn bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// What the process has had the disk read.
fn read_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}
