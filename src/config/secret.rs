//! Where a webhook's secret comes from.

use std::path::PathBuf;

use crate::provider::millicast::Secret;

/// Where a secret comes from. Whatever the source, the text is what the provider's page shows, in base64.
#[derive(Debug, Clone)]
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
    #[error("env:{0}: the environment variable is not set")]
    Unset(String),
    #[error("file:{path}: cannot be read: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {source}")]
    Content {
        origin: String,
        source: crate::provider::millicast::SecretError,
    },
}

impl SecretSource {
    /// Parses `env:NAME`, `file:/path` or `base64:TEXT`.
    pub fn parse(text: &str) -> Result<Self, SecretSourceError> {
        match text.trim().split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("base64", text)) => Ok(Self::Inline(decode("base64", text)?)),
            _ => Err(SecretSourceError::Form),
        }
    }

    /// The secret as it is now.
    pub fn read(&self) -> Result<Secret, SecretSourceError> {
        self.read_with(|name| std::env::var(name).ok())
    }

    /// The secret as it is now, with an environment of the caller's.
    pub fn read_with(&self, env: impl Fn(&str) -> Option<String>) -> Result<Secret, SecretSourceError> {
        match self {
            Self::Env(name) => {
                let text = env(name).ok_or_else(|| SecretSourceError::Unset(name.clone()))?;
                decode(&format!("env:{name}"), &text)
            }
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| SecretSourceError::Unreadable {
                    path: path.clone(),
                    source,
                })?;
                decode(&format!("file:{}", path.display()), &text)
            }
            Self::Inline(secret) => Ok(secret.clone()),
        }
    }
}

/// Where a text that may be secret comes from: `env:NAME`, `file:/path`, or the text itself.
#[derive(Clone, PartialEq, Eq)]
pub enum TextSource {
    Env(String),
    File(PathBuf),
    Inline(String),
}

/// Without the text.
impl std::fmt::Debug for TextSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
    pub fn read(&self) -> Result<String, SecretSourceError> {
        self.read_with(|name| std::env::var(name).ok())
    }

    /// The text as it is now, with an environment of the caller's.
    pub fn read_with(&self, env: impl Fn(&str) -> Option<String>) -> Result<String, SecretSourceError> {
        let text = match self {
            Self::Env(name) => env(name).ok_or_else(|| SecretSourceError::Unset(name.clone()))?,
            Self::File(path) => std::fs::read_to_string(path).map_err(|source| SecretSourceError::Unreadable {
                path: path.clone(),
                source,
            })?,
            Self::Inline(text) => text.clone(),
        };
        Ok(text.trim().to_owned())
    }
}

fn decode(origin: &str, text: &str) -> Result<Secret, SecretSourceError> {
    Secret::from_base64(text.trim()).map_err(|source| SecretSourceError::Content {
        origin: origin.to_owned(),
        source,
    })
}
