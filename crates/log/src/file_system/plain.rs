//! Files that are only looked at: opened for reading, so that nothing of a log changes, whoever runs on it.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use rustix::fs::OFlags;

use super::{DirectoryLock, File, FileSystem, ReadOnlyFile, read_only};

/// The operating system's files, without a way to change one.
pub(crate) struct PlainFiles;

impl FileSystem for PlainFiles {
    fn make_dir(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create(&self, _: &Path, _: u64) -> io::Result<Arc<dyn File>> {
        read_only()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        // Whatever has the name of a file of the log, nobody is waited for at its other end.
        let without_waiting = OFlags::NONBLOCK.bits() as i32;
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(without_waiting)
            .open(path)?;
        match file.metadata()?.is_file() {
            true => Ok(Arc::new(ReadOnlyFile(file))),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file")),
        }
    }

    fn unlink(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn random(&self) -> [u8; 16] {
        [0; 16]
    }

    /// Takes the lock on a file that is there, and leaves what it says. Where there is none, nobody holds it.
    fn lock(&self, path: &Path, _: &str) -> io::Result<DirectoryLock> {
        let file = match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DirectoryLock::Taken(Box::new(()))),
            opened => opened?,
        };
        match file.try_lock() {
            Ok(()) => Ok(DirectoryLock::Taken(Box::new(file))),
            Err(fs::TryLockError::WouldBlock) => {
                let mut held = Vec::new();
                file.take(256).read_to_end(&mut held)?;
                Ok(DirectoryLock::Held(String::from_utf8_lossy(&held).trim().to_owned()))
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}
