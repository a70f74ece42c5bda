//! What the callers of a spool see when its disk fails, fills up or hangs.

use std::sync::mpsc;

use super::{disk::FakeDisk, *};

fn open(disk: &FakeDisk) -> Spool {
    let dir = Path::new("/spool");
    Spool::open_on(
        Arc::new(disk.clone()),
        options(dir),
        Arc::new(Counts::default()),
        "spool-test",
    )
    .unwrap()
}

/// Holds the writer up until the sender is dropped.
fn hold(spool: &Spool) -> mpsc::Sender<()> {
    let (go, gate) = mpsc::channel();
    let (at_gate, arrived) = mpsc::channel();
    let inlet = spool.handle.inlet.clone();
    std::thread::spawn(move || {
        inlet.command(move |_| {
            at_gate.send(()).unwrap();
            let _: Result<(), _> = gate.recv();
        })
    });
    arrived.recv().unwrap();
    go
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let timeout = tokio::time::timeout(Duration::from_secs(10), future);
    timeout.await.unwrap_or_else(|_| panic!("never: {what}"))
}

#[tokio::test]
async fn the_first_failure_fails_the_whole_batch_and_all_that_follows() {
    let disk = FakeDisk::new(1);
    let spool = open(&disk);
    spool.append(payload(1), RecordClass::Ordinary).await.unwrap();
    let held = hold(&spool);
    let waiting: Vec<_> = (2..=5)
        .map(|number| spool.append(payload(number), RecordClass::Ordinary))
        .collect();
    disk.behave(|behaviour| behaviour.fault_one_in = 1);
    drop(held);
    for one in waiting {
        assert_eq!(within("an answer", one).await, Err(AppendError::Failed));
    }
    disk.behave(|behaviour| behaviour.fault_one_in = 0);
    let reason = within("it says why", spool.failed()).await;
    assert!(
        reason.contains("injected EIO") || reason.contains("no storage space"),
        "{reason}"
    );
    assert_eq!(spool.state().refuses, Some(AppendError::Failed));
    let before: Vec<_> = disk.paths().iter().map(|path| disk.bytes(path)).collect();
    assert_eq!(
        spool.append(payload(9), RecordClass::Ordinary).await,
        Err(AppendError::Failed)
    );
    within("it ends", spool.close()).await;
    assert!(spool.cursor("route", CursorStart::Head).is_err());
    let after: Vec<_> = disk.paths().iter().map(|path| disk.bytes(path)).collect();
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_full_disk_is_not_a_failure_and_passes() {
    let disk = FakeDisk::new(1);
    let spool = open(&disk);
    let mut stored = 0;
    disk.behave(|behaviour| behaviour.full = true);
    assert_eq!(
        spool.append(payload(1), RecordClass::Ordinary).await,
        Err(AppendError::Full)
    );
    assert_eq!(spool.state().refuses, Some(AppendError::Full));
    disk.behave(|behaviour| behaviour.full = false);
    // Nobody appends while it is not ready: it finds out by itself.
    within("it takes records again", async {
        while spool.state().refuses.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for round in 0..3 {
        disk.behave(|behaviour| behaviour.full = true);
        let refused = loop {
            match spool.append(payload(stored + 1), RecordClass::Ordinary).await {
                Ok(sequence) => stored = sequence,
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, AppendError::Full);
        disk.behave(|behaviour| behaviour.full = false);
        let next = spool.append(payload(stored + 1), RecordClass::Ordinary).await;
        assert_eq!(next, Ok(stored + 1), "round {round}");
        stored += 1;
    }
    let mut records = Vec::new();
    let mut reader = spool.reader(1);
    while (records.len() as u64) < stored {
        within("a record", reader.next(100, 1 << 20, &mut records))
            .await
            .unwrap();
    }
    assert!(records.iter().all(|record| record.bytes == payload(record.sequence)));
    spool.close().await;
}

/// Descriptors, memory, a quota, a limit on files' sizes: none of them is a failed disk, at no step of an append.
#[tokio::test]
async fn what_is_used_up_is_not_a_failed_disk_and_passes() {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG];
    let refusals = exhausted.map(|errno| (errno, AppendError::Exhausted));
    for (errno, refused) in refusals.into_iter().chain(full.map(|errno| (errno, AppendError::Full))) {
        let disk = FakeDisk::new(1);
        let spool = open(&disk);
        let cursor = spool.cursor("route", CursorStart::Oldest).unwrap();
        let mut stored = Vec::new();
        for round in 0..4u64 {
            // At first there is no segment, then one that is written to; the cursor's page is there or not.
            disk.behave(|behaviour| behaviour.short_of = Some(errno.raw_os_error()));
            for _ in 0..3 {
                let answer = spool.append(payload(900), RecordClass::Ordinary).await;
                // Sealing a segment may be what there is no room for.
                let is_expected = answer == Err(refused) || answer == Err(AppendError::Full);
                assert!(is_expected, "{errno:?}, round {round}: {answer:?}");
            }
            cursor.advance(stored.len() as u64 / 2);
            disk.behave(|behaviour| behaviour.short_of = None);
            within("it takes records again", async {
                while spool.state().refuses.is_some() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
            for _ in 0..2 {
                let number = stored.len() as u64 + 1;
                stored.push(spool.append(payload(number), RecordClass::Ordinary).await.unwrap());
            }
        }
        assert_eq!(
            stored,
            (1..=8).collect::<Vec<_>>(),
            "{errno:?}: no number was lost or came twice"
        );
        spool.close().await;
        let spool = open(&disk);
        let mut reader = spool.reader(stored[4]);
        let mut records = Vec::new();
        while records.len() < 4 {
            within("a record", reader.next(100, 1 << 20, &mut records))
                .await
                .unwrap();
        }
        assert!(
            records.iter().all(|record| record.bytes == payload(record.sequence)),
            "{errno:?}"
        );
        spool.close().await;
    }
}

#[tokio::test]
async fn what_waits_for_a_slow_disk_is_bounded() {
    let disk = FakeDisk::new(1);
    let spool = open(&disk);
    let held = hold(&spool);
    let mut waiting = Vec::new();
    while spool.state().refuses.is_none() {
        waiting.push(spool.append(Bytes::from_static(b"x"), RecordClass::Ordinary));
        assert!(waiting.len() < 1 << 20, "there is no bound");
    }
    assert_eq!(spool.state().refuses, Some(AppendError::Busy));
    assert_eq!(
        spool.append(payload(1), RecordClass::Ordinary).await,
        Err(AppendError::Busy)
    );
    drop(held);
    let mut refused = 0;
    for one in waiting {
        refused += u32::from(within("an answer", one).await.is_err());
    }
    assert!(refused > 0, "the test's spool is smaller than what waited");
    let spool = {
        spool.close().await;
        open(&FakeDisk::new(2))
    };
    let held = hold(&spool);
    let large = Bytes::from(vec![0; 50 << 20]);
    let answers: Vec<_> = (0..3)
        .map(|_| spool.append(large.clone(), RecordClass::Ordinary))
        .collect();
    drop(held);
    let mut seen = Vec::new();
    for answer in answers {
        seen.push(within("an answer", answer).await);
    }
    let large = Err(AppendError::TooLarge);
    assert_eq!(seen, [large, large, Err(AppendError::Busy)]);
    spool.close().await;
}

#[tokio::test]
async fn a_writer_that_panics_fails_the_spool() {
    let spool = open(&FakeDisk::new(1));
    let held = hold(&spool);
    let waiting = spool.append(payload(1), RecordClass::Ordinary);
    drop(held);
    assert_eq!(waiting.await, Ok(1));
    assert!(spool.handle.inlet.command(|_| -> () { panic!("on purpose") }).is_none());
    assert!(within("it says so", spool.failed()).await.contains("panicked"));
    assert_eq!(
        spool.append(payload(1), RecordClass::Ordinary).await,
        Err(AppendError::Failed)
    );
}

#[tokio::test]
async fn an_append_that_nobody_waits_for_is_appended() {
    let spool = open(&FakeDisk::new(1));
    drop(spool.append(payload(1), RecordClass::Ordinary));
    assert_eq!(spool.append(payload(2), RecordClass::Ordinary).await, Ok(2));
    spool.close().await;
}

#[test]
fn opening_reads_sealed_segments_by_their_first_block() {
    let disk = FakeDisk::new(1);
    let open = || {
        let options = LogOptions {
            segment_bytes: 256 << 10,
            ..options(Path::new("/spool"))
        };
        Log::open(Arc::new(disk.clone()), &options, Arc::new(Counts::default())).unwrap()
    };
    let mut log = open();
    for _ in 0..150 {
        append(&mut log, &[vec![1; 5000].into()], RecordClass::Ordinary);
    }
    log.close();
    let before = disk.read_bytes();
    let log = open();
    assert_eq!(log.shared().state().records, 150);
    // Each once, and the newest once for its identity and once as the disk has it.
    let others = 2 * 4096 + 2 * crate::cursors::SLOT_LEN;
    assert!(disk.read_bytes() - before <= 5 * 4096 + others);
}

#[test]
fn what_a_failed_sync_left_in_memory_alone_loses_nothing_that_is_written_later() {
    for (seed, fails_at) in (0..8).flat_map(|seed| (0..9).map(move |at| (seed, at))) {
        let disk = FakeDisk::new(seed);
        let counts = Arc::new(Counts::default());
        let open = || Log::open(Arc::new(disk.clone()), &options(Path::new("/spool")), counts.clone());
        let append = |log: &mut Log| {
            let payloads: Vec<Bytes> = (0..14).map(payload).collect();
            append(log, &payloads, RecordClass::Ordinary)
        };
        disk.behave(|behaviour| behaviour.sync_failure_in = Some(fails_at));
        if let Ok(mut log) = open()
            && log.cursor("a", CursorStart::Oldest).is_ok()
        {
            append(&mut log);
            tick(&mut log);
        }
        disk.kill_process();
        disk.behave(|behaviour| behaviour.sync_failure_in = None);
        let mut log = open().unwrap();
        let found: Vec<u64> = read_all(&log).iter().map(|record| record.sequence).collect();
        let cursor = log.cursor("a", CursorStart::Oldest).unwrap();
        let appended: Vec<u64> = append(&mut log).into_iter().map(Result::unwrap).collect();
        cursor.mark_settled(0..=appended[3]);
        tick(&mut log);
        let all = [found, appended.clone()].concat();
        disk.lose_power();
        let mut log = open().unwrap();
        let context = format!("seed {seed}, sync {fails_at}");
        let position = log
            .cursor("a", CursorStart::Oldest)
            .unwrap()
            .position
            .load(Ordering::Acquire);
        assert_eq!(position, appended[3], "{context}");
        let left: Vec<u64> = read_all(&log).iter().map(|record| record.sequence).collect();
        // What every cursor has passed is deleted a segment at a time.
        assert!(
            all.ends_with(&left) && left.contains(&appended[4]),
            "{context}: {left:?}"
        );
        assert_eq!(*counts.damage.lock(), [""; 0], "{context}");
    }
}
