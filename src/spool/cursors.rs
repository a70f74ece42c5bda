//! The cursors on disk: one small file each, two slots written in turn, so that a torn write leaves the other.

use std::{
    collections::BTreeMap,
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    file_system::{File, FileSystem, is_full},
    settled::SettledRanges,
};

const SLOT_LEN: usize = 512;
const MAGIC: [u8; 8] = *b"FBAYCURS";
const VERSION: u32 = 1;
const NAME_AT: usize = 36;
/// The longest name of a cursor, in bytes: escaped, it is a file name.
pub(super) const NAME_BYTES_MAX: usize = 80;
const SUFFIX: &str = ".cursor";
/// No log gets there: a position beyond it is not one.
const POSITION_MAX: u64 = 1 << 62;

/// A cursor, shared by its handles and the writer.
pub(super) struct CursorState {
    /// The low mark: all up to here is settled.
    pub position: AtomicU64,
    /// What is settled above it.
    settled: Mutex<SettledRanges>,
}

impl CursorState {
    pub(super) fn at(position: u64) -> Arc<Self> {
        Arc::new(Self {
            position: AtomicU64::new(position),
            settled: Mutex::default(),
        })
    }

    pub(super) fn settle(&self, numbers: RangeInclusive<u64>) {
        let mut settled = self.settled.lock();
        let position = settled.settle(self.position.load(Ordering::Acquire), numbers);
        self.position.fetch_max(position, Ordering::AcqRel);
    }

    pub(super) fn settled(&self) -> Vec<RangeInclusive<u64>> {
        self.settled.lock().iter().collect()
    }
}

struct Entry {
    state: Arc<CursorState>,
    path: PathBuf,
    file: Arc<dyn File>,
    generation: u64,
    durable: u64,
}

/// All cursors of a spool. Only the writer writes them.
pub(super) struct Cursors {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    entries: BTreeMap<String, Entry>,
}

/// A cursor whose file said nothing that is whole.
pub(super) struct Damaged {
    pub path: PathBuf,
}

/// An error with the file it is about.
pub(super) type PathError = (PathBuf, io::Error);

impl Cursors {
    /// Reads the cursors in `dir`. One without a valid slot is reset to `oldest`, the position before the oldest record.
    pub(super) fn open(fs: Arc<dyn FileSystem>, dir: PathBuf, oldest: u64) -> Result<(Self, Vec<Damaged>), PathError> {
        let mut names = fs.list(&dir).map_err(|error| (dir.clone(), error))?;
        names.sort();
        let mut cursors = Self {
            fs,
            dir,
            entries: BTreeMap::new(),
        };
        let mut damaged = Vec::new();
        for file_name in names {
            let Some(name) = file_name
                .strip_suffix(SUFFIX)
                .and_then(unescape)
                .filter(|name| is_name(name))
            else {
                continue;
            };
            let path = cursors.dir.join(&file_name);
            let (entry, whole) =
                read(cursors.fs.as_ref(), &path, &name, oldest).map_err(|error| (path.clone(), error))?;
            if !whole {
                damaged.push(Damaged { path });
            }
            cursors.entries.insert(name, entry);
        }
        cursors
            .fs
            .sync_dir(&cursors.dir)
            .map_err(|error| (cursors.dir.clone(), error))?;
        Ok((cursors, damaged))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<CursorState>> {
        self.entries.get(name).map(|entry| entry.state.clone())
    }

    /// The highest position that any cursor was ever seen at.
    pub(super) fn highest(&self) -> u64 {
        self.entries.values().map(|entry| entry.durable).max().unwrap_or(0)
    }

    /// Everything up to here is behind every cursor, durably. `None` without cursors: nothing may go.
    pub(super) fn lowest_durable(&self) -> Option<u64> {
        self.entries.values().map(|entry| entry.durable).min()
    }

    /// Makes a cursor, durably.
    pub(super) fn create(&mut self, name: &str, position: u64) -> Result<Arc<CursorState>, PathError> {
        let path = self.path(name);
        let made = self.create_file(&path, name, position);
        let file = made.map_err(|error| {
            // What is left of it would be read as a damaged cursor, which keeps everything.
            let _ = self.fs.unlink(&path);
            (path.clone(), error)
        })?;
        let state = CursorState::at(position);
        self.entries.insert(
            name.to_owned(),
            Entry {
                state: state.clone(),
                path,
                file,
                generation: 1,
                durable: position,
            },
        );
        Ok(state)
    }

    fn create_file(&self, path: &Path, name: &str, position: u64) -> io::Result<Arc<dyn File>> {
        let file = self.fs.create(path, 2 * SLOT_LEN as u64)?;
        for generation in 0..2 {
            file.pwrite(slot_offset(generation), &encode(name, generation, position))?;
        }
        file.sync_data()?;
        self.fs.sync_dir(&self.dir)?;
        Ok(file)
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<(), PathError> {
        if let Some(entry) = self.entries.get(name) {
            let path = entry.path.clone();
            self.fs.unlink(&path).map_err(|error| (path.clone(), error))?;
            self.entries.remove(name);
            self.fs.sync_dir(&self.dir).map_err(|error| (self.dir.clone(), error))?;
        }
        Ok(())
    }

    /// Makes the positions that changed durable. A full disk is no error: they are tried again.
    pub(super) fn sync(&mut self) -> Result<(), PathError> {
        for (name, entry) in &mut self.entries {
            let position = entry.state.position.load(Ordering::Acquire);
            if position == entry.durable {
                continue;
            }
            let generation = entry.generation + 1;
            match entry
                .file
                .pwrite(slot_offset(generation), &encode(name, generation, position))
            {
                Err(error) if is_full(&error) => {
                    tracing::warn!(path = %entry.path.display(), %error, "cursor not written, will be tried again");
                    continue;
                }
                result => result.map_err(|error| (entry.path.clone(), error))?,
            }
            entry.file.sync_data().map_err(|error| (entry.path.clone(), error))?;
            entry.generation = generation;
            entry.durable = position;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(escape(name) + SUFFIX)
    }
}

/// Whether a cursor may be called so.
pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
}

/// Opens a cursor's file; the second is whether a slot of it was whole.
fn read(fs: &dyn FileSystem, path: &Path, name: &str, oldest: u64) -> io::Result<(Entry, bool)> {
    let file = fs.open(path)?;
    let mut bytes = [0; 2 * SLOT_LEN];
    let read = file.pread(0, &mut bytes)?;
    let newest = bytes[..read]
        .chunks_exact(SLOT_LEN)
        .filter_map(|slot| decode(slot, name))
        .max();
    let (generation, position) = newest.unwrap_or((0, oldest));
    let entry = Entry {
        state: CursorState::at(position),
        path: path.to_owned(),
        file,
        generation,
        durable: position,
    };
    Ok((entry, newest.is_some()))
}

fn slot_offset(generation: u64) -> u64 {
    generation % 2 * SLOT_LEN as u64
}

fn encode(name: &str, generation: u64, position: u64) -> [u8; SLOT_LEN] {
    let mut slot = [0; SLOT_LEN];
    slot[0..8].copy_from_slice(&MAGIC);
    slot[8..12].copy_from_slice(&VERSION.to_le_bytes());
    slot[16..24].copy_from_slice(&generation.to_le_bytes());
    slot[24..32].copy_from_slice(&position.to_le_bytes());
    slot[32..36].copy_from_slice(&(name.len() as u32).to_le_bytes());
    slot[NAME_AT..NAME_AT + name.len()].copy_from_slice(name.as_bytes());
    let crc = crc32c::crc32c(&slot[..SLOT_LEN - 4]);
    slot[SLOT_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
    slot
}

/// The generation and the position in a slot, if it is whole and the cursor's own.
fn decode(slot: &[u8], name: &str) -> Option<(u64, u64)> {
    let number = |at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().expect("eight bytes"));
    let (fields, crc) = slot.split_at(SLOT_LEN - 4);
    let expected = encode(name, number(16), number(24));
    let valid = fields == &expected[..SLOT_LEN - 4] && crc == &expected[SLOT_LEN - 4..];
    (valid && number(24) <= POSITION_MAX).then(|| (number(16), number(24)))
}

/// A name as a file name: letters, digits, `-` and `_` stay, every other byte becomes `%xx`.
fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => escaped.push(byte as char),
            _ => escaped += &format!("%{byte:02x}"),
        }
    }
    escaped
}

fn unescape(file_name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = file_name.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
