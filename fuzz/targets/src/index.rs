//! The reader of indexes: whatever they say, a query is answered as if they were not there.
//!
//! The input writes a log of which every sealed segment has an index, and damages the indexes, before or after they are
//! opened. Then queries by key, kind and time are answered with the records that a reading of the whole log finds: what
//! is damaged is refused, and made again.
//!
//! Where the damage has bytes of the input's own, a checksum may be forged: then the log opens, and every query is
//! answered with records of the log.

use std::time::Duration;

use bytes::Bytes;
use forebay_log::{LogQuery, LogRetention, Record, RecordClass, RecordDescription, testing::disk::FakeDisk};

use crate::{
    InputReader,
    damage::DamagedPlaces,
    memory_log::{MemoryLog, choose_sizes, files},
};

const KINDS: [&str; 4] = ["feeds", "media", "thumbnail", "nothing"];
const RECORDS_MAX: usize = 1200;
/// More than a block of an index has.
const KEYS_MAX: usize = 600;
const BATCH_RECORDS: usize = 100;
/// In the larger one an index has two blocks of offsets, in the smaller one there are several indexes.
const SEGMENT_BYTES: [u64; 2] = [16 << 10, 128 << 10];
const QUERIES_MAX: usize = 4;
/// So many runs open every index, and make those that are missing, two at a time.
const INDEX_RUNS: usize = 4;

const RETENTION: LogRetention = LogRetention {
    age: Duration::MAX,
    bytes_max: u64::MAX,
    now_ms: || 0,
    describe,
};

/// See the module.
pub fn index(input: &[u8]) {
    let mut input = InputReader::new(input);
    choose_sizes(&mut input);
    let segment_bytes = SEGMENT_BYTES[input.below(SEGMENT_BYTES.len())];
    let open = |disk: &FakeDisk| {
        let log = MemoryLog::open_with(disk, segment_bytes);
        log.spool.retain(Some(RETENTION));
        log
    };
    let disk = FakeDisk::new(1);
    write(&disk, open, &mut input);
    let is_open_before = input.below(2) == 0;
    let queries: Vec<LogQuery> = (0..=input.below(QUERIES_MAX)).map(|_| query(&mut input)).collect();

    let mut log = open(&disk);
    if is_open_before {
        log.stepped.make_indexes();
    }
    let damaged = DamagedPlaces::make(&disk, &files(&disk, "index"), &mut input);
    let all = log.read_all();
    for _ in 0..INDEX_RUNS {
        for query in &queries {
            let found = log.stepped.find(query.clone()).expect("damage stops no query");
            let asked = |records: &[Record]| -> Vec<u64> {
                let asked = records.iter().filter(|record| is_asked(query, &record.bytes));
                asked.map(|record| record.sequence).collect()
            };
            match damaged.is_forged {
                true => assert!(found.len() <= all.len()),
                false => assert_eq!(asked(&found), asked(&all), "{query:?} for {damaged:?}"),
            }
        }
        log.stepped.make_indexes();
    }
}

/// A log that is closed, with an index of every segment in which somebody looks for something.
fn write(disk: &FakeDisk, open: impl Fn(&FakeDisk) -> MemoryLog, input: &mut InputReader<'_>) {
    let records = 1 + input.below(RECORDS_MAX);
    let (keys, stride, kinds) = (1 + input.below(KEYS_MAX), input.below(256), 1 + input.below(3));
    let mut log = open(disk);
    for first in (0..records).step_by(BATCH_RECORDS) {
        let numbers = first..records.min(first + BATCH_RECORDS);
        log.append(numbers.map(|number| {
            let (kind, key) = (KINDS[number % kinds], number * stride % keys);
            let text = match number % 97 {
                96 => "nobody looks for it".to_owned(),
                _ => format!("{number} {kind} s{key}"),
            };
            (Bytes::from(text), RecordClass::Ordinary)
        }));
    }
    log.stepped.close();
    // The newest segment has none: nobody looks for what is in it.
    let mut log = open(disk);
    log.append([(Bytes::from_static(b"the newest"), RecordClass::Ordinary)]);
    for _ in 0..INDEX_RUNS {
        log.stepped.make_indexes();
    }
    log.stepped.close();
    let indexes = files(disk, "index").len();
    assert_eq!(
        indexes + 1,
        files(disk, "segments").len(),
        "an index for each segment but the newest"
    );
}

fn query(input: &mut InputReader<'_>) -> LogQuery {
    let asks = input.byte();
    let mut time = |bit: u8| (asks & bit != 0).then(|| input.below(RECORDS_MAX) as i64);
    let (from_ms, to_ms) = (time(1), time(2));
    LogQuery {
        keys: (0..asks >> 2 & 3)
            .map(|_| format!("s{}", input.below(KEYS_MAX)))
            .collect(),
        kinds: (0..asks >> 4 & 1)
            .map(|_| KINDS[input.below(KINDS.len())].to_owned())
            .collect(),
        from_ms,
        to_ms,
    }
}

/// A record is its time, kind and key; one that is not has no description.
fn describe(record: &[u8]) -> Option<RecordDescription<'_>> {
    let mut words = std::str::from_utf8(record).ok()?.split(' ');
    Some(RecordDescription {
        time_ms: words.next()?.parse().ok()?,
        kind: words.next()?,
        key: words.next()?,
    })
}

fn is_asked(query: &LogQuery, record: &[u8]) -> bool {
    describe(record).is_some_and(|RecordDescription { time_ms, kind, key }| {
        (query.keys.is_empty() || query.keys.iter().any(|asked| asked == key))
            && (query.kinds.is_empty() || query.kinds.iter().any(|asked| asked == kind))
            && query.from_ms.is_none_or(|from| time_ms >= from)
            && query.to_ms.is_none_or(|to| time_ms < to)
    })
}
