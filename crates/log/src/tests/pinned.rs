//! What a cursor pins: the records that it wants and has not settled.

use super::{disk::FakeDisk, *};
use crate::segment::frame_len;

fn open(disk: &FakeDisk) -> Log {
    let options = LogOptions {
        segment_bytes: 128 << 10,
        ..options(Path::new("/spool"))
    };
    Log::open(Arc::new(disk.clone()), &options, Arc::new(Counts::default())).unwrap()
}

fn cursor(log: &mut Log, name: &str) -> Cursor {
    Cursor {
        state: log.cursor(name, CursorStart::Oldest).unwrap(),
        shared: log.shared().clone(),
    }
}

fn append_for(log: &mut Log, records: &[(Bytes, Audience)]) -> Vec<Result<u64, AppendError>> {
    let requests = records.iter().map(|(record, audience)| log::AppendRequest {
        record,
        class: RecordClass::Ordinary,
        audience: Some(*audience),
    });
    let mut results = Vec::new();
    log.append_batch(&requests.collect::<Vec<_>>(), &mut results);
    results
}

#[test]
fn what_a_cursor_does_not_want_it_does_not_pin_though_it_reads_nothing() {
    let disk = FakeDisk::new(1);
    let mut log = open(&disk);
    let (stuck, well) = (cursor(&mut log, "stuck"), cursor(&mut log, "well"));
    let (for_stuck, for_well) = (Audience::from_cursors([&stuck]), Audience::from_cursors([&well]));
    let picture = (Bytes::from(vec![1; 2000]), for_stuck);
    assert_eq!(append_for(&mut log, &[picture]), [Ok(1)]);
    let mut compactor = crate::compaction::Compactor::default();
    // Three times what the log has room for.
    for number in 0..3000 {
        let results = append_for(&mut log, &[(Bytes::from(vec![2; 1000]), for_well)]);
        let appended = results[0].unwrap_or_else(|error| panic!("{number}: {error}"));
        well.settle_record(appended..=appended, 1000);
        if number % 50 == 0 {
            log.sync_cursors();
            compactor.run(log.cursors(), log.shared()).unwrap();
            log.tick();
        }
    }
    assert_eq!((stuck.pinned_bytes(), well.pinned_bytes()), (frame_len(2000), 0));
    assert_eq!(stuck.backlog().records, 1);
    assert_eq!(well.position(), log.shared().head());
    stuck.settle_record(1..=1, 2000);
    assert_eq!((stuck.pinned_bytes(), stuck.position()), (0, log.shared().head()));
}

#[test]
fn nothing_is_settled_for_a_cursor_that_is_opened_and_not_followed_yet() {
    let disk = FakeDisk::new(1);
    let mut log = open(&disk);
    let old = cursor(&mut log, "old");
    let for_old = (Bytes::from(vec![1; 1000]), Audience::from_cursors([&old]));
    assert_eq!(append_for(&mut log, std::slice::from_ref(&for_old)), [Ok(1)]);
    let new = Cursor {
        state: log.open_cursor("new", CursorStart::Oldest).unwrap(),
        shared: log.shared().clone(),
    };
    // One whose sender did not know of it yet, and one whose sender did.
    let for_both = (for_old.0.clone(), Audience::from_cursors([&old, &new]));
    assert_eq!(
        append_for(&mut log, &[for_old.clone(), for_both.clone()]),
        [Ok(2), Ok(3)]
    );
    assert_eq!((new.position(), new.pinned_bytes(), new.uncounted()), (0, 0, None));
    log.follow(&new.state);
    assert_eq!(new.uncounted(), Some(1..=3));
    let found = [(1, Some(1000)), (2, Some(1000)), (3, Some(1000))];
    new.count(1, found);
    assert_eq!(append_for(&mut log, &[for_old, for_both]), [Ok(4), Ok(5)]);
    assert_eq!(new.pinned_bytes(), 4 * frame_len(1000), "the fourth is settled");
    // It wants less from here on: what it pins is counted anew.
    log.follow(&new.state);
    assert_eq!((new.pinned_bytes(), new.uncounted()), (0, Some(1..=5)));
    new.count(1, [(2, Some(1000)), (5, Some(1000))]);
    assert_eq!((new.position(), new.pinned_bytes()), (1, 2 * frame_len(1000)));
    assert_eq!(
        old.pinned_bytes(),
        5 * frame_len(1000),
        "the other one's are as they were"
    );
}

#[test]
fn a_log_takes_more_once_it_may() {
    let disk = FakeDisk::new(1);
    let mut log = open(&disk);
    let cursor = cursor(&mut log, "a");
    let record = (Bytes::from(vec![1; 60_000]), Audience::from_cursors([&cursor]));
    let fill = |log: &mut Log| {
        (0..1000)
            .take_while(|_| append_for(log, std::slice::from_ref(&record))[0].is_ok())
            .count()
    };
    let bytes_max = log.shared().state().bytes_max;
    let first = fill(&mut log);
    log.limit(2 * bytes_max);
    assert_eq!(log.shared().state().bytes_max, 2 * bytes_max);
    log.tick();
    assert!(fill(&mut log) >= first / 2, "{first}");
    log.limit(bytes_max);
    log.tick();
    assert_eq!(fill(&mut log), 0);
}

#[test]
fn a_cursor_at_its_limit_refuses_what_it_wants_and_nothing_else() {
    let disk = FakeDisk::new(1);
    let mut log = open(&disk);
    let (full, well) = (cursor(&mut log, "full"), cursor(&mut log, "well"));
    full.limit(3 * frame_len(1000));
    let record = |audience| (Bytes::from(vec![1; 1000]), audience);
    let both = record(Audience::from_cursors([&full, &well]));
    let other = record(Audience::from_cursors([&well]));
    // Nobody has said that it refuses.
    let results = append_for(&mut log, &vec![both.clone(); 4]);
    assert_eq!(results, [Ok(1), Ok(2), Ok(3), Ok(4)]);
    assert!(full.is_above(1.0));
    full.refuse_above_limit(true);
    let refused = Err(AppendError::RouteFull);
    let results = append_for(&mut log, &[other.clone(), both.clone(), other]);
    assert_eq!(results, [Ok(5), refused, Ok(6)]);
    assert_eq!(log.shared().state().refuses, None, "the log is not full");
    for number in 1..=2 {
        full.settle_record(number..=number, 1000);
    }
    // Those of one batch count together.
    let results = append_for(&mut log, &vec![both.clone(); 3]);
    assert_eq!(results, [Ok(7), refused, refused]);
    assert_eq!(full.pinned_bytes(), 3 * frame_len(1000));
    // One that is larger than the limit is taken where nothing is pinned.
    full.settle(0..=7);
    full.limit(1000);
    let results = append_for(&mut log, &vec![both; 2]);
    assert_eq!(results, [Ok(8), refused]);
}

#[test]
fn what_was_refused_by_the_disk_is_not_pinned() {
    let disk = FakeDisk::new(1);
    let mut log = open(&disk);
    let limited = cursor(&mut log, "limited");
    limited.limit(2 * frame_len(1000));
    limited.refuse_above_limit(true);
    let record = (Bytes::from(vec![1; 1000]), Audience::from_cursors([&limited]));
    assert_eq!(append_for(&mut log, std::slice::from_ref(&record)), [Ok(1)]);
    for _ in 0..3 {
        disk.behave(|behaviour| behaviour.short_of = Some(rustix::io::Errno::NOSPC.raw_os_error()));
        assert_eq!(
            append_for(&mut log, std::slice::from_ref(&record)),
            [Err(AppendError::Full)]
        );
        assert_eq!(limited.pinned_bytes(), frame_len(1000));
    }
    disk.behave(|behaviour| behaviour.short_of = None);
    assert_eq!(append_for(&mut log, &[record]), [Ok(2)]);
}

/// What the cursor should pin, from what it says it has settled.
fn expected(cursor: &Cursor, records: &[(u64, usize)]) -> u64 {
    let settled = cursor.settled();
    let is_settled = |number| number <= cursor.position() || settled.iter().any(|range| range.contains(&number));
    let pinned = records.iter().filter(|(number, _)| !is_settled(*number));
    pinned.map(|(_, len)| frame_len(*len)).sum()
}

#[test]
fn whatever_happens_a_cursor_pins_what_it_wants_and_has_not_settled() {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let disk = FakeDisk::new(seed);
        let mut log = open(&disk);
        let mut cursors = NAMES.map(|name| cursor(&mut log, name));
        // All records, and for each cursor those that it wants.
        let mut lens = Vec::new();
        let mut wanted: [Vec<(u64, usize)>; 3] = Default::default();
        for _ in 0..150 {
            match random.below(20) {
                0 => {
                    if random.below(2) == 0 {
                        log.close();
                    } else {
                        tick(&mut log);
                    }
                    drop(log);
                    log = open(&disk);
                    cursors = NAMES.map(|name| cursor(&mut log, name));
                    let mut first = 1;
                    // Counted bit by bit, while they settle and more is appended.
                    while first <= lens.len() as u64 {
                        let last = (first + random.below(40)).min(lens.len() as u64);
                        for (cursor, wanted) in cursors.iter().zip(&wanted) {
                            let is_wanted = |number: u64| wanted.iter().any(|(one, _)| *one == number);
                            let found = (first..=last)
                                .map(|number| (number, is_wanted(number).then(|| lens[number as usize - 1])));
                            cursor.count(first, found);
                        }
                        first = last + 1;
                        settle_some(&mut random, &cursors, &wanted);
                    }
                }
                1..10 => {
                    let batch: Vec<_> = (0..=random.below(8))
                        .map(|_| {
                            let wants = [0, 1, 2].map(|_| random.below(2) == 0);
                            (vec![7; random.below(600) as usize], wants)
                        })
                        .collect();
                    let records: Vec<_> = batch
                        .iter()
                        .map(|(record, wants)| {
                            let wanting = cursors.iter().zip(wants).filter(|(_, wants)| **wants);
                            (
                                Bytes::from(record.clone()),
                                Audience::from_cursors(wanting.map(|(cursor, _)| cursor)),
                            )
                        })
                        .collect();
                    for ((record, wants), result) in batch.iter().zip(append_for(&mut log, &records)) {
                        let number = result.unwrap();
                        lens.push(record.len());
                        assert_eq!(number, lens.len() as u64);
                        for (wanted, wants) in wanted.iter_mut().zip(wants) {
                            wanted.extend(wants.then_some((number, record.len())));
                        }
                    }
                }
                _ => settle_some(&mut random, &cursors, &wanted),
            }
            for (cursor, wanted) in cursors.iter().zip(&wanted) {
                assert_eq!(cursor.pinned_bytes(), expected(cursor, wanted), "seed {seed}");
            }
        }
    }
}

/// Settles a record of some cursor, which may be settled before.
fn settle_some(random: &mut Random, cursors: &[Cursor; 3], wanted: &[Vec<(u64, usize)>; 3]) {
    let nth = random.below(3) as usize;
    if wanted[nth].is_empty() {
        return;
    }
    let newest = random.below(wanted[nth].len() as u64) as usize;
    for (number, len) in wanted[nth].iter().skip(newest).take(4) {
        cursors[nth].settle_record(*number..=*number, *len);
    }
}
