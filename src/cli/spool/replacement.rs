//! A whole spool beside a damaged one, and how it takes its place.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, lchown, symlink},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use super::logs::{LogContent, ReadStop, SpoolLog};
use crate::{
    event::Time,
    spool::{ImageDepth, ImageStep, LogRewrite, OpenError, RewrittenLog},
};

/// What a log's directory has that is written anew.
const LOG_FILES: [&str; 5] = ["superblock", "segments", "cursors", "index", "LOCK"];

/// The directory that is to take the place of a damaged one.
pub struct SpoolReplacement {
    /// The damaged one.
    dir: PathBuf,
    /// While it is written: of no use.
    new: PathBuf,
    /// Once it is whole.
    whole: PathBuf,
    /// Where the damaged one is afterwards.
    pub original: PathBuf,
}

/// What was saved of one log.
pub struct SavedLog {
    pub content: LogContent,
    pub rewritten: RewrittenLog,
}

fn path_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        source,
    }
}

impl SpoolReplacement {
    /// Names for what comes beside `dir`, at this time.
    pub fn beside(dir: &Path) -> Self {
        let digits = |c: &char| c.is_ascii_digit() || *c == 'T';
        let time: String = Time::now().to_rfc3339().chars().take(19).filter(digits).collect();
        let named = |what: &str| {
            let mut name = dir.as_os_str().to_owned();
            name.push(format!(".{what}-{time}Z"));
            PathBuf::from(name)
        };
        Self {
            dir: dir.to_owned(),
            new: named("repairing"),
            whole: named("repaired"),
            original: named("damaged"),
        }
    }

    /// What an interruption leaves, and what to do then.
    pub fn announcement(&self) -> String {
        format!(
            "writing a whole spool beside it, to {new}; the damaged one is kept as {original}\n\
             should this be interrupted: {dir} is as it was, or repaired, and `forebay spool verify {dir}` tells which; {new} is \
             of no use then, remove it; should {dir} be missing, rename {whole} to it",
            new = self.new.display(),
            whole = self.whole.display(),
            original = self.original.display(),
            dir = self.dir.display(),
        )
    }

    /// Writes all that can be read, durably; nothing is left of it where that fails.
    pub fn write(&self, logs: &[SpoolLog], mut passed: impl FnMut(u64)) -> Result<Vec<SavedLog>, OpenError> {
        let written = self.write_all(logs, &mut passed);
        if written.is_err() {
            let _ = fs::remove_dir_all(&self.new);
        }
        written
    }

    fn write_all(&self, logs: &[SpoolLog], passed: &mut impl FnMut(u64)) -> Result<Vec<SavedLog>, OpenError> {
        let mut saved = Vec::new();
        for log in logs {
            saved.push(SavedLog {
                content: log.content,
                rewritten: self.write_log(log, passed)?,
            });
        }
        let within: BTreeSet<&Path> = logs.iter().map(|log| log.within.as_path()).collect();
        self.copy_rest(Path::new(""), &within)?;
        let owner = fs::metadata(&self.dir).map_err(|source| path_error(&self.dir, source))?;
        finish_tree(&self.new, owner.uid(), owner.gid())?;
        fs::rename(&self.new, &self.whole).map_err(|source| path_error(&self.new, source))?;
        self.sync_parent()?;
        Ok(saved)
    }

    fn write_log(&self, log: &SpoolLog, passed: &mut impl FnMut(u64)) -> Result<RewrittenLog, OpenError> {
        let mut rewrite = LogRewrite::create(&log.image, &self.new.join(&log.within))?;
        let read = log.image.read(ImageDepth::Copied, |step| match step {
            ImageStep::Passed(bytes) => {
                passed(bytes);
                Ok(())
            }
            ImageStep::Record(record) => {
                let bytes = record.bytes.as_deref().unwrap_or_default();
                rewrite
                    .append(record.sequence, record.class, bytes)
                    .map_err(ReadStop::Failed)
            }
        });
        match read {
            Err(ReadStop::Failed(error)) => Err(error),
            Err(ReadStop::Unwritten(source)) => Err(path_error(&self.new, source)),
            Ok(_) => rewrite.finish(),
        }
    }

    /// Copies what is not written anew: names, quarantine, whatever else is there.
    fn copy_rest(&self, within: &Path, logs: &BTreeSet<&Path>) -> Result<(), OpenError> {
        let from = self.dir.join(within);
        let failed = |source: io::Error| path_error(&from, source);
        for entry in fs::read_dir(&from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if logs.contains(within) && LOG_FILES.iter().any(|file| OsStr::new(file) == name) {
                continue;
            }
            let below = within.join(&name);
            self.copy(&entry, &below, logs)?;
        }
        Ok(())
    }

    fn copy(&self, entry: &fs::DirEntry, below: &Path, logs: &BTreeSet<&Path>) -> Result<(), OpenError> {
        let (from, to) = (entry.path(), self.new.join(below));
        let failed = |source: io::Error| path_error(&from, source);
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            match fs::create_dir(&to) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(path_error(&to, error)),
                _ => {}
            }
            let permissions = entry.metadata().map_err(failed)?.permissions();
            fs::set_permissions(&to, permissions).map_err(|source| path_error(&to, source))?;
            return self.copy_rest(below, logs);
        }
        if kind.is_symlink() {
            let target = fs::read_link(&from).map_err(failed)?;
            return symlink(target, &to).map_err(|source| path_error(&to, source));
        }
        if !kind.is_file() {
            tracing::warn!(path = %from.display(), "neither a file nor a directory: left where it is");
            return Ok(());
        }
        match fs::copy(&from, &to) {
            Ok(_) => Ok(()),
            // The disk does not give it back; it is not one of those that the spool is made of.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                tracing::warn!(path = %from.display(), %error, "it cannot be read, and is left where it is");
                let _ = fs::remove_file(&to);
                Ok(())
            }
            Err(error) => Err(path_error(&to, error)),
        }
    }

    /// Puts the new directory in the place of the damaged one. Until it is done the damaged one is there, or the new
    /// one, under the name.
    pub fn swap(&self) -> Result<(), OpenError> {
        match self.exchange() {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.rename_twice()?,
            exchanged => exchanged.map_err(|error| path_error(&self.dir, error.into()))?,
        }
        self.sync_parent()
    }

    /// At once, under the name that the damaged one is to have.
    #[cfg(target_os = "linux")]
    fn exchange(&self) -> Result<(), Errno> {
        // Both are whole here, whatever their names say.
        renameat_with(CWD, &self.whole, CWD, &self.original, RenameFlags::NOREPLACE)?;
        let exchanged = renameat_with(CWD, &self.original, CWD, &self.dir, RenameFlags::EXCHANGE);
        if exchanged.is_err() {
            renameat_with(CWD, &self.original, CWD, &self.whole, RenameFlags::NOREPLACE)?;
        }
        exchanged
    }

    #[cfg(not(target_os = "linux"))]
    fn exchange(&self) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    /// Where the file system cannot exchange: there is a moment without the directory.
    fn rename_twice(&self) -> Result<(), OpenError> {
        fs::rename(&self.dir, &self.original).map_err(|source| path_error(&self.dir, source))?;
        fs::rename(&self.whole, &self.dir).map_err(|source| path_error(&self.whole, source))
    }

    fn sync_parent(&self) -> Result<(), OpenError> {
        let parent = self.dir.parent().unwrap_or(Path::new("/"));
        let synced = File::open(parent).and_then(|dir| dir.sync_all());
        synced.map_err(|source| path_error(parent, source))
    }
}

/// Gives all of a tree to its owner, and makes it durable.
fn finish_tree(path: &Path, uid: u32, gid: u32) -> Result<(), OpenError> {
    let failed = |source: io::Error| path_error(path, source);
    let meta = fs::symlink_metadata(path).map_err(failed)?;
    if (meta.uid(), meta.gid()) != (uid, gid) {
        lchown(path, Some(uid), Some(gid)).map_err(failed)?;
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(failed)? {
            finish_tree(&entry.map_err(failed)?.path(), uid, gid)?;
        }
    }
    if meta.is_dir() || meta.is_file() {
        File::open(path).and_then(|file| file.sync_all()).map_err(failed)?;
    }
    Ok(())
}
