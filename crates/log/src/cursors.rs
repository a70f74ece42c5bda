//! The cursors on disk: all of them on one page, with two slots written in turn, so that a torn write leaves the other.
//!
//! The page is written off the appends' way, by a thread of its own. It also holds what is known to be durable, and
//! which segments there are to be: what a start then finds missing was lost.

use std::{
    collections::BTreeMap,
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    file_system::{File, FileSystem, is_passing, open_as_on_disk, read_around},
    segment::LogIdentity,
    settled::SettledRanges,
    shared::LogShared,
};

pub(super) mod page;
mod state;
pub(super) mod version_1;

use self::page::{FoundPage, POSITION_MAX, decode, encode};
pub(super) use self::page::{PageFacts, SLOT_LEN};
pub(super) use self::state::CursorState;

/// The longest name of a cursor, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 80;
/// Cursors of one log: with the longest names they take half a slot, and the rest is for ranges.
pub(super) const CURSORS_MAX: usize = 256;
/// Ranges that are kept durably for one cursor. What is settled beyond them is published again after a crash.
pub(super) const SETTLED_RANGES_MAX: usize = 1 << 17;
pub(super) const FILE: &str = "page";

struct CursorEntry {
    state: Arc<CursorState>,
    /// Where a crash leaves it. `None` until a page that was found is written again: it may be in memory alone, after a
    /// sync that failed.
    durable: Option<u64>,
    is_on_page: bool,
}

/// The file, and what was last written to it.
struct CursorPage {
    file: Option<Arc<dyn File>>,
    generation: u64,
    /// The newest slot that was found. It may be in memory alone, after a sync that failed: it is written once more
    /// before the other is given up.
    found: Option<Vec<u8>>,
    /// What the newest slot holds behind its generation.
    written: Vec<u8>,
    /// Files of version 1, which the page replaces once it is durable.
    replaced: Vec<PathBuf>,
}

/// All cursors of a log.
pub(super) struct LogCursors {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    path: PathBuf,
    identity: LogIdentity,
    /// The superblock is durable: before, nobody could know whose page this is.
    may_write: AtomicBool,
    entries: Mutex<BTreeMap<String, CursorEntry>>,
    page: Mutex<CursorPage>,
    /// The first segment that must be there, as the page on disk has it; all may go where there is no page.
    oldest_on_page: AtomicU64,
}

/// An error with the file it is about.
pub(super) type PathError = (PathBuf, io::Error);

/// What was found where the cursors should be.
pub(super) struct CursorsFound {
    pub path: PathBuf,
    page: FoundPage,
    slot: Option<Vec<u8>>,
    file: Option<Arc<dyn File>>,
    /// Of version 1.
    files: Vec<version_1::CursorFile>,
    pub damage: Option<CursorDamage>,
}

/// What is wrong with the cursors' page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CursorDamage {
    /// Neither slot is whole.
    Damaged,
    /// It is of another log.
    Foreign,
}

impl CursorsFound {
    /// Reads the cursors in `dir`. `log`: the log that they must belong to, where it is known.
    pub(super) fn read(fs: &dyn FileSystem, dir: &Path, log: Option<[u8; 16]>) -> Result<Self, PathError> {
        let path = dir.join(FILE);
        let mut found = Self {
            path: path.clone(),
            page: FoundPage::default(),
            slot: None,
            file: None,
            files: version_1::read(fs, dir)?,
            damage: None,
        };
        let file = match open_as_on_disk(fs, &path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err((path, error)),
        };
        let mut bytes = vec![0; 2 * SLOT_LEN];
        let read = read_around(file.as_ref(), 0, &mut bytes, &mut Vec::new()).map_err(|error| (path.clone(), error))?;
        found.file = Some(file);
        let slots = bytes[..read].chunks(SLOT_LEN);
        let pages = slots.filter_map(|slot| Some((decode(slot)?, slot)));
        let newest = pages.max_by_key(|(page, _)| page.generation);
        found.slot = newest.as_ref().map(|(_, slot)| slot.to_vec());
        match newest.map(|(page, _)| page) {
            None => found.damage = Some(CursorDamage::Damaged),
            Some(page) if log.is_some_and(|log| page.identity.is_some_and(|identity| identity.log != log)) => {
                // Its generation is kept, so that what is written next counts.
                found.page.generation = page.generation;
                found.damage = Some(CursorDamage::Foreign);
            }
            Some(page) => found.page = page,
        }
        Ok(found)
    }

    /// Which log the page belongs to.
    pub(super) fn identity(&self) -> Option<LogIdentity> {
        self.page.identity
    }

    /// What the page holds beside the cursors; `None` without a page that is whole.
    pub(super) fn facts(&self) -> Option<PageFacts> {
        self.page.identity.map(|_| self.page.facts)
    }

    /// The files of version 1 in which nothing is whole.
    pub(super) fn damaged_files(&self) -> impl Iterator<Item = &Path> {
        let is_current = self.page.identity.is_none();
        let damaged = self
            .files
            .iter()
            .filter(move |file| is_current && file.position.is_none());
        damaged.map(|file| file.path.as_path())
    }
}

impl LogCursors {
    /// The cursors as they were found. One without a position starts at `oldest`, the position before the oldest
    /// record.
    pub(super) fn new(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        identity: LogIdentity,
        found: CursorsFound,
        oldest: u64,
    ) -> Self {
        let mut entries = BTreeMap::new();
        let mut add = |name: String, position: u64, settled: SettledRanges, durable: Option<u64>| {
            let state = CursorState::new(position, settled);
            let entry = CursorEntry {
                state,
                durable,
                is_on_page: false,
            };
            entries.insert(name, entry);
        };
        if found.page.identity.is_none() {
            for file in &found.files {
                let position = file.position.unwrap_or(oldest);
                add(file.name.clone(), position, SettledRanges::default(), Some(position));
            }
        }
        let oldest_on_page = found
            .page
            .identity
            .map_or(u64::MAX, |_| found.page.facts.oldest_segment);
        for (name, (position, settled)) in found.page.cursors {
            add(name, position, settled, None);
        }
        Self {
            fs,
            dir,
            path: found.path,
            identity,
            may_write: AtomicBool::new(false),
            entries: Mutex::new(entries),
            page: Mutex::new(CursorPage {
                file: found.file,
                generation: found.page.generation,
                found: found.slot,
                written: Vec::new(),
                replaced: found.files.into_iter().map(|file| file.path).collect(),
            }),
            oldest_on_page: AtomicU64::new(oldest_on_page),
        }
    }

    /// From here on the page is written.
    pub(super) fn allow_writing(&self) {
        self.may_write.store(true, Ordering::Release);
    }

    /// What some cursor has not settled, as ranges that rise; `None` where none has settled anything behind a gap.
    pub(super) fn unsettled(&self) -> Option<Vec<RangeInclusive<u64>>> {
        let entries = self.entries.lock();
        let snapshots: Vec<_> = entries.values().map(|entry| entry.state.snapshot()).collect();
        drop(entries);
        if snapshots.iter().all(|(_, settled)| settled.is_empty()) {
            return None;
        }
        let mut unsettled = Vec::new();
        for (position, settled) in snapshots {
            let mut next = position + 1;
            for range in settled {
                unsettled.push((next, range.start() - 1));
                next = range.end() + 1;
            }
            unsettled.push((next, u64::MAX));
        }
        unsettled.sort_unstable();
        let mut merged: Vec<RangeInclusive<u64>> = Vec::new();
        for (first, last) in unsettled {
            match merged.last_mut() {
                Some(before) if first <= before.end().saturating_add(1) => {
                    *before = *before.start()..=last.max(*before.end());
                }
                _ => merged.push(first..=last),
            }
        }
        Some(merged)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.entries.lock().keys().cloned().collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<CursorState>> {
        self.entries.lock().get(name).map(|entry| entry.state.clone())
    }

    /// The highest position that any cursor was ever seen at.
    pub(super) fn highest(&self) -> u64 {
        let entries = self.entries.lock();
        let positions = entries
            .values()
            .map(|entry| entry.state.position.load(Ordering::Acquire));
        positions.max().unwrap_or(0)
    }

    /// Everything up to here is behind every cursor, durably. `None` without cursors, or while that is not known:
    /// nothing may go.
    pub(super) fn lowest_durable(&self) -> Option<u64> {
        let entries = self.entries.lock();
        entries.values().map(|entry| entry.durable).min().flatten()
    }

    /// The first segment that a start would miss.
    pub(super) fn oldest_on_page(&self) -> u64 {
        self.oldest_on_page.load(Ordering::Acquire)
    }

    /// Makes a cursor, durably, unless the disk has no room: then it is durable once there is some.
    pub(super) fn create(&self, name: &str, position: u64, shared: &LogShared) -> Result<Arc<CursorState>, PathError> {
        let state = CursorState::new(position, SettledRanges::default());
        let entry = CursorEntry {
            state: state.clone(),
            durable: Some(position),
            is_on_page: false,
        };
        self.entries.lock().insert(name.to_owned(), entry);
        let synced = self.sync(shared);
        synced.inspect_err(|_| drop(self.entries.lock().remove(name)))?;
        Ok(state)
    }

    pub(super) fn remove(&self, name: &str, shared: &LogShared) -> Result<(), PathError> {
        let removed = self.entries.lock().remove(name);
        match removed {
            Some(_) => self.sync(shared),
            None => Ok(()),
        }
    }

    /// Whether the page was made durable in this life.
    pub(super) fn has_written(&self) -> bool {
        !self.page.lock().written.is_empty()
    }

    /// Whether the page has what the cursors are at.
    pub(super) fn is_written(&self, shared: &LogShared) -> bool {
        self.page.lock().written == self.snapshot(shared).2
    }

    #[cfg(test)]
    pub(super) fn is_on_page(&self, name: &str) -> bool {
        self.entries.lock().get(name).is_some_and(|entry| entry.is_on_page)
    }

    pub(super) fn has_room(&self) -> bool {
        self.entries.lock().len() < CURSORS_MAX
    }

    /// Makes durable what changed. A full disk is no error: it is tried again.
    pub(super) fn sync(&self, shared: &LogShared) -> Result<(), PathError> {
        if !self.may_write.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut page = self.page.lock();
        let (positions, facts, body) = self.snapshot(shared);
        if page.written == body && page.replaced.is_empty() {
            return Ok(());
        }
        let result = self.write(&mut page, &body);
        match result {
            Ok(()) => {}
            Err(error) if is_passing(&error) => {
                tracing::warn!(path = %self.path.display(), %error, "cursors not written, will be tried again");
                return Ok(());
            }
            Err(error) => return Err((self.path.clone(), error)),
        }
        page.written = body;
        self.oldest_on_page.store(facts.oldest_segment, Ordering::Release);
        let mut entries = self.entries.lock();
        for (name, position) in positions {
            if let Some(entry) = entries.get_mut(&name) {
                entry.durable = Some(position);
                entry.is_on_page = true;
            }
        }
        Ok(())
    }

    /// Each cursor's position, what the page says of the segments, which is not older than the positions, and the page
    /// behind its generation.
    fn snapshot(&self, shared: &LogShared) -> (Vec<(String, u64)>, PageFacts, Vec<u8>) {
        let entries = self.entries.lock();
        let cursors: Vec<_> = entries
            .iter()
            .map(|(name, entry)| (name.as_str(), entry.state.snapshot()))
            .collect();
        let lowest = cursors.iter().map(|(_, (position, _))| *position).min();
        let facts = shared.facts(lowest);
        let body = encode(&self.identity, &facts, &cursors);
        let positions = cursors
            .iter()
            .map(|(name, (position, _))| ((*name).to_owned(), *position))
            .collect();
        (positions, facts, body)
    }

    fn write(&self, page: &mut CursorPage, body: &[u8]) -> io::Result<()> {
        if let (Some(found), Some(file)) = (&page.found, &page.file) {
            file.pwrite(slot_offset(page.generation), found)?;
            file.sync_data().map_err(io::Error::other)?;
            page.found = None;
        }
        let generation = page.generation + 1;
        let slot = page::slot(generation, body);
        let file = match &page.file {
            Some(file) => file.clone(),
            None => {
                let file = self.fs.create(&self.path, 2 * SLOT_LEN as u64).inspect_err(|_| {
                    // What is left of it would be read as damage.
                    let _ = self.fs.unlink(&self.path);
                })?;
                file.pwrite(slot_offset(generation + 1), &slot)?;
                page.file = Some(file.clone());
                file
            }
        };
        file.pwrite(slot_offset(generation), &slot)?;
        // A full disk is known before the sync.
        file.sync_data().map_err(io::Error::other)?;
        page.generation = generation;
        if page.written.is_empty() {
            self.fs.sync_dir(&self.dir).map_err(io::Error::other)?;
        }
        if !page.replaced.is_empty() {
            for path in page.replaced.drain(..) {
                match self.fs.unlink(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound && !is_passing(&error) => return Err(error),
                    _ => {}
                }
            }
            self.fs.sync_dir(&self.dir).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// Whether a cursor may be called so.
pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
}

pub(super) fn slot_offset(generation: u64) -> u64 {
    generation % 2 * SLOT_LEN as u64
}
