//! What a log's directory says before its segments are read: superblock, page of the cursors, names and headers.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use super::{
    CursorPositions, ImageCopy, ImageDamage, ImageNote, LogImage, SegmentFile, cursors_of,
    found::{FoundSegment, NUMBER_MAX, too_new},
};
use crate::{
    OpenError, SEGMENTS_DIR,
    cursors::{
        self, PageFacts,
        page::{self, FoundPage},
        version_1,
    },
    damage::DamageKind,
    file_system::{FileSystem, read_around},
    log::io_error,
    segment::{HEADER_LEN, LogIdentity, file_name, is_blank, log_seed, parse_file_name},
    settled::SettledRanges,
    superblock::{self, Superblock},
};

const CURSORS_DIR: &str = "cursors";

/// Whether something in `dir` is a log's.
pub(super) fn exists(fs: &dyn FileSystem, dir: &Path) -> bool {
    let lists = |name: &str| fs.list(&dir.join(name)).is_ok();
    lists(SEGMENTS_DIR) || lists(CURSORS_DIR) || fs.open(&dir.join(superblock::FILE)).is_ok()
}

/// What a file with two copies holds.
struct FoundCopies<T> {
    /// The whole one with the higher generation.
    current: Option<T>,
    copies: Vec<ImageCopy>,
    is_there: bool,
    is_blank: bool,
}

/// Why there is no page of this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoPage {
    Missing,
    NotWhole,
    Foreign,
}

/// The page of the cursors, before and after the segments were listed.
struct FoundPages {
    before: FoundCopies<FoundPage>,
    after: FoundCopies<FoundPage>,
}

impl FoundPages {
    fn identity(&self) -> Option<LogIdentity> {
        self.after.current.as_ref().and_then(|page| page.identity)
    }

    /// What it says of this log, and the cursors.
    fn of_log(self, log: Option<[u8; 16]>) -> Result<(PageFacts, CursorPositions), NoPage> {
        let is_own = |page: &FoundPage| {
            page.identity
                .is_some_and(|identity| log.is_none_or(|log| log == identity.log))
        };
        let page = match self.after.current {
            Some(page) if is_own(&page) => page,
            Some(_) => return Err(NoPage::Foreign),
            None if self.after.is_there => return Err(NoPage::NotWhole),
            None => return Err(NoPage::Missing),
        };
        let mut facts = page.facts;
        if let Some(before) = self.before.current.filter(is_own) {
            facts.last_sequence = before.facts.last_sequence;
            facts.newest_segment = before.facts.newest_segment;
        }
        Ok((facts, page.cursors))
    }
}

/// A directory that is being looked at.
pub(super) struct ImageDirectory<'a> {
    fs: &'a dyn FileSystem,
    dir: &'a Path,
    damage: Vec<ImageDamage>,
    notes: Vec<ImageNote>,
}

impl<'a> ImageDirectory<'a> {
    pub(super) fn read(fs: Arc<dyn FileSystem>, dir: &'a Path) -> Result<LogImage, OpenError> {
        let shared = fs.clone();
        let mut directory = ImageDirectory {
            fs: shared.as_ref(),
            dir,
            damage: Vec::new(),
            notes: Vec::new(),
        };
        let image = directory.look(fs)?;
        Ok(LogImage {
            damage: directory.damage,
            notes: directory.notes,
            ..image
        })
    }

    fn look(&mut self, fs: Arc<dyn FileSystem>) -> Result<LogImage, OpenError> {
        let dir = self.dir;
        // Names what cannot be read where there is nothing at all.
        let names = self.fs.list(dir).map_err(|source| io_error(dir, source))?;
        if !exists(self.fs, dir) {
            let dir = dir.display();
            return Err(OpenError::Format(format!(
                "{dir} is not the directory of a spool: none of superblock, segments and cursors is in it ({} files)",
                names.len()
            )));
        }
        let superblock = self.superblock()?;
        // What the page before tells of is in the list, and what is deleted meanwhile the page after has passed.
        let before = self.page()?;
        let mut files = self.segments()?;
        let pages = FoundPages {
            before,
            after: self.page()?,
        };
        let known = superblock.current.as_ref().map(|superblock| superblock.identity);
        let mut in_segments = files.iter().rev().filter_map(|found| found.identity);
        let in_segments = in_segments.find(|found| known.is_none_or(|known| known.log == found.log));
        let known = known.or(in_segments).or(pages.identity());
        let log = known.map(|identity| identity.log);
        let others = [in_segments, pages.identity()];
        let identity = self.compare_epochs(&superblock, known, others);
        self.judge_superblock(&superblock, known, &files);
        let first_with_identity = match &superblock.current {
            Some(superblock) => superblock.first_with_identity,
            None => {
                let mut own = files.iter().filter(|found| found.identity.is_some());
                own.next().map_or(0, |found| found.file.id)
            }
        };
        let foreign = self.set_apart(&mut files, log, first_with_identity);
        self.find_seeds(&mut files, log)?;
        let had_page = superblock.current.as_ref().is_some_and(|found| found.has_page);
        let page_copies = pages.after.copies.clone();
        let (facts, cursors) = match pages.of_log(log) {
            Ok((facts, cursors)) => (facts, Some(cursors)),
            Err(state) => (
                PageFacts::default(),
                self.earlier_cursors(state, had_page, !files.is_empty())?,
            ),
        };
        Ok(LogImage {
            fs,
            dir: dir.to_owned(),
            superblock: superblock.current,
            superblock_copies: superblock.copies,
            page_copies,
            identity,
            facts,
            cursors: cursors.map(cursors_of),
            segments: files.into_iter().map(|found| found.file).collect(),
            foreign,
            damage: Vec::new(),
            notes: Vec::new(),
        })
    }

    fn add_damage(&mut self, kind: DamageKind, path: &Path, len: u64) {
        self.damage.push(ImageDamage::new(kind, path, 0, len));
    }

    fn note(&mut self, path: &Path, text: &'static str) {
        let note = ImageNote {
            path: path.to_owned(),
            text,
        };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Reads a file of two slots; one that is not there has no copies.
    fn copies<T>(
        &self,
        path: &Path,
        slot_len: usize,
        decode: impl Fn(&[u8]) -> Result<Option<(u64, T)>, OpenError>,
    ) -> Result<FoundCopies<T>, OpenError> {
        let mut found = FoundCopies {
            current: None,
            copies: Vec::new(),
            is_there: false,
            is_blank: true,
        };
        let file = match self.fs.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            opened => opened.map_err(|source| io_error(path, source))?,
        };
        let mut bytes = vec![0; 2 * slot_len];
        let read = read_around(file.as_ref(), 0, &mut bytes, &mut Vec::new());
        bytes.truncate(read.map_err(|source| io_error(path, source))?);
        found.is_there = true;
        found.is_blank = is_blank(&bytes);
        let mut current: Option<(u64, T)> = None;
        for at in 0..2 {
            let slot = bytes.get(at * slot_len..).unwrap_or_default();
            let Some((generation, decoded)) = decode(&slot[..slot.len().min(slot_len)])? else {
                found.copies.push(ImageCopy::NotWhole);
                continue;
            };
            if current.as_ref().is_some_and(|(newer, _)| *newer >= generation) {
                found.copies.push(ImageCopy::Older);
                continue;
            }
            if current.is_some() {
                found.copies[0] = ImageCopy::Older;
            }
            found.copies.push(ImageCopy::Current);
            current = Some((generation, decoded));
        }
        found.current = current.map(|(_, decoded)| decoded);
        Ok(found)
    }

    fn superblock(&mut self) -> Result<FoundCopies<Superblock>, OpenError> {
        let path = self.dir.join(superblock::FILE);
        let found = self.copies(&path, superblock::SLOT_LEN, |slot| match Superblock::decode(slot) {
            Some(Err(what)) => Err(too_new(&path, &what)),
            Some(Ok(superblock)) => Ok(Some((superblock.generation, superblock))),
            None => Ok(None),
        })?;
        if found.current.is_some() && found.copies.contains(&ImageCopy::NotWhole) {
            self.note(&path, "one of the two copies is not whole; the other counts");
        }
        if let Some(superblock) = &found.current {
            let file = self.fs.open(&path).map_err(|source| io_error(&path, source))?;
            let born = file.born().ok().flatten().unwrap_or(0);
            if born != 0 && superblock.born != 0 && born != superblock.born {
                self.note(
                    &path,
                    "the directory is a copy: the file was made at another time than it says",
                );
            }
        }
        Ok(found)
    }

    fn page(&mut self) -> Result<FoundCopies<FoundPage>, OpenError> {
        let path = self.page_path();
        let found = self.copies(&path, cursors::SLOT_LEN, |slot| {
            Ok(page::decode(slot).map(|page| (page.generation, page)))
        })?;
        if found.current.is_some() && found.copies.contains(&ImageCopy::NotWhole) {
            self.note(&path, "one of the two copies is not whole; the other counts");
        }
        Ok(found)
    }

    fn page_path(&self) -> std::path::PathBuf {
        self.dir.join(CURSORS_DIR).join(cursors::FILE)
    }

    /// The identity with the highest epoch. A superblock that is older than what it describes was put back.
    fn compare_epochs(
        &mut self,
        superblock: &FoundCopies<Superblock>,
        known: Option<LogIdentity>,
        others: [Option<LogIdentity>; 2],
    ) -> Option<LogIdentity> {
        let known = known?;
        let own = others.into_iter().flatten().filter(|other| other.log == known.log);
        let epoch = own.map(|other| other.epoch).max().unwrap_or(0);
        if superblock.current.is_some() && epoch > known.epoch {
            self.add_damage(DamageKind::Restored, &self.dir.join(superblock::FILE), 0);
        }
        Some(LogIdentity {
            epoch: epoch.max(known.epoch),
            ..known
        })
    }

    fn judge_superblock(
        &mut self,
        found: &FoundCopies<Superblock>,
        known: Option<LogIdentity>,
        files: &[FoundSegment],
    ) {
        if found.current.is_some() {
            return;
        }
        // It is durable before anything else of the log is there: alone and blank, it was never finished. Version 1 has
        // none.
        let has_damaged = files.iter().any(|found| found.file.version.is_none());
        if known.is_some() || has_damaged || (found.is_there && !found.is_blank) {
            let path = self.dir.join(superblock::FILE);
            let len = if found.is_there { 2 * superblock::SLOT_LEN } else { 0 };
            self.add_damage(DamageKind::Superblock, &path, len as u64);
        }
    }

    /// The segments by id, with what their first blocks say.
    fn segments(&mut self) -> Result<Vec<FoundSegment>, OpenError> {
        let dir = self.dir.join(SEGMENTS_DIR);
        let names = match self.fs.list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(|source| io_error(&dir, source))?,
        };
        let numbers = names.iter().filter_map(|name| parse_file_name(name));
        let mut numbers: Vec<_> = numbers
            .filter(|(id, first)| *first > 0 && *id < NUMBER_MAX && *first < NUMBER_MAX)
            .collect();
        numbers.sort_unstable();
        let mut found = Vec::with_capacity(numbers.len());
        for (id, first_sequence) in numbers {
            let path = dir.join(file_name(id, first_sequence));
            match self.fs.open(&path) {
                // It was deleted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => {
                    let file = opened.map_err(|source| io_error(&path, source))?;
                    found.push(FoundSegment::read(file.as_ref(), id, first_sequence, &path)?);
                }
            }
        }
        Ok(found)
    }

    /// Takes the segments of other logs out of `files`.
    fn set_apart(
        &mut self,
        files: &mut Vec<FoundSegment>,
        log: Option<[u8; 16]>,
        first_with_identity: u64,
    ) -> Vec<SegmentFile> {
        let is_foreign = |found: &FoundSegment| match (found.identity, log) {
            (Some(identity), Some(log)) => identity.log != log,
            (None, _) => found.file.version == Some(1) && log.is_some() && found.file.id >= first_with_identity,
            (Some(_), None) => false,
        };
        let (foreign, own): (Vec<_>, Vec<_>) = std::mem::take(files).into_iter().partition(is_foreign);
        *files = own;
        let foreign: Vec<_> = foreign.into_iter().map(|found| found.file).collect();
        let damage = foreign
            .iter()
            .map(|file| ImageDamage::of_segment(DamageKind::Foreign, file, 0, 0));
        self.damage.extend(damage);
        foreign
    }

    /// Finds with which seed each segment's checksums are right: that of the log and the name, unless what stands in
    /// the segment says otherwise. One that is right with the seed of another log alone is that log's.
    fn find_seeds(&mut self, files: &mut Vec<FoundSegment>, log: Option<[u8; 16]>) -> Result<(), OpenError> {
        let log = log.map(|log| log_seed(&log));
        let mut asked = Vec::new();
        for found in files.iter_mut() {
            found.file.seed.log = match found.file.version {
                Some(1) => 0,
                _ => log.unwrap_or(0),
            };
            let is_certain = found.file.has_own_header && (log.is_some() || found.file.version == Some(1));
            asked.push(match is_certain {
                true => None,
                false => found.find_seed(self.fs, log)?,
            });
        }
        // Where nothing says which log it is, it is that of the most segments.
        let count = |seed: u32| asked.iter().flatten().filter(|asked| asked.log == seed).count();
        let most = asked
            .iter()
            .flatten()
            .map(|seed| seed.log)
            .max_by_key(|seed| count(*seed));
        let log = log.or(most).unwrap_or(0);
        let mut asked = asked.into_iter();
        files.retain_mut(|found| match asked.next().flatten() {
            Some(seed) if seed.log == log || seed.log == 0 => {
                found.file.seed = seed;
                found.rename();
                true
            }
            Some(_) => {
                let damage = ImageDamage::of_segment(DamageKind::Foreign, &found.file, 0, 0);
                self.damage.push(damage);
                false
            }
            None => {
                if found.file.version != Some(1) {
                    found.file.seed.log = log;
                }
                true
            }
        });
        files.sort_by_key(|found| found.file.id);
        Ok(())
    }

    /// The cursors where no page has them: those of version 1, or none because they are lost (`None`) or were never
    /// there.
    fn earlier_cursors(
        &mut self,
        state: NoPage,
        had_page: bool,
        has_segments: bool,
    ) -> Result<Option<CursorPositions>, OpenError> {
        let path = self.page_path();
        if state == NoPage::Foreign {
            self.add_damage(DamageKind::Foreign, &path, 0);
            return Ok(None);
        }
        let dir = self.dir.join(CURSORS_DIR);
        let files = match version_1::read(self.fs, &dir) {
            Err((_, error)) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|(path, source)| io_error(&path, source))?,
        };
        if state == NoPage::NotWhole && (had_page || (has_segments && files.is_empty())) {
            self.add_damage(DamageKind::Cursor, &path, 2 * cursors::SLOT_LEN as u64);
            return Ok(None);
        }
        if had_page {
            self.add_damage(DamageKind::Cursor, &path, 0);
            return Ok(None);
        }
        let mut cursors = BTreeMap::new();
        for file in files {
            match file.position {
                Some(position) => drop(cursors.insert(file.name, (position, SettledRanges::default()))),
                None => self.add_damage(DamageKind::Cursor, &file.path, 0),
            }
        }
        Ok(Some(cursors))
    }
}

/// Where a segment's header stands.
pub(super) const HEADER_BYTES: u64 = HEADER_LEN as u64;
