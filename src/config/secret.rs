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

fn decode(origin: &str, text: &str) -> Result<Secret, SecretSourceError> {
    Secret::from_base64(text.trim()).map_err(|source| SecretSourceError::Content {
        origin: origin.to_owned(),
        source,
    })
}
