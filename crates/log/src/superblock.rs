//! Which log a directory holds, written twice: a copy that is torn leaves the other.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    OpenError,
    file_system::{File, FileSystem, is_passing, open_as_on_disk, read_around},
    log::io_error,
    segment::{FEATURES, LogIdentity, VERSION},
};

const MAGIC: [u8; 8] = *b"FBAYSUPR";
pub(super) const SLOT_LEN: usize = 4096;
const REPLICA_AT: usize = 104;
/// The longest name of a replica that is kept, in bytes.
const REPLICA_BYTES_MAX: usize = 255;
pub(super) const FILE: &str = "superblock";

/// What a superblock holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    pub generation: u64,
    pub identity: LogIdentity,
    /// What the last life left behind, if it ended in order.
    pub clean: Option<CleanStop>,
    /// The first segment that was made with an identity. Those before it are of version 1.
    pub first_with_identity: u64,
    /// The page of the cursors was made durable in a life that ended in order. Before, one that is not whole was
    /// perhaps never finished.
    pub has_page: bool,
    /// When the file was made, as the file system has it; 0 where it has not.
    pub born: u64,
    pub replica: String,
}

/// What the log held when it was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CleanStop {
    /// The number of the newest record; 0 when there was never one.
    pub last_sequence: u64,
    /// The id that the next segment would have had.
    pub next_segment: u64,
}

impl Superblock {
    fn encode(&self) -> [u8; SLOT_LEN] {
        let mut slot = [0; SLOT_LEN];
        let mut put = |at: usize, bytes: &[u8]| slot[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &FEATURES.to_le_bytes());
        put(16, &self.generation.to_le_bytes());
        put(24, &self.identity.log);
        put(40, &self.identity.epoch.to_le_bytes());
        put(48, &u64::from(self.clean.is_some()).to_le_bytes());
        let clean = self.clean.unwrap_or(CleanStop {
            last_sequence: 0,
            next_segment: 0,
        });
        put(56, &clean.last_sequence.to_le_bytes());
        put(64, &clean.next_segment.to_le_bytes());
        put(72, &self.first_with_identity.to_le_bytes());
        put(80, &self.born.to_le_bytes());
        put(88, &u64::from(self.has_page).to_le_bytes());
        let replica = &self.replica.as_bytes()[..self.replica.len().min(REPLICA_BYTES_MAX)];
        put(96, &(replica.len() as u64).to_le_bytes());
        put(REPLICA_AT, replica);
        let crc = crc32c::crc32c(&slot[..SLOT_LEN - 4]);
        slot[SLOT_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    /// What a slot holds; `None` when it is not whole.
    pub(super) fn decode(slot: &[u8]) -> Option<Result<Self, String>> {
        let number = |at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().expect("eight bytes"));
        let half = |at: usize| u32::from_le_bytes(slot[at..at + 4].try_into().expect("four bytes"));
        if slot.len() < SLOT_LEN || slot[..8] != MAGIC || crc32c::crc32c(&slot[..SLOT_LEN - 4]) != half(SLOT_LEN - 4) {
            return None;
        }
        if half(8) != VERSION {
            return Some(Err(format!("format version {}, this build reads {VERSION}", half(8))));
        }
        if half(12) & !FEATURES != 0 {
            return Some(Err(format!(
                "features {:#x}, which this build does not know",
                half(12) & !FEATURES
            )));
        }
        let replica_len = (number(96) as usize).min(REPLICA_BYTES_MAX);
        Some(Ok(Self {
            generation: number(16),
            identity: LogIdentity {
                log: slot[24..40].try_into().expect("sixteen bytes"),
                epoch: number(40),
            },
            clean: (number(48) != 0).then(|| CleanStop {
                last_sequence: number(56),
                next_segment: number(64),
            }),
            first_with_identity: number(72),
            born: number(80),
            has_page: number(88) != 0,
            replica: String::from_utf8_lossy(&slot[REPLICA_AT..REPLICA_AT + replica_len]).into_owned(),
        }))
    }
}

/// What was found where a superblock should be.
pub(super) enum SuperblockFound {
    Whole(Superblock),
    /// There is a file, and neither copy in it is whole.
    Damaged,
    Missing,
}

/// The file of the superblock.
pub(super) struct SuperblockFile {
    path: PathBuf,
    dir: PathBuf,
    file: Option<Arc<dyn File>>,
    /// The newest copy that was found, and where. It may be in memory alone, after a sync that failed: it is written
    /// once more before the other copy is given up.
    found: Option<(u64, Vec<u8>)>,
    /// This life has written it.
    is_durable: bool,
    lacks_room: bool,
}

impl SuperblockFile {
    /// Reads the superblock of the log in `dir`.
    pub(super) fn read(fs: &dyn FileSystem, dir: &Path) -> Result<(Self, SuperblockFound), OpenError> {
        let path = dir.join(FILE);
        let mut superblock = Self {
            path: path.clone(),
            dir: dir.to_owned(),
            file: None,
            found: None,
            is_durable: false,
            lacks_room: false,
        };
        let file = match open_as_on_disk(fs, &path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((superblock, SuperblockFound::Missing)),
            Err(error) => return Err(io_error(&path, error)),
        };
        let mut bytes = vec![0; 2 * SLOT_LEN];
        let read =
            read_around(file.as_ref(), 0, &mut bytes, &mut Vec::new()).map_err(|error| io_error(&path, error))?;
        superblock.file = Some(file);
        let mut newest: Option<Superblock> = None;
        for (at, slot) in bytes[..read].chunks_exact(SLOT_LEN).enumerate() {
            match Superblock::decode(slot) {
                Some(Err(what)) => {
                    let path = path.display();
                    return Err(OpenError::Format(format!(
                        "{path} has {what}: use the release that wrote it"
                    )));
                }
                Some(Ok(found))
                    if newest
                        .as_ref()
                        .is_none_or(|newest| newest.generation < found.generation) =>
                {
                    newest = Some(found);
                    superblock.found = Some(((at * SLOT_LEN) as u64, slot.to_vec()));
                }
                _ => {}
            }
        }
        Ok((
            superblock,
            newest.map_or(SuperblockFound::Damaged, SuperblockFound::Whole),
        ))
    }

    /// Whether it is on the disk for certain.
    pub(super) fn is_durable(&self) -> bool {
        self.is_durable
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// When the file was made, where the file system knows.
    pub(super) fn born(&self) -> u64 {
        let born = self.file.as_ref().map(|file| file.born());
        born.and_then(Result::ok).flatten().unwrap_or(0)
    }

    /// Writes the next copy, durably. `false`: there is no room for it.
    pub(super) fn write(&mut self, fs: &dyn FileSystem, superblock: &mut Superblock) -> io::Result<bool> {
        match self.try_write(fs, superblock) {
            Err(error) if is_passing(&error) => {
                // Once, not with every try until there is room.
                if !std::mem::replace(&mut self.lacks_room, true) {
                    tracing::warn!(path = %self.path.display(), %error, "no room for the superblock");
                }
                Ok(false)
            }
            result => result.map(|()| true),
        }
    }

    fn try_write(&mut self, fs: &dyn FileSystem, superblock: &mut Superblock) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                let file = fs.create(&self.path, 2 * SLOT_LEN as u64).inspect_err(|_| {
                    // What is left of it would be read as a damaged one.
                    let _ = fs.unlink(&self.path);
                })?;
                // Both copies, so that a later one that is torn leaves one.
                superblock.born = file.born()?.unwrap_or(0);
                file.pwrite(slot_offset(superblock.generation), &superblock.encode())?;
                self.file = Some(file.clone());
                file
            }
        };
        if let Some((offset, slot)) = &self.found {
            file.pwrite(*offset, slot)?;
            file.sync_data().map_err(io::Error::other)?;
            self.found = None;
        }
        superblock.generation += 1;
        file.pwrite(slot_offset(superblock.generation), &superblock.encode())?;
        // A full disk is known before the sync.
        file.sync_data().map_err(io::Error::other)?;
        fs.sync_dir(&self.dir).map_err(io::Error::other)?;
        self.is_durable = true;
        Ok(())
    }
}

fn slot_offset(generation: u64) -> u64 {
    generation % 2 * SLOT_LEN as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded_and_damage_is_not() {
        let superblock = Superblock {
            generation: 7,
            identity: LogIdentity {
                log: *b"sixteen bytes...",
                epoch: 3,
            },
            clean: Some(CleanStop {
                last_sequence: 42,
                next_segment: 5,
            }),
            first_with_identity: 2,
            born: 99,
            has_page: true,
            replica: "forebay-0".into(),
        };
        let slot = superblock.encode();
        assert_eq!(Superblock::decode(&slot), Some(Ok(superblock)));
        for at in 0..SLOT_LEN {
            let mut damaged = slot;
            damaged[at] ^= 4;
            assert_eq!(Superblock::decode(&damaged), None, "byte {at}");
        }
        let mut newer = slot;
        newer[12] = 1;
        let crc = crc32c::crc32c(&newer[..SLOT_LEN - 4]);
        newer[SLOT_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(Superblock::decode(&newer), Some(Err(what)) if what.contains("features 0x1")));
    }
}
