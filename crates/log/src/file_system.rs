//! The file system calls of the spool, behind one trait, so that tests can tear writes, fail an fsync and fill the
//! disk.

mod plain;

use std::{
    collections::HashMap,
    fs,
    hash::{BuildHasher, RandomState},
    io,
    io::{Read, Seek, Write},
    ops::Range,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::io::Errno;

pub(super) use self::plain::PlainFiles;

/// What is made is for the user of the process alone: records hold the bodies as they came.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// What the spool asks of a file system.
pub(super) trait FileSystem: Send + Sync {
    /// Makes a directory and its parents, durably. It may exist.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// The names of the files in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a file of `len` zeros whose space is allocated. It must not exist.
    fn create(&self, path: &Path, len: u64) -> io::Result<Arc<dyn File>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Makes what was created and unlinked in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes that are never the same.
    fn random(&self) -> [u8; 16];
    /// Takes the lock file at `path`, or tells who holds it.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<DirectoryLock>;
}

/// An open file.
pub(super) trait File: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// Reads until the buffer is full or the file ends; returns how much.
    fn pread(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of it.
    fn pwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the content and the length durable.
    fn sync_data(&self) -> io::Result<()>;
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Gives the space of some pages back; they read as zeros. An error of the kind `Unsupported` says that the file
    /// system cannot do it.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// What the file takes on disk.
    fn allocated(&self) -> io::Result<u64> {
        self.len()
    }
    /// When the file was made, in nanoseconds, where the file system keeps that: a copy is another file.
    fn born(&self) -> io::Result<Option<u64>>;
    /// Has the next read come from the disk, where the system can be made to forget what it has in memory; whether it
    /// was.
    ///
    /// After a failed sync memory shows what the disk does not have, and on ext4 the same pages, written again and
    /// synced with success, are gone at the next mount all the same: their blocks count as never written.
    fn forget_cached(&self) -> io::Result<bool> {
        Ok(false)
    }
}

/// Opens a file that the process before may have left with a sync that failed: what is read then is what the disk has,
/// where the system can be made to forget what it has in memory.
pub(super) fn open_as_on_disk(fs: &dyn FileSystem, path: &Path) -> io::Result<Arc<dyn File>> {
    let file = fs.open(path)?;
    file.forget_cached()?;
    Ok(file)
}

/// The result of taking a lock.
pub(super) enum DirectoryLock {
    /// Held until this is dropped.
    Taken(Box<dyn Send>),
    /// Held by another process, as it described itself.
    Held(String),
}

/// Whether an error says that there is no space, or none that may be written, which passes when somebody makes some.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn is_read_only(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ReadOnlyFilesystem
}

fn is_one_of(error: &io::Error, errors: &[Errno]) -> bool {
    let code = error.raw_os_error();
    errors.iter().any(|errno| code == Some(errno.raw_os_error()))
}

/// Whether an error says that the process or the system is short of descriptors or memory: nothing is known about the
/// disk.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS])
}

/// Whether an error says that something is used up, of the disk or of the process, which passes.
pub(super) fn is_passing(error: &io::Error) -> bool {
    is_full(error) || is_exhausted(error)
}

/// Whether a read that failed so says that the bytes cannot be had from the disk, which is damage like any other.
pub(super) fn is_unreadable(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::IO, Errno::NODATA, Errno::ILSEQ, Errno::BADMSG])
        || (cfg!(target_os = "linux") && matches!(error.raw_os_error(), Some(EUCLEAN | EREMOTEIO)))
}

/// What Linux answers for a structure of the file system, or a remote disk, that is damaged.
const EUCLEAN: i32 = 117;
const EREMOTEIO: i32 = 121;

/// The unit in which a disk loses what it cannot give back, as far as reading around it goes.
pub(super) const PAGE_BYTES: u64 = 4096;

/// Reads until the buffer is full or the file ends, and returns how much. What the disk does not give back stays zero,
/// and is added to `unreadable`, as places in the file.
pub(super) fn read_around(
    file: &dyn File,
    offset: u64,
    buffer: &mut [u8],
    unreadable: &mut Vec<Range<u64>>,
) -> io::Result<usize> {
    match file.pread(offset, buffer) {
        Err(error) if is_unreadable(&error) => {}
        result => return result,
    }
    let end = (offset + buffer.len() as u64).min(file.len()?.max(offset));
    let mut at = offset;
    while at < end {
        let next = ((at / PAGE_BYTES + 1) * PAGE_BYTES).min(end);
        let page = &mut buffer[(at - offset) as usize..(next - offset) as usize];
        match file.pread(at, page) {
            Ok(read) if read < page.len() => return Ok((at - offset) as usize + read),
            Ok(_) => {}
            Err(error) if is_unreadable(&error) => {
                page.fill(0);
                match unreadable.last_mut() {
                    Some(before) if before.end == at => before.end = next,
                    _ => unreadable.push(at..next),
                }
            }
            Err(error) => return Err(error),
        }
        at = next;
    }
    Ok((end - offset) as usize)
}

/// The operating system's.
pub(super) struct RealFileSystem {
    /// Directories that were synced before: a sync must not fail for want of a descriptor.
    dirs: Mutex<HashMap<PathBuf, fs::File>>,
    /// Descriptors that are kept for files of the log, for when the process has no other left.
    spare: Mutex<Vec<fs::File>>,
    spares_max: usize,
}

impl RealFileSystem {
    pub(super) fn with_spares(spares_max: usize) -> Self {
        let file_system = Self {
            dirs: Mutex::default(),
            spare: Mutex::default(),
            spares_max,
        };
        file_system.refill();
        file_system
    }

    /// Opens a file, with a spare descriptor where there is no other.
    fn open_with_spare<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match open() {
                // One is given back, and taken by what is opened next, here or elsewhere.
                Err(error) if is_exhausted(&error) && self.spare.lock().pop().is_some() => {}
                Ok(opened) => {
                    self.refill();
                    return Ok(opened);
                }
                failed => return failed,
            }
        }
    }

    /// Takes back spare descriptors, as far as there are any.
    fn refill(&self) {
        let mut spare = self.spare.lock();
        while spare.len() < self.spares_max {
            let Ok(file) = fs::File::open("/dev/null") else { return };
            spare.push(file);
        }
    }
}

impl FileSystem for RealFileSystem {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.make_dir(parent)?;
        }
        match fs::DirBuilder::new().mode(DIR_MODE).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => self.sync_dir(Path::new(".")),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create(&self, path: &Path, len: u64) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(FILE_MODE);
        let file = self.open_with_spare(|| options.open(path))?;
        allocate(&file, len)?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true);
        match self.open_with_spare(|| options.open(path)) {
            Err(error) if is_read_only(&error) => {
                let file = self.open_with_spare(|| fs::File::open(path))?;
                Ok(Arc::new(ReadOnlyFile(file)))
            }
            opened => Ok(Arc::new(opened?)),
        }
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut dirs = self.dirs.lock();
        if let Some(dir) = dirs.get(path) {
            return dir.sync_all();
        }
        let dir = self.open_with_spare(|| fs::File::open(path))?;
        dirs.entry(path.to_owned()).or_insert(dir).sync_all()
    }

    fn random(&self) -> [u8; 16] {
        // Each is keyed by the system's own random bytes.
        let half = || RandomState::new().hash_one(std::time::SystemTime::UNIX_EPOCH.elapsed().ok());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&half().to_le_bytes());
        bytes[8..].copy_from_slice(&half().to_le_bytes());
        bytes
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<DirectoryLock> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path);
        let mut file = match file {
            // The lock is not in what the file holds. Where there is no file, nobody else can write either.
            Err(error) if is_read_only(&error) => match fs::File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DirectoryLock::Taken(Box::new(()))),
                opened => opened?,
            },
            opened => opened?,
        };
        match file.try_lock() {
            Ok(()) => {
                // The name is for people: a full disk must not keep the spool from draining. One that is shorter than
                // the last is filled up.
                let _ = file.set_len(0);
                let left = file.metadata()?.len() as usize;
                file.rewind()?;
                let _ = file.write_all(format!("{holder:left$}").as_bytes());
                Ok(DirectoryLock::Taken(Box::new(file)))
            }
            Err(fs::TryLockError::WouldBlock) => {
                let mut held = String::new();
                file.take(256).read_to_string(&mut held)?;
                Ok(DirectoryLock::Held(held.trim().to_owned()))
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &fs::File, len: u64) -> io::Result<()> {
    use rustix::{
        fs::{FallocateFlags, fallocate},
        io::Errno,
    };
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, len) {
            Err(Errno::INTR) => {}
            // A file system without the call: written zeros take their space as well.
            Err(Errno::OPNOTSUPP) => return write_zeros(file, len),
            result => return Ok(result?),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &fs::File, len: u64) -> io::Result<()> {
    write_zeros(file, len)
}

fn write_zeros(file: &fs::File, len: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < len {
        let part = zeros.len().min((len - offset) as usize);
        file.write_all_at(&zeros[..part], offset)?;
        offset += part as u64;
    }
    Ok(())
}

impl File for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn pread(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn pwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        fs::File::sync_data(self)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    #[cfg(target_os = "linux")]
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        use rustix::{
            fs::{FallocateFlags, fallocate},
            io::Errno,
        };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        loop {
            match fallocate(self, flags, offset, len) {
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Err(io::ErrorKind::Unsupported.into()),
                result => return Ok(result?),
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocated(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let meta = self.metadata()?;
        // Some file systems tell it late.
        Ok(match meta.blocks() * 512 {
            0 => meta.len(),
            bytes => bytes.min(meta.len()),
        })
    }

    fn born(&self) -> io::Result<Option<u64>> {
        let since = self.metadata()?.created().ok();
        let since = since.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(since.and_then(|since| u64::try_from(since.as_nanos()).ok()))
    }

    #[cfg(target_os = "linux")]
    fn forget_cached(&self) -> io::Result<bool> {
        // Only what is clean can be forgotten.
        fs::File::sync_data(self)?;
        match rustix::fs::fadvise(self, 0, None, rustix::fs::Advice::DontNeed) {
            // Advice is not understood everywhere.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(false),
            result => Ok(result.map(|()| true)?),
        }
    }
}

/// A file of a file system that is mounted read-only.
struct ReadOnlyFile(fs::File);

fn read_only<T>() -> io::Result<T> {
    Err(Errno::ROFS.into())
}

impl File for ReadOnlyFile {
    fn len(&self) -> io::Result<u64> {
        File::len(&self.0)
    }

    fn pread(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.pread(offset, buffer)
    }

    fn pwrite(&self, _: u64, _: &[u8]) -> io::Result<()> {
        read_only()
    }

    /// Nothing was written.
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        read_only()
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        read_only()
    }

    fn allocated(&self) -> io::Result<u64> {
        self.0.allocated()
    }

    fn born(&self) -> io::Result<Option<u64>> {
        self.0.born()
    }

    /// What is in memory came from the disk.
    fn forget_cached(&self) -> io::Result<bool> {
        Ok(true)
    }
}
