//! A disk that keeps apart what was written and what was synced, fails when told to, and loses power.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::spool::file_system::{File, FileSystem, Lock};

const SECTOR: usize = 512;

/// A small generator of numbers, the same ones for the same seed.
#[derive(Clone)]
pub(in crate::spool) struct Random(u64);

impl Random {
    pub(in crate::spool) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(in crate::spool) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What happened, by name, so that a run can be asked whether it was worth anything.
pub(super) type Fired = BTreeMap<&'static str, u64>;

/// Which syncs do nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Lies {
    #[default]
    None,
    AboutFiles,
    AboutDirectories,
}

/// How the disk behaves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Behaviour {
    /// Each call fails with this chance, one in so many; 0: never.
    pub fault_one_in: u64,
    /// Power goes at this call, counted from now.
    pub power_loss_in: Option<u64>,
    /// No new space is given out.
    pub full: bool,
    /// What a sync says yes to without doing it: the mutants that the model must find.
    pub lies: Lies,
}

#[derive(Debug, Clone)]
enum Write {
    Bytes { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

#[derive(Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Written since the last sync, and dirty.
    dirty: Vec<Write>,
    /// Places that are not given back, until something is written there.
    bad: Vec<Range<usize>>,
}

struct State {
    random: Random,
    behaviour: Behaviour,
    fired: Fired,
    read_bytes: usize,
    powered: bool,
    /// Handles of an earlier boot are dead.
    boot: u64,
    dirs: BTreeSet<PathBuf>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    contents: Vec<Content>,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub(super) struct FakeDisk {
    state: Arc<Mutex<State>>,
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

impl State {
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

    /// The error of a call during which the power went.
    fn after(&self) -> io::Result<()> {
        match self.powered {
            true => Ok(()),
            false => Err(io::Error::other("no power")),
        }
    }

    fn write(&mut self, file: usize, write: Write) {
        let content = &mut self.contents[file];
        apply(&mut content.live, &write);
        content.dirty.push(write);
    }

    fn sync(&mut self, file: usize) {
        if self.behaviour.lies == Lies::AboutFiles {
            return;
        }
        let content = &mut self.contents[file];
        for write in std::mem::take(&mut content.dirty) {
            apply(&mut content.durable, &write);
        }
    }

    /// What is left of a file: each sector with any number of the dirty writes, the last of them perhaps in part.
    fn tear(&mut self, file: usize) {
        let dirty = std::mem::take(&mut self.contents[file].dirty);
        let mut after = std::mem::take(&mut self.contents[file].durable);
        let lens: Vec<_> = dirty
            .iter()
            .filter_map(|write| match write {
                Write::Len(len) => Some(*len),
                Write::Bytes { .. } => None,
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
            let touching: Vec<_> = dirty
                .iter()
                .filter_map(|write| match write {
                    Write::Bytes { offset, bytes } if *offset < range.end && offset + bytes.len() > range.start => {
                        Some((*offset, bytes))
                    }
                    _ => None,
                })
                .collect();
            if touching.is_empty() {
                continue;
            }
            let kept = self.random.below(touching.len() as u64 + 1) as usize;
            self.fire(if kept < touching.len() {
                "sector lost"
            } else {
                "sector kept"
            });
            for (at, (offset, bytes)) in touching[..kept].iter().enumerate() {
                let start = range.start.max(*offset);
                let mut end = range.end.min(offset + bytes.len());
                if at + 1 == kept && self.random.one_in(4) {
                    end = start + self.random.below((end - start) as u64 + 1) as usize;
                    self.fire("sector torn");
                }
                after[start..end].copy_from_slice(&bytes[start - offset..end - offset]);
            }
        }
        self.contents[file].live.clone_from(&after);
        self.contents[file].durable = after;
    }
}

fn apply(content: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Len(len) => {
            content.truncate(*len);
            content.extend_from_slice(&vec![0; len - content.len()]);
        }
        Write::Bytes { offset, bytes } => {
            let end = offset + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(bytes);
        }
    }
}

impl FakeDisk {
    pub(super) fn new(seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            behaviour: Behaviour::default(),
            fired: Fired::new(),
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

    pub(super) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.lock().behaviour);
    }

    pub(super) fn is_powered(&self) -> bool {
        self.state.lock().powered
    }

    pub(super) fn fired(&self) -> Fired {
        self.state.lock().fired.clone()
    }

    pub(super) fn read_bytes(&self) -> usize {
        self.state.lock().read_bytes
    }

    /// The process is gone, the machine is not.
    pub(super) fn kill_process(&self) {
        let mut state = self.state.lock();
        state.boot += 1;
        state.fire("process killed");
    }

    /// The machine comes up again with whatever the disk had by then.
    pub(super) fn lose_power(&self) {
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

    pub(super) fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.live.get(path).map(|file| state.contents[*file].live.clone())
    }

    /// Puts a file there, durably.
    pub(super) fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        let file = state.contents.len();
        state.contents.push(Content {
            durable: bytes.clone(),
            live: bytes,
            dirty: Vec::new(),
            bad: Vec::new(),
        });
        state.live.insert(path.to_owned(), file);
        state.durable.insert(path.to_owned(), file);
        state.dirs.extend(path.ancestors().skip(1).map(Path::to_owned));
    }

    /// Has the disk not give back a place of a file any more.
    pub(super) fn spoil(&self, path: &Path, place: Range<usize>) {
        let mut state = self.state.lock();
        let file = state.live[path];
        state.contents[file].bad.push(place);
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.state.lock().live.keys().cloned().collect()
    }

    fn handle(&self, file: usize, boot: u64) -> Arc<dyn File> {
        Arc::new(Handle {
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
        state.contents.push(Content::default());
        state.live.insert(path.to_owned(), file);
        if state.behaviour.full {
            state.fire("create without space");
            return Err(enospc());
        }
        if fails {
            return Err(if state.random.one_in(2) { enospc() } else { eio() });
        }
        state.write(file, Write::Len(len as usize));
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
        if state.behaviour.lies == Lies::AboutDirectories {
            return Ok(());
        }
        let inside = |entry: &Path| entry.parent() == Some(path);
        let State { live, durable, .. } = &mut *state;
        durable.retain(|entry, _| !inside(entry));
        durable.extend(
            live.iter()
                .filter(|(entry, _)| inside(entry))
                .map(|(entry, file)| (entry.clone(), *file)),
        );
        Ok(())
    }

    fn lock(&self, _path: &Path, _holder: &str) -> io::Result<Lock> {
        Ok(Lock::Taken(Box::new(())))
    }
}

struct Handle {
    disk: FakeDisk,
    file: usize,
    boot: u64,
}

impl Handle {
    fn state(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.disk.state.lock();
        match state.boot == self.boot {
            true => Ok(state),
            false => Err(io::Error::other("a handle from before the restart")),
        }
    }
}

impl File for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.contents[self.file].live.len() as u64)
    }

    fn pread(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state()?;
        if state.call("read failed")? {
            return Err(enomem());
        }
        state.after()?;
        let content = &state.contents[self.file];
        let place = offset as usize..offset as usize + buffer.len();
        if content
            .bad
            .iter()
            .any(|bad| bad.start < place.end && bad.end > place.start)
        {
            state.fire("unreadable sector met");
            return Err(unreadable());
        }
        let content = &content.live;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        state.read_bytes += read;
        Ok(read)
    }

    fn pwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let fails = state.call("write failed")?;
        let mut bytes = bytes.to_vec();
        if fails {
            let part = state.random.below(bytes.len() as u64 + 1) as usize;
            bytes.truncate(part);
        }
        let offset = offset as usize;
        state.write(self.file, Write::Bytes { offset, bytes });
        if fails {
            return Err(if state.random.one_in(2) { enospc() } else { eio() });
        }
        state.after()
    }

    /// A sync that fails leaves the pages clean: what they hold is read, and never written.
    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        if state.call("sync failed")? {
            let kept = state.random.below(3);
            let dirty = std::mem::take(&mut state.contents[self.file].dirty);
            for write in dirty.iter().take(kept as usize) {
                apply(&mut state.contents[self.file].durable, write);
            }
            return Err(if state.random.one_in(4) { enospc() } else { eio() });
        }
        state.after()?;
        state.sync(self.file);
        Ok(())
    }

    fn forget_cached(&self) -> io::Result<bool> {
        let mut state = self.state()?;
        if state.random.one_in(2) {
            return Ok(false);
        }
        if state.call("forgetting failed")? {
            return Err(eio());
        }
        state.after()?;
        state.sync(self.file);
        let content = &mut state.contents[self.file];
        content.dirty.clear();
        content.live.clone_from(&content.durable);
        Ok(true)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        if state.call("truncate failed")? {
            return Err(eio());
        }
        state.write(self.file, Write::Len(len as usize));
        state.after()
    }
}
