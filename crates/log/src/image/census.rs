//! The segments of an image, read from front to back.

use std::{io, ops::RangeInclusive, path::PathBuf, sync::Arc, thread};

use super::{
    ImageDamage, ImageNote, ImageRecord, LOOK_WAIT, LOOKS_MAX, LogImage, SegmentFile, directory::HEADER_BYTES,
    given_out,
};
use crate::{
    OpenError, RecordClass, SEGMENTS_DIR,
    damage::DamageKind,
    file_system::File,
    log::io_error,
    recovery::{first_block, unsealed},
    scan::{DamagedHole, PayloadUse, ScanFound, SegmentScan},
    segment::{DATA_START, SEAL_LEN, SEAL_OFFSET, SegmentSeal, parse_seal},
    shared::Segment,
};

/// Damage that is named place by place; what is found beyond is counted.
const PLACES_MAX: usize = 10_000;

/// How closely records are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageDepth {
    /// Their headers: which there are.
    Headers,
    /// Each is held against its checksum.
    Checked,
    /// And handed out.
    Copied,
}

/// What [`LogImage::read`] comes to.
#[derive(Debug)]
pub enum ImageStep {
    /// A record that is whole. Numbers rise within a segment, and from one segment to the next.
    Record(ImageRecord),
    /// So many bytes of [`LogImage::bytes`] are done.
    Passed(u64),
}

/// A segment, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSegment {
    pub path: PathBuf,
    pub id: u64,
    pub first_sequence: u64,
    /// Of the last record in it.
    pub last_sequence: Option<u64>,
    pub records: u64,
    /// The length of the file.
    pub bytes: u64,
    pub is_sealed: bool,
    /// Of the format; `None` where the header is damaged.
    pub version: Option<u32>,
    /// It belongs to another log and is not read.
    pub is_foreign: bool,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageCensus {
    pub segments: Vec<ImageSegment>,
    pub damage: Vec<ImageDamage>,
    /// Places beyond those in `damage`.
    pub more_damage: u64,
    pub notes: Vec<ImageNote>,
    pub records: u64,
    /// Without what their frames take.
    pub record_bytes: u64,
}

impl ImageCensus {
    /// The numbers whose records are lost, as far as there were any.
    pub fn missing(&self) -> impl Iterator<Item = &RangeInclusive<u64>> {
        self.damage.iter().filter_map(|damage| damage.missing.as_ref())
    }

    /// The number of the last record; 0 without one.
    pub fn last_sequence(&self) -> u64 {
        let last = self.segments.iter().filter_map(|segment| segment.last_sequence);
        last.max().unwrap_or(0)
    }

    fn add_damage(&mut self, damage: ImageDamage) {
        match self.damage.len() < PLACES_MAX {
            true => self.damage.push(damage),
            false => self.more_damage += 1,
        }
    }

    fn note(&mut self, file: &SegmentFile, text: &'static str) {
        self.notes.push(ImageNote {
            path: file.path.clone(),
            text,
        });
    }
}

/// A record's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PlacedFrame {
    offset: u64,
    sequence: u64,
    class: RecordClass,
    len: u32,
}

/// One look at a segment.
struct SegmentLook {
    file: Arc<dyn File>,
    bytes: u64,
    frames: Vec<PlacedFrame>,
    damage: Vec<ImageDamage>,
    seal: Option<SegmentSeal>,
    /// Where the last frame ends.
    end: u64,
    /// The number after the last that the segment had, as far as it tells.
    next: u64,
    torn_bytes: u64,
}

impl SegmentLook {
    /// It was made, and never finished.
    fn is_unfinished(&self, file: &SegmentFile) -> bool {
        self.seal.is_none() && self.frames.is_empty() && self.torn_bytes == 0 && !file.has_own_header
    }
}

/// Holes whose numbers are not known yet, and the lowest number that may be missing.
struct MissingNumbers {
    low: u64,
    pending: Vec<ImageDamage>,
    damage: Vec<ImageDamage>,
}

impl MissingNumbers {
    /// The next record that the segment tells of is `next`: what lies before it is missing where there is a hole, and
    /// was settled and given up where there is none.
    fn close_before(&mut self, next: u64) {
        if !self.pending.is_empty() {
            // Of several holes between two records nobody knows which had which.
            let mut numbers = given_out(self.low, next.saturating_sub(1));
            let holes = self.pending.drain(..).map(|hole| hole.missing(numbers.take()));
            self.damage.extend(holes);
        }
        self.low = self.low.max(next);
    }
}

impl LogImage {
    /// Reads all segments, hands out what is whole, and returns what there is and what is damaged.
    ///
    /// # Errors
    ///
    /// A file cannot be read for another reason than damage; or `on` returned one.
    pub fn read<E: From<OpenError>>(
        &self,
        depth: ImageDepth,
        mut on: impl FnMut(ImageStep) -> Result<(), E>,
    ) -> Result<ImageCensus, E> {
        let mut census = ImageCensus {
            notes: self.notes.clone(),
            damage: self.damage.clone(),
            ..ImageCensus::default()
        };
        for file in &self.foreign {
            census.segments.push(foreign_segment(file));
        }
        // The id of the segment before, and the number after its last record, unless it vanished.
        let mut before: Option<(u64, Option<u64>)> = None;
        for (at, file) in self.segments.iter().enumerate() {
            let Some(look) = self.look_again(at, depth)? else {
                before = Some((file.id, None));
                continue;
            };
            let is_newest = at + 1 == self.segments.len();
            if is_newest && look.is_unfinished(file) {
                census.note(file, "its creation did not finish: it holds nothing");
                continue;
            }
            self.find_missing_before(file, before, &mut census);
            before = Some((file.id, Some(look.next)));
            if !file.has_own_header {
                let damage = ImageDamage::of_segment(DamageKind::SegmentHeader, file, 0, HEADER_BYTES);
                census.add_damage(damage);
            }
            if look.torn_bytes > 0 {
                census.note(file, "part of a batch that was never acknowledged: passed over");
            }
            for frame in &look.frames {
                census.records += 1;
                census.record_bytes += u64::from(frame.len);
            }
            census.segments.push(summary(file, &look));
            self.hand_out(file, &look, depth, &mut on)?;
            on(ImageStep::Passed(look.bytes))?;
            look.damage.into_iter().for_each(|damage| census.add_damage(damage));
        }
        self.find_missing_behind(before, &mut census);
        census.segments.sort_by_key(|segment| segment.id);
        Ok(census)
    }

    /// Looks at a segment until what looks like damage is the same twice. `None`: it is gone.
    fn look_again(&self, at: usize, depth: ImageDepth) -> Result<Option<SegmentLook>, OpenError> {
        let failed = |source: io::Error| io_error(&self.segments[at].path, source);
        let mut before: Option<SegmentLook> = None;
        for _ in 0..LOOKS_MAX {
            let Some(look) = self.look(at, depth).map_err(failed)? else {
                return Ok(None);
            };
            let is_same = before.is_some_and(|before| before.damage == look.damage);
            if look.damage.is_empty() || is_same {
                return Ok(Some(look));
            }
            before = Some(look);
            thread::sleep(LOOK_WAIT);
        }
        self.look(at, depth).map_err(failed)
    }

    fn look(&self, at: usize, depth: ImageDepth) -> io::Result<Option<SegmentLook>> {
        let segment = &self.segments[at];
        let is_newest = at + 1 == self.segments.len();
        let file = match self.fs.open(&segment.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let bytes = file.len()?;
        let (block, _) = first_block(file.as_ref())?;
        let seal = parse_seal(&block, segment.seed).filter(|seal| seal.end >= DATA_START);
        // Of one without a seal, what of it is damage.
        let mut holes = None;
        let mut look = SegmentLook {
            bytes,
            frames: Vec::new(),
            damage: Vec::new(),
            seal,
            end: seal.map_or(DATA_START, |seal| seal.end),
            next: segment.first_sequence,
            torn_bytes: 0,
            file,
        };
        if seal.is_none() {
            let mut found = Segment::empty(segment.seed.segment, segment.seed.log, segment.first_sequence, bytes);
            let scanned = unsealed::scan(&look.file, &mut found, is_newest, self.durable(), true)?;
            look.end = found.end;
            look.torn_bytes = scanned.torn_bytes;
            holes = Some(scanned.holes);
        }
        let is_damage = |hole: &DamagedHole| {
            let overlaps = |(offset, len): &(u64, u64)| *offset < hole.offset + hole.len && hole.offset < offset + len;
            holes.as_ref().is_none_or(|holes| holes.iter().any(overlaps))
        };
        let mut numbers = scan_frames(segment, &mut look, depth, is_damage)?;
        self.close_segment(at, &mut look, &mut numbers);
        look.next = numbers.low;
        look.damage.append(&mut numbers.damage);
        Ok(Some(look))
    }

    /// What is missing at the end of a segment, and whether its seal is.
    fn close_segment(&self, at: usize, look: &mut SegmentLook, numbers: &mut MissingNumbers) {
        let segment = &self.segments[at];
        let seal_damage = || ImageDamage::of_segment(DamageKind::Seal, segment, SEAL_OFFSET as u64, SEAL_LEN as u64);
        if let Some(seal) = look.seal {
            numbers.close_before(seal.last_sequence.saturating_add(1));
        }
        let Some(following) = self.segments.get(at + 1) else {
            let clean = self.superblock.as_ref().and_then(|superblock| superblock.clean);
            let was_sealed = clean.is_some_and(|clean| clean.next_segment == segment.id.saturating_add(1));
            if look.seal.is_none() && was_sealed {
                look.damage.push(seal_damage());
            }
            return self.close_newest(segment, look, numbers);
        };
        if look.seal.is_some() {
            return;
        }
        let is_next = following.id == segment.id.saturating_add(1);
        // Its end is where the next one begins; without a hole it was cut off.
        let cut = match is_next && numbers.pending.is_empty() {
            true => given_out(numbers.low, following.first_sequence - 1),
            false => None,
        };
        look.damage.push(seal_damage().missing(cut));
        match is_next {
            true => numbers.close_before(following.first_sequence),
            false => numbers.close_before(numbers.low),
        }
    }

    /// What is missing at the end of the newest segment: what is known to have been durable.
    fn close_newest(&self, segment: &SegmentFile, look: &SegmentLook, numbers: &mut MissingNumbers) {
        let is_last = segment.id >= self.newest_segment();
        let durable = self.durable().saturating_add(1);
        let is_cut = is_last && durable > numbers.low && !(look.frames.is_empty() && look.is_unfinished(segment));
        if is_cut && numbers.pending.is_empty() {
            let hole = ImageDamage::of_segment(DamageKind::Record, segment, look.end, 0);
            numbers.pending.push(hole);
        }
        match is_last {
            true => numbers.close_before(durable),
            false => numbers.close_before(numbers.low),
        }
    }

    /// Segments that are gone before this one.
    fn find_missing_before(&self, file: &SegmentFile, before: Option<(u64, Option<u64>)>, census: &mut ImageCensus) {
        let last = file.first_sequence - 1;
        let missing = match before {
            Some((id, Some(next))) if file.id > id.saturating_add(1) => given_out(next, last),
            None if self.facts.oldest_segment > 0 && file.id > self.facts.oldest_segment => {
                let lowest = self.lowest_position().unwrap_or(0);
                given_out(lowest.saturating_add(1), last)
            }
            _ => return,
        };
        let damage = ImageDamage::of_segment(DamageKind::SegmentMissing, file, 0, 0);
        census.add_damage(damage.missing(missing));
    }

    /// Segments that are gone behind the last one.
    fn find_missing_behind(&self, before: Option<(u64, Option<u64>)>, census: &mut ImageCensus) {
        let last_id = before.map_or(0, |(id, _)| id);
        if last_id >= self.newest_segment() {
            return;
        }
        let next = match before {
            Some((_, next)) => next,
            None => Some(self.lowest_position().unwrap_or(0).saturating_add(1)),
        };
        let dir = self.dir.join(SEGMENTS_DIR);
        let mut damage = ImageDamage::new(DamageKind::SegmentMissing, &dir, 0, 0);
        damage.segment = Some(last_id + 1);
        census.add_damage(damage.missing(next.and_then(|next| given_out(next, self.durable()))));
    }

    fn hand_out<E: From<OpenError>>(
        &self,
        file: &SegmentFile,
        look: &SegmentLook,
        depth: ImageDepth,
        on: &mut impl FnMut(ImageStep) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut scan = SegmentScan::new(look.file.clone(), file.seed, DATA_START, look.end);
        for frame in &look.frames {
            let mut bytes = None;
            if depth == ImageDepth::Copied {
                scan.restart(frame.offset);
                let found = scan.next(|_| PayloadUse::Copied(&|_| true));
                match found.map_err(|source| io_error(&file.path, source))? {
                    Some(ScanFound::Frame { payload, .. }) => bytes = payload,
                    // It was settled and given up since.
                    _ => continue,
                }
            }
            on(ImageStep::Record(ImageRecord {
                sequence: frame.sequence,
                class: frame.class,
                len: frame.len,
                bytes,
                segment: file.id,
                offset: frame.offset,
            }))?;
        }
        Ok(())
    }
}

/// Reads the frames up to the end of a segment.
fn scan_frames(
    segment: &SegmentFile,
    look: &mut SegmentLook,
    depth: ImageDepth,
    is_damage: impl Fn(&DamagedHole) -> bool,
) -> io::Result<MissingNumbers> {
    let mut numbers = MissingNumbers {
        low: segment.first_sequence,
        pending: Vec::new(),
        damage: Vec::new(),
    };
    let mut scan = SegmentScan::new(look.file.clone(), segment.seed, DATA_START, look.end);
    loop {
        let mut looked_at = None;
        let found = scan.next(|header| {
            looked_at = Some(*header);
            match depth {
                ImageDepth::Headers => PayloadUse::Skipped,
                ImageDepth::Checked | ImageDepth::Copied => PayloadUse::Checked,
            }
        })?;
        match found {
            None => return Ok(numbers),
            Some(ScanFound::Frame { offset, header, .. }) => {
                numbers.close_before(header.sequence);
                numbers.close_before(header.sequence.saturating_add(1));
                look.frames.push(PlacedFrame {
                    offset,
                    sequence: header.sequence,
                    class: header.class,
                    len: header.payload_len,
                });
            }
            Some(ScanFound::Batch { header, .. }) => numbers.close_before(header.first_sequence),
            Some(ScanFound::Hole(hole)) if is_damage(&hole) => {
                // Its header is whole where its payload is not.
                if let Some(header) = looked_at {
                    numbers.close_before(header.sequence);
                }
                let damage = ImageDamage::of_segment(DamageKind::Record, segment, hole.offset, hole.len);
                numbers.pending.push(damage);
                if let Some(header) = looked_at {
                    numbers.close_before(header.sequence.saturating_add(1));
                }
            }
            Some(ScanFound::Hole(_)) => {}
        }
    }
}

fn foreign_segment(file: &SegmentFile) -> ImageSegment {
    ImageSegment {
        path: file.path.clone(),
        id: file.id,
        first_sequence: file.first_sequence,
        last_sequence: None,
        records: 0,
        bytes: 0,
        is_sealed: false,
        version: file.version,
        is_foreign: true,
    }
}

fn summary(file: &SegmentFile, look: &SegmentLook) -> ImageSegment {
    ImageSegment {
        last_sequence: look.frames.iter().map(|frame| frame.sequence).max(),
        records: look.frames.len() as u64,
        bytes: look.bytes,
        is_sealed: look.seal.is_some(),
        is_foreign: false,
        ..foreign_segment(file)
    }
}
