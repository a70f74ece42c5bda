//! The public interface, on a real directory.

use std::time::Instant;

use super::*;

fn open(dir: &Path) -> Spool {
    Spool::open(options(dir), Arc::new(Counts::default())).expect("the directory is free")
}

async fn append_all(spool: &Spool, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let waiting: Vec<_> = numbers
        .into_iter()
        .map(|number| spool.append(payload(number), RecordClass::Ordinary))
        .collect();
    let mut sequences = Vec::new();
    for one in waiting {
        sequences.push(one.await.expect("there is room"));
    }
    sequences
}

async fn read_to(reader: &mut LogReader, last: u64) -> Vec<Record> {
    let mut records = Vec::new();
    while records.last().is_none_or(|record: &Record| record.sequence < last) {
        let next = reader.next(7, 4096, &mut records);
        tokio::time::timeout(Duration::from_secs(10), next)
            .await
            .expect("records are there")
            .expect("the spool is open");
    }
    records
}

fn assert_payloads(records: &[Record], sequences: std::ops::RangeInclusive<u64>) {
    assert!(records.iter().map(|record| record.sequence).eq(sequences));
    for record in records {
        assert_eq!(record.bytes, payload(record.sequence));
    }
}

/// Until it is so; fails after ten seconds.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_was_appended_is_read_in_order_before_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    assert_eq!(append_all(&spool, 1..=300).await, (1..=300).collect::<Vec<_>>());
    assert_payloads(&read_to(&mut spool.reader(0), 300).await, 1..=300);
    assert_payloads(&read_to(&mut spool.reader(250), 300).await, 250..=300);
    spool.close().await;
    assert_eq!(
        spool.append(payload(1), RecordClass::Ordinary).await,
        Err(AppendError::Closed)
    );

    let spool = open(dir.path());
    assert_eq!(spool.state().head, 300);
    assert_eq!(spool.state().records, 300);
    assert_eq!(append_all(&spool, 301..=400).await[0], 301);
    assert_payloads(&read_to(&mut spool.reader(1), 400).await, 1..=400);
    spool.close().await;
}

#[tokio::test]
async fn a_reader_waits_at_the_head_and_is_woken() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let mut reader = spool.reader(1);
    let reading = tokio::spawn(async move { read_to(&mut reader, 1).await });
    append_all(&spool, 1..=1).await;
    assert_payloads(&reading.await.unwrap(), 1..=1);
    spool.close().await;
}

#[tokio::test]
async fn a_reader_seeks_back_and_forth_also_while_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append_all(&spool, 1..=400).await;
    let mut reader = spool.reader(1);
    for from in [390, 3, 120, 119, 400, 1] {
        // A read that is given up half way leaves nothing behind.
        let mut dropped = Vec::new();
        let _ = tokio::time::timeout(Duration::ZERO, reader.next(1, 1, &mut dropped)).await;
        reader.seek(from);
        assert_payloads(&read_to(&mut reader, 400).await, from..=400);
    }
    spool.close().await;
}

#[tokio::test]
async fn a_reader_ends_with_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append_all(&spool, 1..=3).await;
    let mut reader = spool.reader(1);
    spool.close().await;
    assert_payloads(&read_to(&mut reader, 3).await, 1..=3);
    let mut out = Vec::new();
    assert!(matches!(reader.next(1, 1, &mut out).await, Err(ReadError::Closed)));
}

#[tokio::test]
async fn a_second_process_learns_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let started = Instant::now();
    let Err(OpenError::Held { holder, .. }) = Spool::open(options(dir.path()), Arc::new(Counts::default())) else {
        panic!("the directory was taken twice");
    };
    assert!(started.elapsed() < Duration::from_secs(1));
    assert!(
        holder.starts_with(&format!("pid {} on ", std::process::id())),
        "{holder}"
    );
    spool.close().await;
    open(dir.path()).close().await;
}

#[tokio::test]
async fn requests_that_wait_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let counts = Arc::new(Counts::default());
    let spool = Spool::open(options(dir.path()), counts.clone()).unwrap();
    // The writer is held up, so that all of them wait.
    let held = spool.handle.inlet.clone();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let (at_gate, arrived) = std::sync::mpsc::channel();
    let holding = std::thread::spawn(move || {
        held.command(move |_| {
            at_gate.send(()).unwrap();
            gate.recv()
        })
    });
    arrived.recv().unwrap();
    let waiting: Vec<_> = (1..=20)
        .map(|number| spool.append(payload(number), RecordClass::Ordinary))
        .collect();
    go.send(()).unwrap();
    holding.join().unwrap().unwrap().unwrap();
    for one in waiting {
        one.await.unwrap();
    }
    assert_eq!(counts.records.load(Ordering::Relaxed), 20);
    assert!(
        counts.syncs.load(Ordering::Relaxed) <= 2,
        "{}",
        counts.syncs.load(Ordering::Relaxed)
    );
    spool.close().await;
}

#[tokio::test]
async fn a_full_spool_accepts_again_when_the_cursors_move() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(
        LogOptions {
            bytes_max: 64 << 10,
            ..options(dir.path())
        },
        Arc::new(Counts::default()),
    )
    .unwrap();
    let cursor = spool.cursor("route", CursorStart::Oldest).unwrap();
    let refused = loop {
        if let Err(refused) = spool.append(vec![7; 1000].into(), RecordClass::Ordinary).await {
            break refused;
        }
    };
    assert_eq!(refused, AppendError::Full);
    assert_eq!(spool.state().refuses, Some(AppendError::Full));
    assert!(spool.state().bytes <= 64 << 10);
    cursor.advance(u64::MAX);
    assert_eq!(cursor.position(), spool.state().head);
    eventually("it takes records again", || spool.state().refuses.is_none()).await;
    let sequence = spool.append(vec![7; 1000].into(), RecordClass::Ordinary).await.unwrap();
    assert_eq!(sequence, cursor.position() + 1);
    // A reader whose records are gone goes on at the oldest.
    let mut out = Vec::new();
    spool.reader(1).next(1, 1, &mut out).await.unwrap();
    assert!(out[0].sequence > 1);
    spool.close().await;
}

#[tokio::test]
async fn bulk_records_leave_the_rest_to_ordinary_ones() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let refused = loop {
        if let Err(refused) = spool.append(vec![7; 4000].into(), RecordClass::Bulk).await {
            break refused;
        }
    };
    assert_eq!(refused, AppendError::BulkFull);
    assert_eq!(spool.state().refuses, None);
    spool.append(vec![7; 4000].into(), RecordClass::Ordinary).await.unwrap();
    spool.close().await;
    let spool = open(dir.path());
    let again = spool.append(vec![7; 4000].into(), RecordClass::Bulk).await;
    assert_eq!(again, Err(AppendError::BulkFull));
    spool.close().await;
}

#[tokio::test]
async fn a_record_larger_than_a_segment_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let large = spool.append(vec![0; 20 << 10].into(), RecordClass::Ordinary);
    let small = spool.append(payload(1), RecordClass::Ordinary);
    assert_eq!(large.await, Err(AppendError::TooLarge));
    assert_eq!(small.await, Ok(1));
    spool.close().await;
}

#[tokio::test]
async fn cursors_keep_their_place_and_hold_their_segments() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append_all(&spool, 1..=10).await;
    let slow = spool.cursor("slow / Ä", CursorStart::Oldest).unwrap();
    let fast = spool.cursor("fast", CursorStart::Head).unwrap();
    assert_eq!((slow.position(), fast.position()), (0, 10));
    append_all(&spool, 11..=300).await;
    fast.advance(200);
    slow.advance(5);
    spool.close().await;

    let spool = open(dir.path());
    assert_eq!(spool.cursors(), ["fast", "slow / Ä"]);
    assert_eq!(spool.cursor("fast", CursorStart::Head).unwrap().position(), 200);
    assert_eq!(spool.cursor("slow / Ä", CursorStart::Head).unwrap().position(), 5);
    assert_payloads(&read_to(&mut spool.reader(6), 300).await, 6..=300);
    let before = spool.state().records;
    spool.remove_cursor("slow / Ä").unwrap();
    eventually("what only it kept is deleted", || spool.state().records < before).await;
    assert_eq!(spool.cursors(), ["fast"]);
    assert_payloads(&read_to(&mut spool.reader(201), 300).await, 201..=300);
    assert!(spool.cursor("", CursorStart::Head).is_err());
    spool.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn many_append_while_readers_follow_and_segments_go() {
    const TASKS: u64 = 8;
    const EACH: u64 = 250;
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let readers: Vec<_> = (0..2u64)
        .map(|nth| {
            let cursor = spool.cursor(&format!("route-{nth}"), CursorStart::Oldest).unwrap();
            let mut reader = spool.reader(1);
            tokio::spawn(async move {
                let mut records = Vec::new();
                for last in (1..=TASKS * EACH).step_by(1 + 60 * nth as usize).chain([TASKS * EACH]) {
                    if records.len() < last as usize {
                        reader.next(9, 4096, &mut records).await.unwrap();
                        cursor.advance(records.last().map_or(0, |record| record.sequence));
                    }
                }
                while (records.len() as u64) < TASKS * EACH {
                    reader.next(100, 1 << 16, &mut records).await.unwrap();
                    cursor.advance(records.last().map_or(0, |record| record.sequence));
                }
                records
            })
        })
        .collect();
    let writers: Vec<_> = (0..TASKS)
        .map(|task| {
            let spool = spool.clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0..EACH {
                    let bytes = payload(task * EACH + number);
                    acknowledged.push((spool.append(bytes.clone(), RecordClass::Ordinary).await.unwrap(), bytes));
                }
                acknowledged
            })
        })
        .collect();
    let mut expected = Vec::new();
    for writer in writers {
        expected.extend(writer.await.unwrap());
    }
    expected.sort();
    assert!(expected.iter().map(|(sequence, _)| *sequence).eq(1..=TASKS * EACH));
    for reader in readers {
        let read = tokio::time::timeout(Duration::from_secs(60), reader)
            .await
            .unwrap()
            .unwrap();
        assert!(
            read.into_iter()
                .map(|record| (record.sequence, record.bytes))
                .eq(expected.clone())
        );
    }
    eventually("what was read is deleted", || spool.state().records < TASKS * EACH / 2).await;
    spool.close().await;
}

#[test]
fn numbers_between_two_lives_are_not_missing_and_those_of_a_life_are() {
    let (before, after) = (numbers_from(1_700_000_000) + 41, numbers_from(1_700_000_900));
    let missing = |first, last| numbers_given_out(first..=last);
    assert!(missing(before + 1, after - 1).is_empty());
    assert_eq!(
        missing(before + 1, after + 1),
        after..=after + 1,
        "the first two of a life"
    );
    assert_eq!(missing(before + 3, before + 5), before + 3..=before + 5);
    assert_eq!(
        missing(999_990, 1_000_010),
        999_990..=1_000_010,
        "from before numbers began at the clock"
    );
    assert!(missing(12, after - 1).is_empty(), "the first life with a clock");
}

#[tokio::test]
async fn a_cursor_knows_what_is_not_settled() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append_all(&spool, 1..=300).await;
    let cursor = spool.cursor("route", CursorStart::Oldest).unwrap();
    let all = cursor.backlog();
    assert_eq!((all.records, all.bytes), (300, spool.state().bytes));
    for (settled, left) in [
        (10..=19, 290),
        (30..=30, 289),
        (1..=9, 280),
        (100..=299, 80),
        (20..=29, 70),
    ] {
        cursor.settle(settled);
        assert_eq!(cursor.backlog().records, left);
    }
    assert_eq!((cursor.position(), cursor.settled()), (30, vec![100..=299]));
    cursor.advance(u64::MAX);
    assert_eq!(cursor.backlog(), CursorBacklog::default());
    spool.close().await;
}

#[tokio::test]
async fn a_log_of_small_segments_takes_large_records_and_little_room() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        segment_bytes: 8 << 10,
        record_bytes_max: 100 << 10,
        ..options(dir.path())
    };
    let spool = Spool::open(options.clone(), Arc::new(Counts::default())).unwrap();
    spool.append(payload(1), RecordClass::Ordinary).await.unwrap();
    assert!(spool.state().bytes <= 8 << 10);
    let large = Bytes::from(vec![3; 100 << 10]);
    assert_eq!(spool.append(large.clone(), RecordClass::Ordinary).await, Ok(2));
    assert_eq!(spool.append(payload(3), RecordClass::Ordinary).await, Ok(3));
    let larger = spool.append(vec![0; 101 << 10].into(), RecordClass::Ordinary).await;
    assert_eq!(larger, Err(AppendError::TooLarge));
    spool.close().await;
    let spool = Spool::open(options, Arc::new(Counts::default())).unwrap();
    let records = read_to(&mut spool.reader(1), 3).await;
    assert_eq!((records.len(), &records[1].bytes), (3, &large));
    spool.close().await;
}
