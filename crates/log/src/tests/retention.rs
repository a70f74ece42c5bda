//! What stays after every cursor has settled it, when it goes, and how it is found again.

use std::cell::Cell;

use super::{disk::FakeDisk, *};
use crate::{compaction::Compactor, index::IndexBuilder, segment::parse_file_name};

thread_local! {
    static NOW_MS: Cell<i64> = const { Cell::new(0) };
}

const DIR: &str = "/spool";
const HOUR_MS: i64 = 3_600_000;

fn retention(bytes_max: u64) -> LogRetention {
    LogRetention {
        age: Duration::from_secs(24 * 3600),
        bytes_max,
        now_ms: || NOW_MS.get(),
        describe,
    }
}

/// A record is its time, kind and key, and a filling.
fn describe(record: &[u8]) -> Option<RecordDescription<'_>> {
    let text = std::str::from_utf8(record).ok()?;
    let mut words = text.split(' ');
    Some(RecordDescription {
        time_ms: words.next()?.parse().ok()?,
        kind: words.next()?,
        key: words.next()?,
    })
}

fn record(time_ms: i64, kind: &str, key: &str) -> Bytes {
    format!("{time_ms} {kind} {key} {}", "x".repeat(900)).into()
}

/// A log, with what its threads do beside appending.
struct RetainingLog {
    log: Log,
    indexes: IndexBuilder,
    compactor: Compactor,
    cursor: Cursor,
}

impl RetainingLog {
    fn open(disk: &FakeDisk, retention: Option<LogRetention>) -> Self {
        let log = Log::open(
            Arc::new(disk.clone()),
            &options(Path::new(DIR)),
            Arc::new(Counts::default()),
        );
        let mut log = log.unwrap();
        log.shared().retain(retention);
        let cursor = Cursor {
            state: log.cursor("route", CursorStart::Oldest).unwrap(),
            shared: log.shared().clone(),
        };
        Self {
            log,
            indexes: IndexBuilder::default(),
            compactor: Compactor::default(),
            cursor,
        }
    }

    /// Appends a record that the cursor settles.
    fn append_settled(&mut self, record: Bytes) -> u64 {
        let number = self.append(record);
        self.cursor.settle(number..=number);
        number
    }

    fn append(&mut self, record: Bytes) -> u64 {
        append(&mut self.log, &[record], RecordClass::Ordinary)[0].unwrap()
    }

    fn tick(&mut self) {
        self.log.sync_cursors();
        self.compactor.run(self.log.cursors(), self.log.shared()).unwrap();
        for _ in 0..100 {
            self.indexes.run(self.log.shared());
        }
        self.log.tick();
    }

    fn read(&self, query: LogQuery) -> Vec<u64> {
        let spool = LogReader::new(self.log.shared().clone(), 1, Arc::new(|_| true)).asking(query);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut reader, mut records) = (spool, Vec::new());
            while !reader.is_at_head() {
                reader.next(50, 1 << 20, &mut records).await.unwrap();
            }
            records.iter().map(|record| record.sequence).collect()
        })
    }
}

fn segments(disk: &FakeDisk) -> usize {
    let paths = disk.paths();
    let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
    names.filter(|name| parse_file_name(name).is_some()).count()
}

fn index_paths(disk: &FakeDisk) -> Vec<PathBuf> {
    let paths = disk.paths().into_iter();
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "idx"))
        .collect()
}

#[test]
fn what_is_settled_stays_until_it_is_old() {
    NOW_MS.set(100 * HOUR_MS);
    let disk = FakeDisk::new(1);
    let mut log = RetainingLog::open(&disk, Some(retention(1 << 20)));
    for hour in 0..100 {
        log.append_settled(record(hour * HOUR_MS, "feeds", "a/b"));
    }
    log.tick();
    let read = log.read(LogQuery::default());
    let oldest = *read.first().unwrap();
    // A segment holds some fifteen, and goes once its newest is old.
    assert!((61..=77).contains(&oldest), "{oldest}");
    assert!(read.iter().copied().eq(oldest..=100));
    let retained = log.log.shared().state().retained;
    assert_eq!(retained.oldest_ms, Some((oldest as i64 - 1) * HOUR_MS));
    assert!(retained.bytes > 16 << 10, "{retained:?}");
    NOW_MS.set(1000 * HOUR_MS);
    log.tick();
    assert_eq!(segments(&disk), 1, "the newest tells the next number");
    assert_eq!(log.log.shared().state().retained, RetainedRecords::default());
    assert_eq!(index_paths(&disk).len(), 0);
}

#[test]
fn without_retention_what_is_settled_goes_at_once() {
    let disk = FakeDisk::new(2);
    let mut log = RetainingLog::open(&disk, None);
    for hour in 0..100 {
        log.append_settled(record(hour, "feeds", "a/b"));
    }
    log.tick();
    assert_eq!((segments(&disk), index_paths(&disk).len()), (1, 0));
    // And once it is switched off.
    log.log.shared().retain(Some(retention(1 << 20)));
    for hour in 0..100 {
        log.append_settled(record(hour, "feeds", "a/b"));
    }
    log.tick();
    assert!(segments(&disk) > 4);
    log.log.shared().retain(None);
    log.tick();
    assert_eq!((segments(&disk), index_paths(&disk).len()), (1, 0));
}

#[test]
fn what_is_retained_takes_no_more_than_it_may_and_makes_room_before_anything_is_refused() {
    let disk = FakeDisk::new(3);
    let limit = 200 << 10;
    let mut log = RetainingLog::open(&disk, Some(retention(limit)));
    for number in 1..=400 {
        assert_eq!(log.append_settled(record(0, "feeds", "a/b")), number);
        if number % 20 == 0 {
            log.tick();
            let retained = log.log.shared().state().retained.bytes;
            assert!(retained <= limit, "{retained}");
        }
    }
    assert!(log.log.shared().state().retained.bytes > limit / 2);
    // No tick comes: an append makes room itself, for more than the log has room for.
    log.log.shared().retain(Some(retention(u64::MAX)));
    for number in 401..=3000 {
        assert_eq!(log.append_settled(record(0, "feeds", "a/b")), number);
        log.log.sync_cursors();
    }
    // What is not settled does not go.
    let refused =
        (0..3000).find_map(|_| append(&mut log.log, &[record(0, "feeds", "a/b")], RecordClass::Ordinary)[0].err());
    assert_eq!(refused, Some(AppendError::Full));
    assert_eq!(log.read(LogQuery::default()).first(), Some(&3001));
}

#[test]
fn bulk_records_that_are_retained_count_for_no_share() {
    let disk = FakeDisk::new(4);
    let mut log = RetainingLog::open(&disk, Some(retention(u64::MAX)));
    // Twice the share.
    for number in 1..=1000 {
        let appended = append(&mut log.log, &[record(0, "thumbnail", "a/b")], RecordClass::Bulk);
        assert_eq!(appended, [Ok(number)]);
        log.cursor.settle(number..=number);
        log.log.sync_cursors();
    }
}

#[test]
fn what_is_settled_behind_a_record_that_waits_is_kept_as_long_as_there_is_room() {
    NOW_MS.set(0);
    let disk = FakeDisk::new(5);
    let mut log = RetainingLog::open(&disk, Some(retention(200 << 10)));
    log.append(record(0, "feeds", "waits"));
    for _ in 0..100 {
        log.append_settled(record(0, "feeds", "a/b"));
    }
    log.tick();
    assert_eq!(
        log.read(LogQuery::default()).len(),
        101,
        "within the limit nothing is given up"
    );
    for _ in 0..300 {
        log.append_settled(record(0, "feeds", "a/b"));
        log.tick();
    }
    let read = log.read(LogQuery::default());
    assert_eq!(read.first(), Some(&1));
    assert!((100..320).contains(&read.len()), "{}", read.len());
    assert!(read[1..].is_sorted() && read.last() == Some(&401));
    let retained = log.log.shared().state().retained.bytes;
    assert!((100 << 10..=216 << 10).contains(&retained), "{retained}");
    // Old, it goes, and the one that waits stays.
    NOW_MS.set(100 * HOUR_MS);
    for _ in 0..40 {
        log.tick();
    }
    let read = log.read(LogQuery::default());
    assert_eq!(read.first(), Some(&1));
    assert!(read.len() < 40, "{}", read.len());
}

#[test]
fn an_index_finds_a_key_a_kind_and_a_time_and_reads_little_else() {
    NOW_MS.set(0);
    let disk = FakeDisk::new(6);
    let mut log = RetainingLog::open(&disk, Some(retention(u64::MAX)));
    let kind = |number: i64| if number <= 200 { "feeds" } else { "media" };
    for number in 1..=400 {
        log.append_settled(record(number, kind(number), &format!("account/stream-{}", number % 97)));
    }
    log.tick();
    let newest_segment = 400 - 20..=400;
    let of_key = |key: u64| (1..=400).filter(move |number| number % 97 == key);
    let query = |keys: &[&str]| LogQuery {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..LogQuery::default()
    };
    // The newest segment has no index yet.
    let older = |read: Vec<u64>| {
        read.into_iter()
            .filter(|number| !newest_segment.contains(number))
            .collect::<Vec<_>>()
    };
    let expected: Vec<u64> = of_key(5).filter(|number| !newest_segment.contains(number)).collect();
    let before = disk.read_bytes();
    assert_eq!(older(log.read(query(&["account/stream-5"]))), expected);
    let read = disk.read_bytes() - before;
    let all = log.log.shared().state().bytes as usize;
    assert!(read < all / 3, "{read} of {all} bytes were read");
    let mut both: Vec<u64> = of_key(5)
        .chain(of_key(96))
        .filter(|number| !newest_segment.contains(number))
        .collect();
    both.sort_unstable();
    assert_eq!(older(log.read(query(&["account/stream-5", "account/stream-96"]))), both);
    assert_eq!(older(log.read(query(&["account/nobody"]))), [0; 0]);
    let before = disk.read_bytes();
    let media = log.read(LogQuery {
        kinds: vec!["media".to_owned()],
        from_ms: Some(390),
        ..LogQuery::default()
    });
    assert!(
        media[0] > 350 && media.contains(&390) && media.contains(&400),
        "{media:?}"
    );
    assert!(disk.read_bytes() - before < all / 3);
    let early = log.read(LogQuery {
        to_ms: Some(10),
        ..LogQuery::default()
    });
    assert!(early.contains(&9) && !older(early).contains(&100));
}

#[test]
fn an_index_is_opened_again_and_one_that_is_damaged_or_gone_is_made_again() {
    NOW_MS.set(0);
    let disk = FakeDisk::new(7);
    let mut log = RetainingLog::open(&disk, Some(retention(u64::MAX)));
    for number in 1..=200 {
        log.append_settled(record(number, "feeds", &format!("s{}", number % 9)));
    }
    log.tick();
    log.log.close();
    let of_key: Vec<u64> = (1..=200).filter(|number| number % 9 == 4).collect();
    let query = || LogQuery {
        keys: vec!["s4".to_owned()],
        ..LogQuery::default()
    };
    let places = |log: &RetainingLog| {
        let sealed = log.log.shared().sealed_segments();
        let found = sealed
            .iter()
            .filter_map(|segment| log.log.shared().indexes.places(&disk, segment.id, &query()));
        found.count()
    };
    drop(log);
    let indexes = index_paths(&disk);
    assert!(indexes.len() > 5);
    let untouched = disk.bytes(&indexes[0]).unwrap();
    for (at, path) in indexes.iter().enumerate().skip(1) {
        // One of the blocks, in turn: the head, the keys, the offsets.
        disk.corrupt(path, |bytes| {
            let block = (at - 1) % 3 * 4096;
            bytes[block..block + 1000].iter_mut().for_each(|byte| *byte ^= 4);
        });
    }
    let mut log = RetainingLog::open(&disk, Some(retention(u64::MAX)));
    log.append_settled(record(201, "feeds", "other"));
    assert_eq!(log.read(query()), (1..=201).collect::<Vec<_>>(), "none is known yet");
    log.tick();
    let found = log.read(query());
    assert!(
        of_key.iter().all(|number| found.contains(number)),
        "what is damaged misses nothing"
    );
    log.tick();
    let mut expected = of_key;
    expected.push(201);
    assert_eq!(log.read(query()), expected);
    assert_eq!(
        disk.bytes(&indexes[0]).unwrap(),
        untouched,
        "one that is whole is not made again"
    );
    assert!(places(&log) > 5);
    // Of a segment that is gone there is none.
    log.log.shared().retain(None);
    log.tick();
    assert_eq!(index_paths(&disk).len(), 0);
}

#[test]
fn an_index_of_any_bytes_is_none_and_no_panic() {
    let disk = FakeDisk::new(8);
    let mut log = RetainingLog::open(&disk, Some(retention(u64::MAX)));
    for number in 1..=60 {
        log.append_settled(record(number, "feeds", "s"));
    }
    log.tick();
    let path = index_paths(&disk)[0].clone();
    let whole = disk.bytes(&path).unwrap();
    let mut random = Random::new(8);
    drop(log);
    for round in 0..300 {
        let mut bytes = whole.clone();
        match round % 3 {
            0 => bytes.truncate(random.below(whole.len() as u64) as usize),
            1 => bytes
                .iter_mut()
                .skip(8)
                .for_each(|byte| *byte = random.below(256) as u8),
            _ => {
                let at = random.below(128) as usize;
                bytes[at] = random.below(256) as u8;
            }
        }
        disk.put(&path, bytes);
        let mut log = RetainingLog::open(&disk, Some(retention(u64::MAX)));
        log.tick();
        let found = log.read(LogQuery {
            keys: vec!["s".to_owned()],
            ..LogQuery::default()
        });
        assert_eq!(found.len(), 60, "round {round}");
    }
}

#[test]
fn nothing_goes_that_the_page_on_disk_asks_for() {
    let disk = FakeDisk::new(9);
    let counts = Arc::new(Counts::default());
    let open = || Log::open(Arc::new(disk.clone()), &options(Path::new(DIR)), counts.clone()).unwrap();
    let mut log = open();
    log.cursor("gone", CursorStart::Oldest).unwrap();
    for number in 0..100 {
        append(&mut log, &[record(number, "feeds", "s")], RecordClass::Ordinary);
    }
    // A page without cursors asks for everything.
    log.remove_cursor("gone").unwrap();
    log.close();
    drop(log);
    // Nothing can be written, so that the page stays as it is; a cursor behind all that is there is in memory alone.
    disk.behave(|behaviour| behaviour.short_of = Some(28));
    let mut log = open();
    log.cursor("late", CursorStart::Head).unwrap();
    let before = segments(&disk);
    tick(&mut log);
    assert_eq!(segments(&disk), before);
    drop(log);
    disk.kill_process();
    disk.behave(|behaviour| behaviour.short_of = None);
    drop(open());
    assert_eq!(*counts.damage.lock(), [""; 0]);
}
