//! A damaged log that is written anew: what a process then finds is all that could be read, and no damage.

use std::fs;

use super::{golden, *};
use crate::{ImageDepth, ImageStep, LogImage, LogRewrite, RewrittenLog};

fn rewrite(from: &Path, to: &Path) -> RewrittenLog {
    let image = LogImage::open(from).unwrap();
    let mut rewrite = LogRewrite::create(&image, to).unwrap();
    let census = image.read(ImageDepth::Copied, |step| match step {
        ImageStep::Record(record) => rewrite.append(record.sequence, record.class, &record.bytes.unwrap()),
        ImageStep::Passed(_) => Ok(()),
    });
    census.unwrap();
    rewrite.finish().unwrap()
}

/// A position, and what is settled above it.
type CursorAt = (u64, Vec<RangeInclusive<u64>>);

/// Opens a log, and returns what it holds, where its cursor is, and the next number that it gives out.
fn open(dir: &Path) -> (Vec<u64>, Option<CursorAt>, u64) {
    let options = LogOptions {
        segment_bytes: 8 << 10,
        ..options(dir)
    };
    let counts = Arc::new(Counts::default());
    let mut log = Log::open(Arc::new(RealFileSystem::with_spares(0)), &options, counts.clone()).unwrap();
    let records = read_all(&log);
    for record in &records {
        assert_eq!(record.bytes, payload(record.sequence));
    }
    assert_eq!(*counts.damage.lock(), [""; 0]);
    let has_cursor = log.cursor_names() == ["a route/1"];
    let cursor = has_cursor.then(|| {
        let cursor = log.cursor("a route/1", CursorStart::Oldest).unwrap();
        (cursor.position.load(Ordering::Acquire), cursor.settled())
    });
    let next = append(&mut log, &[payload(99)], RecordClass::Ordinary)[0].unwrap();
    log.close();
    let numbers = records.iter().map(|record| record.sequence).collect();
    (numbers, cursor, next)
}

const SECOND: &str = "segments/0000000000000002-0000000000000005.seg";
const NEWEST: &str = "segments/0000000000000003-0000000000000009.seg";

#[test]
fn a_whole_log_written_anew_is_the_same_log() {
    for version in [1, 4] {
        let (from, to) = (golden::copy(version), tempfile::tempdir().unwrap());
        let rewritten = rewrite(from.path(), to.path());
        assert_eq!((rewritten.records, rewritten.last_sequence), (12, 12));
        let image = LogImage::open(to.path()).unwrap();
        if version == 4 {
            assert_eq!(image.uuid(), LogImage::open(from.path()).unwrap().uuid());
        }
        let census = image.read(ImageDepth::Checked, |_| Ok::<_, OpenError>(())).unwrap();
        assert!(census.damage.is_empty() && census.notes.is_empty(), "{census:?}");
        let settled = if version == 1 { vec![] } else { vec![6..=7] };
        assert_eq!(open(to.path()), ((1..=12).collect(), Some((3, settled)), 13));
    }
}

#[test]
fn what_is_lost_is_missing_and_its_numbers_are_not_given_out_again() {
    type Change = fn(&Path);
    let cases: [(&str, Change, Vec<u64>, bool); 5] = [
        (
            "a segment",
            |dir| fs::remove_file(dir.join(SECOND)).unwrap(),
            vec![1, 2, 3, 4, 9, 10, 11, 12],
            true,
        ),
        (
            "the newest segment",
            |dir| fs::remove_file(dir.join(NEWEST)).unwrap(),
            (1..=8).collect(),
            true,
        ),
        (
            "the cursors",
            |dir| fs::write(dir.join("cursors/page"), b"noise").unwrap(),
            (1..=12).collect(),
            false,
        ),
        (
            "the superblock",
            |dir| fs::remove_file(dir.join("superblock")).unwrap(),
            (1..=12).collect(),
            true,
        ),
        (
            "every header",
            |dir| {
                fs::remove_file(dir.join("superblock")).unwrap();
                for file in ["segments/0000000000000001-0000000000000001.seg", SECOND, NEWEST] {
                    let mut bytes = fs::read(dir.join(file)).unwrap();
                    bytes[..600].fill(0x77);
                    fs::write(dir.join(file), bytes).unwrap();
                }
            },
            (1..=12).collect(),
            true,
        ),
    ];
    for (what, change, numbers, keeps_cursors) in cases {
        let (from, to) = (golden::copy(4), tempfile::tempdir().unwrap());
        change(from.path());
        rewrite(from.path(), to.path());
        let (found, cursor, next) = open(to.path());
        assert_eq!(found, numbers, "{what}");
        assert_eq!(cursor, keeps_cursors.then(|| (3, vec![6..=7])), "{what}");
        assert_eq!(next, 13, "{what}");
    }
}

#[test]
fn records_of_every_size_and_numbers_with_gaps_are_written_anew() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let large = |number: u64| Bytes::from(vec![number as u8; (number * 3_000) as usize]);
    let mut log_options = options(from.path());
    log_options.bytes_max = 64 << 20;
    log_options.record_bytes_max = 1 << 20;
    let mut expected = Vec::new();
    for life in 0..3u64 {
        log_options.numbers_from = life * 1_000 + 1;
        let fs = Arc::new(RealFileSystem::with_spares(0));
        let mut log = Log::open(fs, &log_options, Arc::new(Counts::default())).unwrap();
        for number in 0..60 {
            let class = if number % 3 == 0 {
                RecordClass::Bulk
            } else {
                RecordClass::Ordinary
            };
            let appended = append(&mut log, &[large(number)], class)[0].unwrap();
            expected.push((appended, large(number)));
        }
        log.close();
    }
    let rewritten = rewrite(from.path(), to.path());
    assert_eq!((rewritten.records, rewritten.misplaced), (180, 0));
    assert!(rewritten.segments > 3, "{rewritten:?}");
    log_options.dir = to.path().to_owned();
    let fs = Arc::new(RealFileSystem::with_spares(0));
    let counts = Arc::new(Counts::default());
    let log = Log::open(fs, &log_options, counts.clone()).unwrap();
    let found: Vec<_> = read_all(&log)
        .into_iter()
        .map(|record| (record.sequence, record.bytes))
        .collect();
    assert!(found == expected, "{} of {} records", found.len(), expected.len());
    assert_eq!(*counts.damage.lock(), [""; 0]);
}

#[test]
fn a_record_whose_number_does_not_rise_is_counted_and_not_written() {
    let (from, to) = (golden::copy(4), tempfile::tempdir().unwrap());
    let image = LogImage::open(from.path()).unwrap();
    let mut rewrite = LogRewrite::create(&image, to.path()).unwrap();
    for number in [5, 6, 6, 4, 7] {
        rewrite.append(number, RecordClass::Ordinary, &payload(number)).unwrap();
    }
    let rewritten = rewrite.finish().unwrap();
    assert_eq!((rewritten.records, rewritten.misplaced), (3, 2));
    assert_eq!(open(to.path()).0, [5, 6, 7]);
}
