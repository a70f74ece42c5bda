//! A disk that keeps apart what was written and what was synced, fails when told to, and loses power.

mod handle;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use self::handle::FakeFile;
use super::Random;
use crate::file_system::{DirectoryLock, File, FileSystem};

const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// What happened, by name, so that a run can be asked whether it was worth anything.
pub type FiredFaults = BTreeMap<&'static str, u64>;

/// Which syncs do nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskLies {
    #[default]
    None,
    AboutFiles,
    AboutDirectories,
}

/// How the disk behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskBehaviour {
    /// Each call fails with this chance, one in so many; 0: never.
    pub fault_one_in: u64,
    /// Power goes at this call, counted from now.
    pub power_loss_in: Option<u64>,
    /// This sync of a file fails, counted from now.
    pub sync_failure_in: Option<u64>,
    /// No new space is given out.
    pub full: bool,
    /// Nothing is made or written; the error's number.
    pub short_of: Option<i32>,
    /// A sector is written as a whole, or not at all.
    pub whole_sectors: bool,
    /// What a sync says yes to without doing it: the mutants that the model must find.
    pub lies: DiskLies,
}

#[derive(Debug, Clone)]
enum UnsyncedWrite {
    Bytes { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

/// A file: what is in memory, and what is on the disk.
#[derive(Default, Clone)]
struct FileContent {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Written since the last sync, and dirty.
    dirty: Vec<UnsyncedWrite>,
    /// Pages whose blocks hold something.
    written: BTreeSet<usize>,
    /// Pages whose first write failed: for the disk their blocks were never written, while memory takes them for
    /// written. What is written there again, and synced with success, is gone once memory forgets it: ext4 is like
    /// that.
    void: BTreeSet<usize>,
    /// Places that are not given back.
    bad: Vec<Range<usize>>,
}

impl FileContent {
    /// A file whose content is on the disk.
    fn from_bytes(bytes: Vec<u8>) -> Self {
        Self {
            written: (0..bytes.len().div_ceil(PAGE)).collect(),
            durable: bytes.clone(),
            live: bytes,
            ..Self::default()
        }
    }

    /// The disk takes a write.
    fn store(&mut self, write: &UnsyncedWrite) {
        match write {
            UnsyncedWrite::Len(len) => {
                let pages = len.div_ceil(PAGE);
                self.written.retain(|page| *page < pages);
                self.void.retain(|page| *page < pages);
                apply(&mut self.durable, write);
            }
            UnsyncedWrite::Bytes { offset, bytes } => {
                let end = offset + bytes.len();
                if self.durable.len() < end {
                    self.durable.resize(end, 0);
                }
                for page in pages(*offset, bytes.len()).filter(|page| !self.void.contains(page)) {
                    let part = part_of(page, *offset, bytes.len());
                    self.durable[part.clone()].copy_from_slice(&bytes[part.start - offset..part.end - offset]);
                    self.written.insert(page);
                }
            }
        }
    }

    /// The disk did not take a page, which is clean in memory all the same; whether its blocks were never written.
    fn lose(&mut self, page: usize) -> bool {
        !self.written.contains(&page) && self.void.insert(page)
    }

    /// What is clean is read from the disk again.
    fn forget(&mut self) {
        self.void.clear();
        self.live.clone_from(&self.durable);
        for write in &self.dirty {
            apply(&mut self.live, write);
        }
    }
}

fn pages(offset: usize, len: usize) -> Range<usize> {
    offset / PAGE..(offset + len).div_ceil(PAGE)
}

/// What of `len` bytes at `offset` is in a page.
fn part_of(page: usize, offset: usize, len: usize) -> Range<usize> {
    (page * PAGE).max(offset)..((page + 1) * PAGE).min(offset + len)
}

#[derive(Clone)]
struct DiskState {
    random: Random,
    behaviour: DiskBehaviour,
    fired: FiredFaults,
    read_bytes: usize,
    powered: bool,
    /// The system can be made to forget what it has in memory.
    forgets: bool,
    /// Handles of an earlier boot are dead.
    boot: u64,
    dirs: BTreeSet<PathBuf>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    contents: Vec<FileContent>,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct FakeDisk {
    state: Arc<Mutex<DiskState>>,
}

fn eio() -> io::Error {
    io::Error::other("injected EIO")
}

/// Short of memory: it may pass with the next call.
fn enomem() -> io::Error {
    io::Error::from_raw_os_error(12)
}

/// A sector that the disk does not give back.
fn unreadable() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn enospc() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl DiskState {
    fn fire(&mut self, what: &'static str) {
        *self.fired.entry(what).or_default() += 1;
    }

    /// Counts a call; whether it is to fail.
    fn call(&mut self, what: &'static str) -> io::Result<bool> {
        if !self.powered {
            return Err(io::Error::other("no power"));
        }
        if let Some(left) = &mut self.behaviour.power_loss_in {
            if *left == 0 {
                self.powered = false;
            } else {
                *left -= 1;
            }
        }
        let one_in = self.behaviour.fault_one_in;
        let fails = self.powered && one_in > 0 && self.random.one_in(one_in);
        if fails {
            self.fire(what);
        }
        Ok(fails)
    }

    /// Counts a sync of a file; whether it is to fail.
    fn sync_call(&mut self) -> io::Result<bool> {
        let mut fails = self.call("sync failed")?;
        if let Some(left) = self.behaviour.sync_failure_in {
            self.behaviour.sync_failure_in = left.checked_sub(1);
            if left == 0 {
                self.fire("sync failed");
                fails = true;
            }
        }
        Ok(fails)
    }

    /// The error of a call during which the power went.
    fn after(&self) -> io::Result<()> {
        match self.powered {
            true => Ok(()),
            false => Err(io::Error::other("no power")),
        }
    }

    fn write(&mut self, file: usize, write: UnsyncedWrite) {
        let content = &mut self.contents[file];
        apply(&mut content.live, &write);
        content.dirty.push(write);
    }

    fn sync(&mut self, file: usize) {
        if self.behaviour.lies == DiskLies::AboutFiles {
            return;
        }
        let content = &mut self.contents[file];
        for write in std::mem::take(&mut content.dirty) {
            content.store(&write);
        }
    }

    /// Of what is dirty the disk takes some pages, and all of it is clean.
    fn fail_sync(&mut self, file: usize) {
        let content = &mut self.contents[file];
        let mut taken = BTreeMap::new();
        for write in std::mem::take(&mut content.dirty) {
            let UnsyncedWrite::Bytes { offset, bytes } = write else {
                if self.random.one_in(2) {
                    content.store(&write);
                }
                continue;
            };
            for page in pages(offset, bytes.len()) {
                let part = part_of(page, offset, bytes.len());
                let write = UnsyncedWrite::Bytes {
                    offset: part.start,
                    bytes: bytes[part.start - offset..part.end - offset].to_vec(),
                };
                if *taken.entry(page).or_insert_with(|| self.random.one_in(2)) {
                    content.store(&write);
                } else if self.forgets && content.lose(page) {
                    *self.fired.entry("page in memory alone").or_default() += 1;
                }
            }
        }
    }

    /// What is left of a file: each sector with any number of the dirty writes, the last of them perhaps in part.
    fn tear(&mut self, file: usize) {
        let dirty = std::mem::take(&mut self.contents[file].dirty);
        let mut after = std::mem::take(&mut self.contents[file].durable);
        let lens: Vec<_> = dirty
            .iter()
            .filter_map(|write| match write {
                UnsyncedWrite::Len(len) => Some(*len),
                UnsyncedWrite::Bytes { .. } => None,
            })
            .collect();
        let chosen = self.random.below(lens.len() as u64 + 1) as usize;
        if chosen > 0 {
            after.resize(lens[chosen - 1], 0);
        }
        if chosen < lens.len() {
            self.fire("length lost");
        }
        let sectors = after.len().div_ceil(SECTOR);
        for sector in 0..sectors {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(after.len());
            if self.contents[file].void.contains(&(range.start / PAGE)) {
                continue;
            }
            let touching: Vec<_> = dirty
                .iter()
                .filter_map(|write| match write {
                    UnsyncedWrite::Bytes { offset, bytes }
                        if *offset < range.end && offset + bytes.len() > range.start =>
                    {
                        Some((*offset, bytes))
                    }
                    _ => None,
                })
                .collect();
            if touching.is_empty() {
                continue;
            }
            let kept = self.random.below(touching.len() as u64 + 1) as usize;
            if kept > 0 {
                self.contents[file].written.insert(range.start / PAGE);
            }
            self.fire(if kept < touching.len() {
                "sector lost"
            } else {
                "sector kept"
            });
            for (at, (offset, bytes)) in touching[..kept].iter().enumerate() {
                let start = range.start.max(*offset);
                let mut end = range.end.min(offset + bytes.len());
                if at + 1 == kept && !self.behaviour.whole_sectors && self.random.one_in(4) {
                    end = start + self.random.below((end - start) as u64 + 1) as usize;
                    self.fire("sector torn");
                }
                after[start..end].copy_from_slice(&bytes[start - offset..end - offset]);
            }
        }
        let content = &mut self.contents[file];
        content.durable = after;
        content.forget();
    }
}

fn apply(content: &mut Vec<u8>, write: &UnsyncedWrite) {
    match write {
        UnsyncedWrite::Len(len) => {
            content.truncate(*len);
            content.extend_from_slice(&vec![0; len - content.len()]);
        }
        UnsyncedWrite::Bytes { offset, bytes } => {
            let end = offset + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(bytes);
        }
    }
}

impl FakeDisk {
    pub fn new(seed: u64) -> Self {
        let state = DiskState {
            forgets: Random::new(!seed).one_in(2),
            random: Random::new(seed),
            behaviour: DiskBehaviour::default(),
            fired: FiredFaults::new(),
            read_bytes: 0,
            powered: true,
            boot: 0,
            dirs: BTreeSet::new(),
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            contents: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub fn behave(&self, change: impl FnOnce(&mut DiskBehaviour)) {
        change(&mut self.state.lock().behaviour);
    }

    pub fn is_powered(&self) -> bool {
        self.state.lock().powered
    }

    pub fn fired(&self) -> FiredFaults {
        self.state.lock().fired.clone()
    }

    pub fn read_bytes(&self) -> usize {
        self.state.lock().read_bytes
    }

    /// The process is gone, the machine is not: memory still has the files, or not.
    pub fn kill_process(&self) {
        let mut state = self.state.lock();
        state.boot += 1;
        state.fire("process killed");
        if state.random.one_in(4) {
            state.fire("pages evicted");
            state.contents.iter_mut().for_each(FileContent::forget);
        }
    }

    /// The machine comes up again with whatever the disk had by then.
    pub fn lose_power(&self) {
        let state = &mut *self.state.lock();
        state.fire("power lost");
        state.boot += 1;
        state.powered = true;
        state.behaviour.power_loss_in = None;
        let paths: BTreeSet<_> = state.live.keys().chain(state.durable.keys()).cloned().collect();
        for path in paths {
            let (live, durable) = (state.live.get(&path).copied(), state.durable.get(&path).copied());
            if live == durable {
                continue;
            }
            let left = if state.random.one_in(2) { live } else { durable };
            if left == durable {
                state.fire(if live.is_some() {
                    "new entry lost"
                } else {
                    "unlink lost"
                });
            }
            match left {
                Some(file) => state.live.insert(path, file),
                None => state.live.remove(&path),
            };
        }
        state.durable.clone_from(&state.live);
        for file in 0..state.contents.len() {
            state.tear(file);
        }
    }

    /// Another disk that is now as this one.
    pub fn fork(&self) -> Self {
        let state = self.state.lock().clone();
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.live.get(path).map(|file| state.contents[*file].live.clone())
    }

    /// Puts a file there, durably.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        let file = state.contents.len();
        state.contents.push(FileContent::from_bytes(bytes));
        state.live.insert(path.to_owned(), file);
        state.durable.insert(path.to_owned(), file);
        state.dirs.extend(path.ancestors().skip(1).map(Path::to_owned));
    }

    /// Has the disk not give back a place of a file any more.
    pub fn spoil(&self, path: &Path, place: Range<usize>) {
        let mut state = self.state.lock();
        let file = state.live[path];
        state.contents[file].bad.push(place);
    }

    /// Changes what is on the disk, behind everybody's back.
    pub fn corrupt(&self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        let file = state.live[path];
        change(&mut state.contents[file].live);
        change(&mut state.contents[file].durable);
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.state.lock().live.keys().cloned().collect()
    }

    fn handle(&self, file: usize, boot: u64) -> Arc<dyn File> {
        Arc::new(FakeFile {
            disk: self.clone(),
            file,
            boot,
        })
    }
}

impl FileSystem for FakeDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.state.lock().dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let inside = state.live.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside
            .map(|path| path.file_name().expect("a file").to_string_lossy().into_owned())
            .collect())
    }

    fn create(&self, path: &Path, len: u64) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        let fails = state.call("create failed")?;
        if state.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.contents.len();
        state.contents.push(FileContent::default());
        state.live.insert(path.to_owned(), file);
        if let Some(errno) = state.behaviour.short_of {
            state.fire("create with something used up");
            return Err(io::Error::from_raw_os_error(errno));
        }
        if state.behaviour.full {
            state.fire("create without space");
            return Err(enospc());
        }
        if fails {
            return Err(if state.random.one_in(2) { enospc() } else { eio() });
        }
        state.write(file, UnsyncedWrite::Len(len as usize));
        state.after()?;
        let boot = state.boot;
        drop(state);
        Ok(self.handle(file, boot))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        if state.call("open failed")? {
            return Err(eio());
        }
        let file = *state.live.get(path).ok_or(io::ErrorKind::NotFound)?;
        let boot = state.boot;
        drop(state);
        Ok(self.handle(file, boot))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.call("unlink failed")? {
            return Err(eio());
        }
        state.live.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.after()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.call("directory sync failed")? {
            return Err(eio());
        }
        state.after()?;
        if state.behaviour.lies == DiskLies::AboutDirectories {
            return Ok(());
        }
        let inside = |entry: &Path| entry.parent() == Some(path);
        let DiskState { live, durable, .. } = &mut *state;
        durable.retain(|entry, _| !inside(entry));
        durable.extend(
            live.iter()
                .filter(|(entry, _)| inside(entry))
                .map(|(entry, file)| (entry.clone(), *file)),
        );
        Ok(())
    }

    fn random(&self) -> [u8; 16] {
        let mut state = self.state.lock();
        let (a, b) = (state.random.number(), state.random.number());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&a.to_le_bytes());
        bytes[8..].copy_from_slice(&b.to_le_bytes());
        bytes
    }

    fn lock(&self, _path: &Path, _holder: &str) -> io::Result<DirectoryLock> {
        Ok(DirectoryLock::Taken(Box::new(())))
    }
}
