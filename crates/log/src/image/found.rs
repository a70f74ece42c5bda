//! A segment's file, as far as its name, its first block and its checksums tell.

use std::{io, path::Path};

use super::SegmentFile;
use crate::{
    OpenError,
    file_system::{File, FileSystem, read_around},
    log::io_error,
    recovery::first_block,
    segment::{DATA_START, LogIdentity, SegmentHeader, SegmentSeed, VERSION, find_log_seed},
};

/// No log gets there: a name or a header that says more is none of a segment.
pub(super) const NUMBER_MAX: u64 = 1 << 62;
/// Read at the front of a segment to find the seed of its checksums.
const SEED_BYTES: usize = 256 << 10;

/// A segment with what its header says beside [`SegmentFile`].
pub(super) struct FoundSegment {
    pub file: SegmentFile,
    pub identity: Option<LogIdentity>,
    /// Id and first number in the header, where that is whole.
    in_header: Option<(u64, u64)>,
}

impl FoundSegment {
    /// One that is right under the id in its header has a wrong name.
    pub(super) fn rename(&mut self) {
        if let Some((id, first_sequence)) = self.in_header
            && self.file.seed.segment == id
        {
            self.file.id = id;
            self.file.first_sequence = first_sequence;
        }
    }

    /// The seed with which the front of a segment is right: with the id in its name or else that in its header, where
    /// that is the log's.
    pub(super) fn find_seed(&self, fs: &dyn FileSystem, log: Option<u32>) -> Result<Option<SegmentSeed>, OpenError> {
        let front = front(fs, &self.file.path)?;
        let mut first = None;
        for segment in [Some(self.file.id), self.in_header.map(|(id, _)| id)]
            .into_iter()
            .flatten()
        {
            if let Some(asked) = find_log_seed(&front, segment, DATA_START) {
                let seed = SegmentSeed { segment, log: asked };
                if log.is_none_or(|log| log == asked) {
                    return Ok(Some(seed));
                }
                first.get_or_insert(seed);
            }
        }
        Ok(first)
    }

    pub(super) fn read(file: &dyn File, id: u64, first_sequence: u64, path: &Path) -> Result<Self, OpenError> {
        let (_, header) = first_block(file).map_err(|source| io_error(path, source))?;
        let mut found = Self {
            file: SegmentFile {
                id,
                first_sequence,
                path: path.to_owned(),
                seed: SegmentSeed { segment: id, log: 0 },
                version: None,
                epoch: None,
                has_own_header: false,
            },
            identity: None,
            in_header: None,
        };
        match header {
            SegmentHeader::Unknown(version) => Err(too_new(
                path,
                &format!("format version {version}, this build reads 1 and {VERSION}"),
            )),
            SegmentHeader::UnknownFeatures(features) => Err(too_new(
                path,
                &format!("features {features:#x}, which this build does not know"),
            )),
            SegmentHeader::Valid {
                id: header_id,
                first_sequence: header_first,
                identity,
            } => {
                found.file.version = Some(identity.map_or(1, |_| VERSION));
                found.file.epoch = identity.map(|identity| identity.epoch);
                found.file.has_own_header = (header_id, header_first) == (id, first_sequence);
                found.identity = identity;
                let is_possible = header_first > 0 && header_id < NUMBER_MAX && header_first < NUMBER_MAX;
                found.in_header = is_possible.then_some((header_id, header_first));
                Ok(found)
            }
            SegmentHeader::Blank | SegmentHeader::Damaged => Ok(found),
        }
    }
}

/// The first bytes behind a segment's first block.
fn front(fs: &dyn FileSystem, path: &Path) -> Result<Vec<u8>, OpenError> {
    let mut bytes = vec![0; SEED_BYTES];
    let file = match fs.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(|source| io_error(path, source))?,
    };
    let read = read_around(file.as_ref(), DATA_START, &mut bytes, &mut Vec::new());
    bytes.truncate(read.map_err(|source| io_error(path, source))?);
    Ok(bytes)
}

/// A file that a newer release wrote.
pub(super) fn too_new(path: &Path, what: &str) -> OpenError {
    let path = path.display();
    OpenError::Format(format!("{path} has {what}: use the release that wrote it"))
}
