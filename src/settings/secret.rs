//! Where a webhook's secrets come from.

use std::{fmt, path::PathBuf};

use forebay_section::read_file;

use crate::senders::Secret;

/// Secrets in one source. Each costs a hash of every body that is signed wrongly.
const SECRETS_MAX: usize = 16;
/// More than so many secrets, and white space, take.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where secrets come from: a line for each, which is what the provider's page shows, in base64.
#[derive(Debug, Clone, PartialEq)]
pub enum SecretSource {
    Env(String),
    /// Read again when it changes.
    File(PathBuf),
    Inline(Secret),
}

/// Why a secret is not there. Names the source, never the content.
#[derive(Debug, thiserror::Error)]
pub enum SecretSourceError {
    #[error("expected env:NAME, file:/path or base64:TEXT")]
    Form,
    /// Not quoted: the second may be a secret.
    #[error("more than one source: each is an entry of its own in the list")]
    Several,
    #[error("env:{0}: the environment variable is not set")]
    Unset(String),
    #[error("file:{path}: cannot be read: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {source}")]
    Content {
        origin: String,
        source: crate::senders::SecretError,
    },
    #[error("{origin}: more than {SECRETS_MAX} secrets")]
    TooMany { origin: String },
}

/// Where it comes from, never what it is.
impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Inline(_) => f.write_str("base64:…"),
        }
    }
}

impl SecretSource {
    /// Parses `env:NAME`, `file:/path` or `base64:TEXT`.
    pub fn parse(text: &str) -> Result<Self, SecretSourceError> {
        let text = text.trim();
        let another = |form: &str| text.match_indices(form).any(|(at, _)| at > 0);
        match text.split_once(':') {
            Some(("env" | "file", _)) if ["env:", "file:", "base64:"].into_iter().any(another) => {
                Err(SecretSourceError::Several)
            }
            Some(("env", name)) if is_variable(name) => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("base64", text)) => Ok(Self::Inline(decode("base64", text)?)),
            _ => Err(SecretSourceError::Form),
        }
    }

    /// The secrets as they are now, at least one.
    pub fn read(&self) -> Result<Vec<Secret>, SecretSourceError> {
        self.read_with(|name| std::env::var(name).ok())
    }

    /// The secrets as they are now, with an environment of the caller's.
    pub fn read_with(&self, env: impl Fn(&str) -> Option<String>) -> Result<Vec<Secret>, SecretSourceError> {
        let text = match self {
            Self::Env(name) => env(name).ok_or_else(|| SecretSourceError::Unset(name.clone()))?,
            Self::File(path) => read_file(path, FILE_BYTES_MAX).map_err(|source| SecretSourceError::Unreadable {
                path: path.clone(),
                source,
            })?,
            Self::Inline(secret) => return Ok(vec![secret.clone()]),
        };
        decode_lines(&self.to_string(), &text)
    }
}

/// Whether this can be the name of a variable, also one that Kubernetes makes of a key.
fn is_variable(name: &str) -> bool {
    let may = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !name.is_empty() && name.chars().all(may)
}

/// A secret in each line that is not blank.
fn decode_lines(origin: &str, text: &str) -> Result<Vec<Secret>, SecretSourceError> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let secrets: Vec<Secret> = lines.map(|line| decode(origin, line)).collect::<Result<_, _>>()?;
    match secrets.len() {
        // For the error of a text without any.
        0 => decode(origin, text).map(|secret| vec![secret]),
        count if count > SECRETS_MAX => Err(SecretSourceError::TooMany {
            origin: origin.to_owned(),
        }),
        _ => Ok(secrets),
    }
}

fn decode(origin: &str, text: &str) -> Result<Secret, SecretSourceError> {
    Secret::from_base64(text.trim()).map_err(|source| SecretSourceError::Content {
        origin: origin.to_owned(),
        source,
    })
}
