//! Where damaged bytes are set aside, for people to look at, within a bound.

use std::{io, path::PathBuf, sync::Arc};

use super::{
    damage::DamagedPlace,
    file_system::{FileSystem, read_around},
    sizes::ReadSizes,
};

/// All that is set aside stays below this.
const BYTES_MAX: u64 = 64 << 20;
const FILES_MAX: usize = 1000;

/// The folder of what was damaged.
pub(super) struct Quarantine {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    bytes: u64,
    files: usize,
}

impl Quarantine {
    pub(super) fn open(fs: Arc<dyn FileSystem>, dir: PathBuf) -> Self {
        let names = fs.list(&dir).unwrap_or_default();
        let len = |name: &String| fs.open(&dir.join(name)).and_then(|file| file.len()).unwrap_or(0);
        Self {
            bytes: names.iter().map(len).sum(),
            files: names.len(),
            fs,
            dir,
        }
    }

    /// Copies the bytes. That it did not work is said and is no failure of the spool: the original stays until its
    /// segment goes.
    pub(super) fn copy_aside(&mut self, damage: &DamagedPlace) {
        let name = format!("{:016x}-{}-{}.bad", damage.segment, damage.offset, damage.len);
        let path = self.dir.join(name);
        match self.copy(damage, &path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "damaged bytes not set aside"),
        }
    }

    fn copy(&mut self, damage: &DamagedPlace, path: &std::path::Path) -> io::Result<()> {
        if self.files >= FILES_MAX || self.bytes + damage.len > BYTES_MAX {
            return Err(io::Error::other("the quarantine is full"));
        }
        let from = self.fs.open(&damage.path)?;
        let len = damage.len.min(from.len()?.saturating_sub(damage.offset));
        let to = self.fs.create(path, len)?;
        self.files += 1;
        self.bytes += len;
        let mut buffer = vec![0; ReadSizes::now().chunk_bytes.min(len as usize)];
        let mut done = 0;
        while done < len {
            let part = buffer.len().min((len - done) as usize);
            // What the disk does not give back is zeros in the copy.
            let read = read_around(
                from.as_ref(),
                damage.offset + done,
                &mut buffer[..part],
                &mut Vec::new(),
            )?;
            if read == 0 {
                break;
            }
            to.pwrite(done, &buffer[..read])?;
            done += read as u64;
        }
        to.sync_data()?;
        self.fs.sync_dir(&self.dir)
    }
}
