//! A job of an operator as it is kept, so that it goes on after a restart, and as the API shows it.

use std::{
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    job::{EventSelection, RepublishCounts, RouteTrouble},
    node::kept_file,
    spool::file_name,
};

const DIR: &str = "jobs";
const EXTENSION: &str = "json";

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::node) enum OperatorJobKind {
    Replay,
    Redrive,
}

impl OperatorJobKind {
    pub fn label(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Redrive => "redrive",
        }
    }
}

/// How a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::node) enum OperatorJobState {
    Running,
    Paused,
    /// All that was chosen is published, or was refused.
    Done,
    Cancelled,
    /// The process ended before it, and it was not to go on; or it could not.
    CutShort,
}

impl OperatorJobState {
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::CutShort)
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::node) struct OperatorJobRecord {
    pub id: String,
    pub kind: OperatorJobKind,
    pub route: String,
    #[serde(default)]
    pub selection: EventSelection,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_topic: Option<String>,
    /// The route that publishes it, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<NonZeroU32>,
    pub ends_with_process: bool,
    pub state: OperatorJobState,
    /// The user who asked for it.
    pub uid: u32,
    /// Milliseconds since the Unix epoch.
    pub started_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<i64>,
    /// All of its log up to here is done with.
    pub position: u64,
    /// Up to where it goes.
    pub last: u64,
    #[serde(flatten)]
    pub counts: RepublishCounts,
    /// Why it was cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// As the API shows it.
#[derive(Debug, Serialize)]
pub(in crate::node) struct ShownJob {
    #[serde(flatten)]
    pub record: OperatorJobRecord,
    /// What keeps it from publishing now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<RouteTrouble>,
}

impl OperatorJobRecord {
    fn path(dir: &Path, id: &str) -> PathBuf {
        dir.join(DIR).join(format!("{}.{EXTENSION}", file_name::escape(id)))
    }

    /// Keeps it in a spool's directory.
    ///
    /// # Errors
    ///
    /// It cannot be kept.
    pub fn keep(&self, dir: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = fs::DirBuilder::new().mode(0o700).create(dir.join(DIR));
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let text = serde_json::to_vec_pretty(self).expect("texts and numbers always serialize");
        kept_file::write(&Self::path(dir, &self.id), &text)
    }

    /// Forgets it.
    pub fn forget(&self, dir: &Path) {
        // One that stays is shown once more after a restart.
        let _ = fs::remove_file(Self::path(dir, &self.id));
    }

    /// Those that are kept, the oldest first. One that cannot be read is named in the log, and stays.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn read_all(dir: &Path) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(dir.join(DIR)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut records: Vec<Self> = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            match serde_json::from_slice(&fs::read(&path)?) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a job that was under way cannot be read: it does not go on");
                }
            }
        }
        records.sort_by(|one, other| (one.started_ms, &one.id).cmp(&(other.started_ms, &other.id)));
        Ok(records)
    }
}
