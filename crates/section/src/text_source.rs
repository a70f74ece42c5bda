//! Texts that may be secret, and where they come from.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// More than a text takes, also a file of many certificates.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where a text that may be secret comes from: `env:NAME`, `file:/path`, or the text itself.
#[derive(Clone, PartialEq, Eq)]
pub enum TextSource {
    Env(String),
    File(PathBuf),
    Inline(String),
}

/// Why a text is not there. Names the source.
#[derive(Debug, thiserror::Error)]
pub enum TextSourceError {
    #[error("env:{0}: the environment variable is not set")]
    Unset(String),
    #[error("file:{path}: cannot be read: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
}

/// Without the text.
impl fmt::Debug for TextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Inline(_) => f.write_str("inline"),
        }
    }
}

impl TextSource {
    /// Takes `env:NAME` and `file:/path` for sources, everything else for the text itself.
    pub fn parse(text: &str) -> Self {
        match text.trim().split_once(':') {
            Some(("env", name)) => Self::Env(name.to_owned()),
            Some(("file", path)) => Self::File(path.into()),
            _ => Self::Inline(text.trim().to_owned()),
        }
    }

    /// The text as it is now, without white space around it.
    ///
    /// # Errors
    ///
    /// The variable is not set, or the file cannot be read.
    pub fn read(&self) -> Result<String, TextSourceError> {
        self.read_with(|name| std::env::var(name).ok())
    }

    /// The text as it is now, with an environment of the caller's.
    ///
    /// # Errors
    ///
    /// Those of [`Self::read`].
    pub fn read_with(&self, env: impl Fn(&str) -> Option<String>) -> Result<String, TextSourceError> {
        let text = match self {
            Self::Env(name) => env(name).ok_or_else(|| TextSourceError::Unset(name.clone()))?,
            Self::File(path) => read_file(path, FILE_BYTES_MAX).map_err(|source| TextSourceError::Unreadable {
                path: path.clone(),
                source,
            })?,
            Self::Inline(text) => text.clone(),
        };
        Ok(text.trim().to_owned())
    }
}

/// Reads a file whole.
///
/// # Errors
///
/// It cannot be read, is longer than `bytes_max`, or is no text in UTF-8.
pub fn read_file(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let bytes = File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    match bytes as u64 > bytes_max {
        true => Err(io::Error::other(format!("larger than {bytes_max} bytes"))),
        false => Ok(text),
    }
}
