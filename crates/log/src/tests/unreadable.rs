//! What the disk does not give back is damage like any other: the rest is read, and nobody waits for it.

use std::path::PathBuf;

use super::{disk::FakeDisk, *};
use crate::segment::FRAME_HEADER_LEN;

const DIR: &str = "/spool";

fn segments(disk: &FakeDisk) -> Vec<PathBuf> {
    let paths = disk.paths().into_iter();
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .collect()
}

fn open(disk: &FakeDisk) -> (Log, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let log = Log::open(Arc::new(disk.clone()), &options(Path::new(DIR)), counts.clone());
    (log.expect("damage is no reason not to start"), counts)
}

/// Three segments of twelve records each, four to a batch; the last one was not closed.
fn three_lives() -> FakeDisk {
    let disk = FakeDisk::new(1);
    for life in 0..3 {
        let (mut log, _) = open(&disk);
        for batch in 0..3 {
            let first = life * 12 + batch * 4 + 1;
            append(
                &mut log,
                &(first..first + 4).map(long).collect::<Vec<_>>(),
                RecordClass::Ordinary,
            );
        }
        match life {
            2 => disk.kill_process(),
            _ => log.close(),
        }
    }
    disk
}

fn long(number: u64) -> Bytes {
    format!("record {number:04} {}", "y".repeat(900)).into()
}

#[test]
fn a_sector_that_is_not_given_back_costs_what_is_in_it_and_is_counted() {
    let disk = three_lives();
    let segments = segments(&disk);
    for (nth, path) in segments.iter().enumerate() {
        let len = disk.bytes(path).unwrap().len();
        for page in (0..len.min(16 << 10)).step_by(4096) {
            let disk = three_lives();
            disk.spoil(path, page..page + 512);
            let context = format!("page {page} of segment {}", nth + 1);
            let (mut log, counts) = open(&disk);
            let records = read_all(&log);
            log.tick();
            for record in &records {
                assert_eq!(record.bytes, long(record.sequence), "{context}");
            }
            let lost: Vec<u64> = (1..=36)
                .filter(|number| records.iter().all(|record| record.sequence != *number))
                .collect();
            // A page holds four records and a part of a fifth; the first page holds none.
            assert!(lost.len() <= if page == 0 { 0 } else { 6 }, "{context}: lost {lost:?}");
            let of_segment = nth as u64 * 12 + 1..=nth as u64 * 12 + 12;
            assert!(
                lost.iter().all(|number| of_segment.contains(number)),
                "{context}: {lost:?}"
            );
            let damage = counts.damage.lock().clone();
            assert!(lost.is_empty() || damage.contains(&"record"), "{context}: {damage:?}");
            let next = append(&mut log, &[long(37)], RecordClass::Ordinary)[0].expect("it goes on");
            assert!(next > records.last().map_or(0, |record| record.sequence), "{context}");
        }
    }
}

#[test]
fn where_all_of_a_segment_is_lost_the_others_are_read() {
    for nth in 0..3 {
        let disk = three_lives();
        let path = &segments(&disk)[nth];
        disk.spoil(path, 0..1 << 20);
        let (mut log, counts) = open(&disk);
        let records = read_all(&log);
        log.tick();
        let lost = nth as u64 * 12 + 1..=nth as u64 * 12 + 12;
        assert!(
            records
                .iter()
                .map(|record| record.sequence)
                .eq((1..=36).filter(|number| !lost.contains(number)))
        );
        assert!(counts.damage.lock().contains(&"record"));
    }
}

fn on(disk: &FakeDisk) -> Spool {
    counted(disk, Arc::new(Counts::default()))
}

fn counted(disk: &FakeDisk, counts: Arc<Counts>) -> Spool {
    Spool::open_on(
        Arc::new(disk.clone()),
        LogOptions {
            hot_bytes_max: 0,
            ..options(Path::new(DIR))
        },
        counts,
        "spool-test",
    )
    .unwrap()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let timeout = tokio::time::timeout(Duration::from_secs(10), future);
    timeout.await.unwrap_or_else(|_| panic!("never: {what}"))
}

#[tokio::test]
async fn a_reader_passes_damage_in_the_last_record() {
    let disk = FakeDisk::new(1);
    let spool = on(&disk);
    for number in 1..=3 {
        spool.append(long(number), RecordClass::Ordinary).await.unwrap();
    }
    // The last of three records of 944 bytes.
    disk.spoil(&segments(&disk)[0], 4096 + 2048..4096 + 2800);
    let mut reader = spool.reader(1);
    let mut records = Vec::new();
    let mut through = 0;
    while through < 3 {
        through = within("it gets further", reader.next(1, 1 << 20, &mut records))
            .await
            .unwrap();
    }
    assert_eq!(through, 3);
    assert!(records.len() < 3);
    assert!(reader.is_at_head());
    // It goes on when there is more.
    spool.append(long(4), RecordClass::Ordinary).await.unwrap();
    records.clear();
    assert_eq!(
        within("the next", reader.next(9, 1 << 20, &mut records)).await.unwrap(),
        4
    );
    assert_eq!(records[0].sequence, 4);
    spool.close().await;
}

#[tokio::test]
async fn a_reader_before_an_end_that_is_lost_passes_it_and_waits() {
    let disk = FakeDisk::new(1);
    let spool = on(&disk);
    for number in 1..=3 {
        spool.append(long(number), RecordClass::Ordinary).await.unwrap();
    }
    for (name, position) in [("a", 3), ("b", 1)] {
        spool.cursor(name, CursorStart::Oldest).unwrap().advance(position);
    }
    spool.close().await;
    let path = segments(&disk).remove(0);
    crate::file_system::FileSystem::unlink(&disk, &path).unwrap();
    let spool = on(&disk);
    let mut reader = spool.reader(spool.cursor("b", CursorStart::Oldest).unwrap().position() + 1);
    let mut records = Vec::new();
    assert_eq!(
        within("it passes", reader.next(9, 1 << 20, &mut records))
            .await
            .unwrap(),
        3
    );
    assert!(records.is_empty() && reader.is_at_head());
    assert_eq!(spool.backlog(1).records, 0);
    let waits = tokio::time::timeout(Duration::from_millis(50), reader.next(9, 1 << 20, &mut records)).await;
    assert!(waits.is_err(), "it waits at the head, and can be given up");
    spool.append(long(4), RecordClass::Ordinary).await.unwrap();
    within("what comes next", reader.next(9, 1 << 20, &mut records))
        .await
        .unwrap();
    assert_eq!(records.len(), 1);
    spool.close().await;
}

#[test]
fn damage_beyond_the_table_of_places_is_still_counted_and_once() {
    let disk = FakeDisk::new(1);
    let roomy = || {
        let options = LogOptions {
            bytes_max: 64 << 20,
            segment_bytes: 4 << 20,
            hot_bytes_max: 0,
            ..options(Path::new(DIR))
        };
        let counts = Arc::new(Counts::default());
        (
            Log::open(Arc::new(disk.clone()), &options, counts.clone()).unwrap(),
            counts,
        )
    };
    let (mut log, _) = roomy();
    let payloads: Vec<Bytes> = (0..10_000).map(|_| Bytes::from_static(b"some bytes")).collect();
    append(&mut log, &payloads, RecordClass::Ordinary);
    log.close();
    let path = segments(&disk).remove(0);
    let mut bytes = disk.bytes(&path).unwrap();
    // Every other record.
    for record in (0..10_000).step_by(2) {
        bytes[4096 + 48 + record * 48 + 32] ^= 1;
    }
    disk.put(&path, bytes);
    let (mut log, counts) = roomy();
    for _ in 0..2 {
        assert_eq!(read_all(&log).len(), 5000);
        log.tick();
        assert_eq!(counts.damage.lock().len(), 5000);
    }
}

#[tokio::test]
async fn a_read_is_bounded_by_what_it_returns_and_keeps_nothing_else_alive() {
    let disk = FakeDisk::new(1);
    let spool = Spool::open_on(
        Arc::new(disk.clone()),
        LogOptions {
            bytes_max: 64 << 20,
            segment_bytes: 16 << 20,
            hot_bytes_max: 0,
            ..options(Path::new(DIR))
        },
        Arc::new(Counts::default()),
        "spool-test",
    )
    .unwrap();
    let large = Bytes::from(vec![7; 1 << 20]);
    for number in 1..=6 {
        spool.append(large.clone(), RecordClass::Ordinary).await.unwrap();
        spool.append(long(number), RecordClass::Ordinary).await.unwrap();
    }
    let before = disk.read_bytes();
    let mut reader = spool.reader(1);
    let mut records = Vec::new();
    within("one", reader.next(1, 1, &mut records)).await.unwrap();
    assert_eq!(records.len(), 1);
    let read = disk.read_bytes() - before;
    assert!(read < 2 << 20, "{read} bytes were read for one record of a mebibyte");
    let held = || spool.handle.shared.read_budget.held();
    while records.len() < 12 {
        for record in records.iter_mut().filter(|record| record.bytes.len() > 1000) {
            record.bytes = Bytes::new();
        }
        within("the rest", reader.next(100, usize::MAX, &mut records))
            .await
            .unwrap();
    }
    records.retain(|record| record.bytes.len() < 1000);
    assert!(held() < 10_000, "small records hold {} bytes", held());
    drop(records);
    assert_eq!(held(), 0);
    spool.close().await;
}

#[tokio::test]
async fn what_was_settled_before_is_not_handed_out_again() {
    let spool = on(&FakeDisk::new(1));
    for number in 1..=20 {
        spool.append(long(number), RecordClass::Ordinary).await.unwrap();
    }
    let mut reader = spool.reader(2);
    reader.skip_settled(vec![4..=6, 8..=8, 15..=20]);
    let (mut records, mut through) = (Vec::new(), 0);
    while through < 20 {
        through = within("it gets further", reader.next(3, 1 << 20, &mut records))
            .await
            .unwrap();
    }
    let numbers: Vec<u64> = records.iter().map(|record| record.sequence).collect();
    assert_eq!(numbers, [2, 3, 7, 9, 10, 11, 12, 13, 14]);
    spool.close().await;
}

#[tokio::test]
async fn what_is_not_wanted_does_not_come_from_disk_and_its_damage_counts_all_the_same() {
    let disk = FakeDisk::new(1);
    let counts = Arc::new(Counts::default());
    let spool = counted(&disk, counts.clone());
    for number in 1..=40 {
        spool.append(long(number), RecordClass::Ordinary).await.unwrap();
    }
    let path = segments(&disk).remove(0);
    let bytes = disk.bytes(&path).unwrap();
    let unwanted = bytes.windows(11).position(|window| window == b"record 0007").unwrap();
    disk.spoil(&path, unwanted..unwanted + 1);
    let is_wanted = |record: &[u8]| record.starts_with(b"record 0003") || record.starts_with(b"record 0030");
    let mut reader = spool.reader_of(1, Arc::new(is_wanted));
    let (mut records, mut through) = (Vec::new(), Vec::new());
    while through.last() != Some(&40) {
        let further = within("it gets further", reader.next(1, 1 << 20, &mut records)).await;
        through.push(further.unwrap());
    }
    let numbers: Vec<u64> = records.iter().map(|record| record.sequence).collect();
    assert_eq!(numbers, [3, 30]);
    assert!(through.len() <= 3, "unwanted records come one by one: {through:?}");
    // What was found is counted at the latest now.
    spool.close().await;
    assert!(counts.damage.lock().contains(&"record"));
}

#[test]
fn what_stands_behind_a_run_of_zeros_of_any_length_is_found() {
    for len in (3900..8400).step_by(8) {
        let disk = FakeDisk::new(1);
        let (mut log, _) = open(&disk);
        append(&mut log, &[vec![b'y'; len].into(), long(2)], RecordClass::Ordinary);
        let path = segments(&disk).remove(0);
        let bytes = disk.bytes(&path).unwrap();
        let first = bytes.windows(64).position(|window| window == [b'y'; 64]).unwrap();
        let frame = first - FRAME_HEADER_LEN..(first + len).next_multiple_of(8);
        disk.corrupt(&path, |bytes| bytes[frame.clone()].fill(0));
        let found: Vec<u64> = read_all(&log).iter().map(|record| record.sequence).collect();
        assert_eq!(found, [2], "behind {} zeros", frame.len());
    }
}
