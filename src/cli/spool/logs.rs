//! The logs of a spool: that of the events, and those of the dead letters.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    cli::{CommandFailure, ExitCause},
    job::DeadLetters,
    node,
    spool::{ImageCensus, ImageCursor, ImageDamage, ImageNote, LogImage, OpenError},
};

const DEAD_LETTERS_DIR: &str = "dead-letters";

/// Ranges that are shown to people one by one.
const RANGES_SHOWN_MAX: usize = 8;

/// What the records of a log are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogContent {
    Events,
    DeadLetters,
}

/// A log in the directory of a spool.
pub struct SpoolLog {
    /// Its directory below that of the spool; empty for the log of the events.
    pub within: PathBuf,
    pub content: LogContent,
    pub image: LogImage,
    /// Its cursors; where they are lost, the routes that are known otherwise, each at the oldest record.
    pub cursors: Vec<ImageCursor>,
}

/// Reading stopped.
#[derive(Debug)]
pub enum ReadStop {
    /// A file cannot be read.
    Failed(OpenError),
    /// What was read cannot be written.
    Unwritten(std::io::Error),
}

impl From<OpenError> for ReadStop {
    fn from(error: OpenError) -> Self {
        Self::Failed(error)
    }
}

impl From<std::io::Error> for ReadStop {
    fn from(error: std::io::Error) -> Self {
        Self::Unwritten(error)
    }
}

/// Where the logs of a spool may be, with what is in them: first that of the events.
pub fn log_dirs(dir: &Path) -> Vec<(PathBuf, LogContent)> {
    let mut dirs = vec![(PathBuf::new(), LogContent::Events)];
    let letters = DeadLetters::log_dirs(&dir.join(DEAD_LETTERS_DIR)).into_iter();
    let within = |path: PathBuf| path.strip_prefix(dir).map(Path::to_owned).unwrap_or(path);
    dirs.extend(letters.map(|path| (within(path), LogContent::DeadLetters)));
    dirs
}

/// Looks at all logs in the directory of a spool.
pub fn open_logs(dir: &Path) -> Result<Vec<SpoolLog>, CommandFailure> {
    let mut logs = Vec::new();
    for (within, content) in log_dirs(dir) {
        let path = match content {
            LogContent::Events => dir.to_owned(),
            LogContent::DeadLetters => dir.join(&within),
        };
        if content == LogContent::DeadLetters && !LogImage::exists(&path) {
            continue;
        }
        let mut image = LogImage::open(&path).map_err(failure)?;
        let mut routes = Vec::new();
        if content == LogContent::Events {
            routes.extend(node::known_route_names(dir).unwrap_or_default());
        }
        if !routes.is_empty() {
            image.expect_cursors();
        }
        let cursors = match image.cursors() {
            Some(cursors) => cursors.to_vec(),
            None => routes.iter().map(|name| ImageCursor::at_oldest(name)).collect(),
        };
        logs.push(SpoolLog {
            within,
            content,
            image,
            cursors,
        });
    }
    Ok(logs)
}

/// A spool that cannot be read at all.
pub fn failure(error: OpenError) -> CommandFailure {
    let cure = match &error {
        OpenError::Io { source, .. } => match source.kind() {
            std::io::ErrorKind::PermissionDenied => ": run it as the user of the spool",
            std::io::ErrorKind::NotFound => ": name the directory that spool.dir names",
            _ => "",
        },
        OpenError::Held { .. } | OpenError::Format(_) => "",
    };
    CommandFailure {
        exit: ExitCause::Disk,
        text: format!("the spool cannot be read: {error}{cure}"),
    }
}

impl SpoolLog {
    /// How it is called in what is said: `events`, or its directory.
    pub fn name(&self) -> String {
        match self.content {
            LogContent::Events => "events".to_owned(),
            LogContent::DeadLetters => self.within.display().to_string(),
        }
    }

    /// Whether the positions of its cursors are lost.
    pub fn lost_cursors(&self) -> bool {
        self.image.cursors().is_none()
    }

    /// A path below the log's directory, from that of the spool.
    pub fn file(&self, path: &Path) -> String {
        let file = path.strip_prefix(self.image.dir()).unwrap_or(path);
        self.within.join(file).display().to_string()
    }

    /// A place of damage for programs.
    pub fn damage_json(&self, damage: &ImageDamage) -> Value {
        json!({
            "type": "damage",
            "log": self.name(),
            "file": self.file(&damage.path),
            "offset": damage.offset,
            "length": damage.len,
            "kind": damage.kind,
            "segment": damage.segment,
            "missing": damage.missing.as_ref().map(|numbers| json!({
                "first": numbers.start(),
                "last": numbers.end(),
                "records_max": damage.missing_records(),
            })),
        })
    }

    /// The same, for people.
    pub fn damage_line(&self, damage: &ImageDamage) -> String {
        let place = match damage.len {
            0 => String::new(),
            len => format!(" at {}, {len} bytes", damage.offset),
        };
        let missing = match &damage.missing {
            Some(numbers) => format!("; lost: {}", SpokenRanges::of(std::slice::from_ref(numbers))),
            None => String::new(),
        };
        format!("{}: {}{place}{missing}", damage.kind, self.file(&damage.path))
    }

    /// Something that costs nothing, for programs.
    pub fn note_json(&self, note: &ImageNote) -> Value {
        json!({ "type": "note", "log": self.name(), "file": self.file(&note.path), "text": note.text })
    }

    /// The same, for people.
    pub fn note_line(&self, note: &ImageNote) -> String {
        format!("note: {}: {}", self.file(&note.path), note.text)
    }

    /// Of the numbers that are lost, those that a cursor needs.
    pub fn needed_and_lost(&self, cursor: &ImageCursor, census: &ImageCensus) -> Vec<std::ops::RangeInclusive<u64>> {
        census.missing().flat_map(|numbers| cursor.needed_of(numbers)).collect()
    }
}

/// How many numbers are in ranges that do not overlap.
pub fn count_numbers(ranges: &[std::ops::RangeInclusive<u64>]) -> u64 {
    let lens = ranges
        .iter()
        .map(|range| (range.end() - range.start()).saturating_add(1));
    lens.fold(0, u64::saturating_add)
}

/// Ranges of numbers as people read them, with their count.
pub struct SpokenRanges<'r> {
    ranges: &'r [std::ops::RangeInclusive<u64>],
}

impl<'r> SpokenRanges<'r> {
    pub fn of(ranges: &'r [std::ops::RangeInclusive<u64>]) -> Self {
        Self { ranges }
    }
}

impl fmt::Display for SpokenRanges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.ranges.iter().take(RANGES_SHOWN_MAX).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match range.start() == range.end() {
                true => write!(f, "{comma}{}", range.start())?,
                false => write!(f, "{comma}{} to {}", range.start(), range.end())?,
            }
        }
        if self.ranges.len() > RANGES_SHOWN_MAX {
            write!(f, ", and {} more ranges", self.ranges.len() - RANGES_SHOWN_MAX)?;
        }
        match count_numbers(self.ranges) {
            1 => write!(f, " (1 number)"),
            numbers => write!(f, " ({numbers} numbers)"),
        }
    }
}
