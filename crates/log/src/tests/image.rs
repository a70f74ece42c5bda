//! A log that is looked at: the fixtures, copies of them that are damaged, noise, and one that a process appends to.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::{
    golden::{self, fixture},
    *,
};
use crate::{ImageCensus, ImageDepth, ImageStep, LogImage};

/// Kind, and the numbers that are lost by it.
type NamedDamage = (&'static str, Option<RangeInclusive<u64>>);

/// What a look at a directory finds.
struct Looked {
    image: LogImage,
    census: ImageCensus,
    records: Vec<(u64, Bytes)>,
}

fn look(dir: &Path) -> Looked {
    let image = LogImage::open(dir).unwrap();
    let mut records = Vec::new();
    let census = image.read(ImageDepth::Copied, |step| {
        if let ImageStep::Record(record) = step {
            records.push((record.sequence, record.bytes.expect("it was asked for")));
        }
        Ok::<_, OpenError>(())
    });
    Looked {
        census: census.unwrap(),
        image,
        records,
    }
}

impl Looked {
    fn numbers(&self) -> Vec<u64> {
        self.records.iter().map(|(number, _)| *number).collect()
    }

    fn damage(&self) -> Vec<NamedDamage> {
        let damage = self.census.damage.iter();
        damage.map(|damage| (damage.kind, damage.missing.clone())).collect()
    }
}

const FIRST: &str = "segments/0000000000000001-0000000000000001.seg";
const SECOND: &str = "segments/0000000000000002-0000000000000005.seg";
const NEWEST: &str = "segments/0000000000000003-0000000000000009.seg";
const PAGE_SLOT: usize = crate::cursors::SLOT_LEN;

/// Changes a file of a log.
fn edit(dir: &Path, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = dir.join(file);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
}

fn flip(at: usize) -> impl Fn(&mut Vec<u8>) {
    move |bytes| bytes[at] ^= 4
}

/// Where frames and batches of a segment stand, by what they are.
fn places(file: &str) -> Vec<(usize, &'static str, usize)> {
    let bytes = fs::read(fixture(4).join(file)).unwrap();
    let mut found = Vec::new();
    let mut at = 4096;
    while at + 32 <= bytes.len() {
        let half = |offset: usize| u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap()) as usize;
        match u16::from_le_bytes(bytes[at + 24..at + 26].try_into().unwrap()) {
            0xF0BB => {
                found.push((at, "batch", 48));
                at += 48;
            }
            0xF0BA => {
                let len = (32 + half(at + 8)).next_multiple_of(8);
                found.push((at, "frame", len));
                at += len;
            }
            _ => break,
        }
    }
    found
}

#[test]
fn the_fixtures_are_read_and_nothing_is_wrong_with_them() {
    for version in [1, 4] {
        let dir = golden::copy(version);
        let looked = look(dir.path());
        assert_eq!(looked.damage(), [], "version {version}");
        assert!(looked.numbers().into_iter().eq(1..=12));
        assert!(looked.records.iter().all(|(number, bytes)| *bytes == payload(*number)));
        let cursors = looked.image.cursors().unwrap();
        assert_eq!((cursors[0].name.as_str(), cursors[0].position), ("a route/1", 3));
        assert_eq!(cursors[0].settled(), if version == 1 { vec![] } else { vec![6..=7] });
        assert!(!cursors[0].needs(3) && cursors[0].needs(4) && cursors[0].needs(8));
        let sealed: Vec<bool> = looked.census.segments.iter().map(|segment| segment.is_sealed).collect();
        assert_eq!(sealed[..2], [true, true]);
    }
}

#[test]
fn what_a_cursor_needs_of_a_range_is_what_it_has_not_settled() {
    let dir = golden::copy(4);
    let looked = look(dir.path());
    let cursor = &looked.image.cursors().unwrap()[0];
    for (first, last, needed) in [
        (1, 12, vec![4..=5, 8..=12]),
        (6, 7, vec![]),
        (1, 3, vec![]),
        (5, 6, vec![5..=5]),
        (7, 9, vec![8..=9]),
        (9, 9, vec![9..=9]),
    ] {
        assert_eq!(cursor.needed_of(&(first..=last)), needed, "{first} to {last}");
    }
}

#[test]
fn looking_changes_nothing() {
    let dir = golden::copy(4);
    edit(dir.path(), SECOND, flip(4200));
    let state = || -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
        let mut found = BTreeMap::new();
        for sub in ["", "segments", "cursors"] {
            for entry in fs::read_dir(dir.path().join(sub)).unwrap() {
                let path = entry.unwrap().path();
                let bytes = fs::read(&path).unwrap_or_default();
                let modified = fs::metadata(&path).unwrap().modified().unwrap();
                found.insert(path, (bytes, modified));
            }
        }
        found
    };
    let before = state();
    assert_eq!(look(dir.path()).damage().len(), 1);
    assert_eq!(state(), before);
}

#[test]
fn each_kind_of_place_that_is_damaged_is_named_with_the_numbers_that_are_lost() {
    let frames: Vec<usize> = places(SECOND)
        .iter()
        .filter(|(_, what, _)| *what == "frame")
        .map(|(at, ..)| *at)
        .collect();
    let batches: Vec<usize> = places(SECOND)
        .iter()
        .filter(|(_, what, _)| *what == "batch")
        .map(|(at, ..)| *at)
        .collect();
    let (second_frame, third_frame, batch) = (frames[1], frames[2], batches[0]);
    type Change = Box<dyn Fn(&Path)>;
    let at = |file: &'static str, at: usize| -> Change { Box::new(move |dir| edit(dir, file, flip(at))) };
    let both = |file: &'static str, slot: usize| -> Change {
        Box::new(move |dir| {
            edit(dir, file, |bytes| {
                bytes[40] ^= 4;
                bytes[slot + 40] ^= 4;
            });
        })
    };
    let gone = |file: &'static str| -> Change { Box::new(move |dir| fs::remove_file(dir.join(file)).unwrap()) };
    let cut = |file: &'static str, len: usize| -> Change { Box::new(move |dir| edit(dir, file, |b| b.truncate(len))) };
    let record = |numbers| vec![("record", numbers)];
    #[rustfmt::skip]
    let cases: Vec<(&str, Change, Vec<NamedDamage>)> = vec![
        ("one slot of the superblock", at("superblock", 40), vec![]),
        ("the slot of the superblock that counts", at("superblock", 4096 + 40), vec![("restored", None)]),
        ("both slots of the superblock", both("superblock", 4096), vec![("superblock", None)]),
        ("no superblock", gone("superblock"), vec![("superblock", None)]),
        ("one slot of the page", at("cursors/page", 40), vec![]),
        ("the other slot of the page", at("cursors/page", PAGE_SLOT + 40), vec![]),
        ("both slots of the page", both("cursors/page", PAGE_SLOT), vec![("cursor", None)]),
        ("no page", gone("cursors/page"), vec![("cursor", None)]),
        ("the header of a segment", at(SECOND, 20), vec![("segment_header", None)]),
        ("the seal of a segment", at(SECOND, 530), vec![("seal", None)]),
        ("the header of a frame", at(SECOND, second_frame + 9), record(Some(6..=6))),
        ("the payload of a frame", at(SECOND, third_frame + 33), record(Some(7..=7))),
        ("the header of a batch", at(SECOND, batch + 9), record(None)),
        ("the end of a segment", cut(SECOND, third_frame + 10), record(Some(7..=8))),
        ("all of a segment but its name", cut(SECOND, 0), vec![("segment_header", None), ("seal", Some(5..=8))]),
        ("the first block of a segment", Box::new(|dir| edit(dir, SECOND, |b| b[..4096].fill(0x55))),
            vec![("segment_header", None), ("seal", None)]),
        ("no segment between two", gone(SECOND), vec![("segment_missing", Some(5..=8))]),
        ("no first segment", gone(FIRST), vec![("segment_missing", Some(4..=4))]),
        ("no newest segment", gone(NEWEST), vec![("segment_missing", Some(9..=12))]),
        ("the end of the newest segment", cut(NEWEST, 4096 + 60), record(Some(9..=12))),
    ];
    for (what, change, expected) in cases {
        let dir = golden::copy(4);
        change(dir.path());
        let looked = look(dir.path());
        assert_eq!(looked.damage(), expected, "{what}");
        let missing: Vec<u64> = looked.census.missing().cloned().flatten().collect();
        let first = if what == "no first segment" { 5 } else { 1 };
        let whole: Vec<u64> = (first..=12).filter(|number| !missing.contains(number)).collect();
        assert_eq!(looked.numbers(), whole, "{what}");
        let is_payload = |(number, bytes): &(u64, Bytes)| *bytes == payload(*number);
        assert!(looked.records.iter().all(is_payload), "{what}");
    }
}

#[test]
fn a_segment_of_another_log_is_named_and_not_read() {
    let dir = golden::copy(4);
    let other = tempfile::tempdir().unwrap();
    let options = LogOptions {
        segment_bytes: 8 << 10,
        ..options(other.path())
    };
    let fs = Arc::new(RealFileSystem::with_spares(0));
    let mut log = Log::open(fs, &options, Arc::new(Counts::default())).unwrap();
    append(&mut log, &[payload(1)], RecordClass::Ordinary);
    log.close();
    fs::copy(other.path().join(FIRST), dir.path().join(FIRST)).unwrap();
    let looked = look(dir.path());
    assert_eq!(looked.damage(), [("foreign", None), ("segment_missing", Some(4..=4))]);
    assert!(looked.numbers().into_iter().eq(5..=12));

    fs::copy(other.path().join("superblock"), dir.path().join("superblock")).unwrap();
    let looked = look(dir.path());
    assert_eq!(looked.numbers(), [1], "the superblock says which log it is");
}

#[test]
fn a_log_of_which_nothing_says_which_it_is_is_read_all_the_same() {
    for version in [1, 4] {
        let dir = golden::copy(version);
        for file in ["superblock", "cursors/page"] {
            let _ = fs::remove_file(dir.path().join(file));
        }
        for file in [FIRST, SECOND, NEWEST] {
            edit(dir.path(), file, |bytes| bytes[..4096].fill(0xaa));
        }
        let looked = look(dir.path());
        assert_eq!(looked.numbers(), (1..=12).collect::<Vec<_>>(), "version {version}");
        assert_eq!(looked.image.uuid(), None);
        assert!(looked.damage().contains(&("superblock", None)), "{:?}", looked.damage());
    }
}

#[test]
fn a_segment_under_a_wrong_name_is_read_by_its_header() {
    let dir = golden::copy(4);
    let wrong = "segments/0000000000000004-000000000000000d.seg";
    fs::rename(dir.path().join(SECOND), dir.path().join(wrong)).unwrap();
    let looked = look(dir.path());
    assert!(
        looked.damage().contains(&("segment_header", None)),
        "{:?}",
        looked.damage()
    );
    assert!(looked.numbers().into_iter().eq(1..=12));
}

#[test]
fn a_flipped_bit_anywhere_in_a_segment_loses_at_most_what_is_named() {
    for file in [FIRST, SECOND, NEWEST] {
        let len = fs::metadata(fixture(4).join(file)).unwrap().len() as usize;
        let interesting = (0..96).chain(512..568).chain(4090..len.min(7000)).step_by(13);
        for at in interesting {
            let dir = golden::copy(4);
            edit(dir.path(), file, flip(at));
            let looked = look(dir.path());
            let missing: Vec<u64> = looked.census.missing().cloned().flatten().collect();
            let whole: Vec<u64> = (1..=12).filter(|number| !missing.contains(number)).collect();
            assert_eq!(looked.numbers(), whole, "{file}, byte {at}: {:?}", looked.damage());
            assert!(missing.len() <= 1, "{file}, byte {at}: {:?}", looked.damage());
        }
    }
}

#[test]
fn noise_in_every_file_is_no_reason_to_panic() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let dir = golden::copy(if seed % 4 == 0 { 1 } else { 4 });
        for file in ["superblock", "cursors/page", FIRST, SECOND, NEWEST] {
            let path = dir.path().join(file);
            let Ok(mut bytes) = fs::read(&path) else { continue };
            match random.below(5) {
                0 => bytes.iter_mut().for_each(|byte| *byte = random.below(256) as u8),
                1 => bytes.truncate(random.below(bytes.len() as u64) as usize),
                2 => (0..40).for_each(|_| {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at] = random.below(256) as u8;
                }),
                3 => {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at..].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
                }
                _ => {}
            }
            fs::write(&path, bytes).unwrap();
        }
        match LogImage::open(dir.path()) {
            Ok(image) => {
                let mut last = 0;
                let census = image.read(ImageDepth::Copied, |step| {
                    if let ImageStep::Record(record) = step {
                        assert_eq!(record.bytes.unwrap(), payload(record.sequence), "seed {seed}");
                        assert!(record.sequence > last, "seed {seed}");
                        last = record.sequence;
                    }
                    Ok::<_, OpenError>(())
                });
                census.unwrap();
            }
            Err(error) => assert!(matches!(error, OpenError::Format(_)), "seed {seed}: {error}"),
        }
    }
}

#[test]
fn a_directory_that_is_no_log_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let refused = LogImage::open(dir.path()).err().unwrap().to_string();
    assert!(refused.contains("is not the directory of a spool"), "{refused}");
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(LogImage::open(&nowhere), Err(OpenError::Io { .. })));
    assert!(!LogImage::exists(&nowhere) && LogImage::exists(&fixture(4)));
}

#[test]
fn what_a_running_process_does_meanwhile_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let fs = Arc::new(RealFileSystem::with_spares(0));
    let mut log = Log::open(fs, &options, Arc::new(Counts::default())).unwrap();
    let cursors = ["one", "other"].map(|name| log.cursor(name, CursorStart::Oldest).unwrap());
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let writer = thread::spawn(move || {
        let mut number = 0;
        while !over.load(Ordering::Acquire) {
            let payloads: Vec<_> = (number + 1..=number + 5).map(payload).collect();
            append(&mut log, &payloads, RecordClass::Ordinary);
            number += 5;
            for (at, cursor) in cursors.iter().enumerate() {
                // One lags, and settles what is above what it leaves.
                cursor.mark_settled(number.saturating_sub(60 * at as u64)..=number);
                cursor.mark_settled(0..=number.saturating_sub(200));
            }
            tick(&mut log);
        }
        log.close();
        number
    });
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let (mut looks, mut seen) = (0, 0);
    while looks < 40 || seen < 500 {
        assert!(std::time::Instant::now() < deadline, "{looks} looks, {seen} records");
        looks += 1;
        let looked = look(dir.path());
        assert_eq!(looked.damage(), []);
        assert!(looked.numbers().is_sorted());
        seen = seen.max(looked.numbers().last().copied().unwrap_or(0));
    }
    is_over.store(true, Ordering::Release);
    let last = writer.join().unwrap();
    let looked = look(dir.path());
    assert_eq!(looked.damage(), []);
    assert_eq!(looked.numbers().last(), Some(&last));
    assert_eq!(looked.image.is_closed(), Some(true));
}
