//! The cursors of version 1: one small file each, with two slots. They are read once, and replaced by the page.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{NAME_BYTES_MAX, POSITION_MAX, PathError, is_name};
use crate::{
    file_name::unescape,
    file_system::{FileSystem, read_around},
};

const SLOT_LEN: usize = 512;
const MAGIC: [u8; 8] = *b"FBAYCURS";
const VERSION: u32 = 1;
const NAME_AT: usize = 36;
const SUFFIX: &str = ".cursor";

/// One cursor's file.
pub(crate) struct CursorFile {
    pub name: String,
    pub path: PathBuf,
    /// `None` when no slot is whole.
    pub position: Option<u64>,
}

/// The files in `dir`, by name.
pub(crate) fn read(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<CursorFile>, PathError> {
    let mut names = fs.list(dir).map_err(|error| (dir.to_owned(), error))?;
    names.sort();
    let mut files = Vec::new();
    for file_name in names {
        let name = file_name.strip_suffix(SUFFIX).and_then(unescape);
        if let Some(name) = name.filter(|name| is_name(name)) {
            let path = dir.join(&file_name);
            let position = position(fs, &path, &name).map_err(|error| (path.clone(), error))?;
            files.push(CursorFile { name, path, position });
        }
    }
    Ok(files)
}

fn position(fs: &dyn FileSystem, path: &Path, name: &str) -> io::Result<Option<u64>> {
    let mut bytes = [0; 2 * SLOT_LEN];
    let read = read_around(fs.open(path)?.as_ref(), 0, &mut bytes, &mut Vec::new())?;
    let slots = bytes[..read].chunks_exact(SLOT_LEN);
    let newest = slots.filter_map(|slot| decode(slot, name)).max();
    Ok(newest.map(|(_, position)| position))
}

/// The generation and the position in a slot, if it is whole and the cursor's own.
fn decode(slot: &[u8], name: &str) -> Option<(u64, u64)> {
    let number = |at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().expect("eight bytes"));
    let half = |at: usize| u32::from_le_bytes(slot[at..at + 4].try_into().expect("four bytes"));
    let len = half(32) as usize;
    let valid = crc32c::crc32c(&slot[..SLOT_LEN - 4]) == half(SLOT_LEN - 4)
        && slot[..8] == MAGIC
        && half(8) == VERSION
        && len <= NAME_BYTES_MAX
        && slot[NAME_AT..NAME_AT + len] == *name.as_bytes()
        && number(24) <= POSITION_MAX;
    valid.then(|| (number(16), number(24)))
}
