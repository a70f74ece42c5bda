//! A secret on the command line.

use std::{convert::Infallible, str::FromStr};

use super::CommandFailure;
use crate::{config::TextSource, senders::Secret};

/// `--secret`: base64 text, `env:NAME`, `file:PATH` or `base64:TEXT`. Shows itself in no message.
#[derive(Clone)]
pub struct SecretText(String);

impl FromStr for SecretText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// Warns that a secret of the command line is seen by others.
pub(super) fn warn_of_process_list(option: &str) {
    tracing::warn!(
        option,
        "what is secret in this option stands in the list of processes, where every user of this machine can read it: name it \
         by env:NAME or file:PATH"
    );
}

impl SecretText {
    /// Warns where it is the secret itself that stands on the command line.
    pub fn warn_where_visible(&self) {
        if !matches!(self.0.split_once(':'), Some(("env" | "file", _))) {
            warn_of_process_list("--secret");
        }
    }

    /// Reads the secret from wherever it is.
    pub fn read(&self) -> Result<Secret, CommandFailure> {
        let text = self.base64()?;
        Secret::from_base64(&text).map_err(|error| CommandFailure::usage(format!("--secret: {error}")))
    }

    /// The secret's text, as the provider shows it.
    pub fn base64(&self) -> Result<String, CommandFailure> {
        let text = match TextSource::parse(&self.0) {
            TextSource::Inline(text) => match text.split_once(':') {
                None => text,
                Some(("base64", text)) => text.to_owned(),
                // The base64 alphabet has no colon.
                Some(_) => {
                    return Err(CommandFailure::usage(
                        "--secret: expected base64, env:NAME or file:PATH",
                    ));
                }
            },
            source => {
                let text = source.read();
                text.map_err(|error| CommandFailure::usage(format!("--secret {error}")))?
            }
        };
        // A file may hold several, one a line.
        let first = text.lines().map(str::trim).find(|line| !line.is_empty());
        Ok(first.unwrap_or_default().to_owned())
    }
}
