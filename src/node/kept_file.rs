//! Small files beside the spool that must be whole or not there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::spool::is_full;

/// The same as [`write`], where something is only lost that can do without: on a disk without room, or that is
/// read-only, it warns.
pub(super) fn write_if_there_is_room(path: &Path, content: &[u8]) -> io::Result<()> {
    match write(path, content) {
        Err(error) if is_full(&error) => {
            tracing::warn!(path = %path.display(), %error, "no room to write what is only looked at when the spool starts");
            Ok(())
        }
        result => result,
    }
}

/// Replaces the file at `path`, durably: a crash leaves the old content or the new one. Only the user of the process
/// can read it.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    // What a crash left may have been made with another mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
