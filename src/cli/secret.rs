//! A secret on the command line.

use std::{convert::Infallible, str::FromStr};

use super::Failure;
use crate::provider::millicast::Secret;

/// `--secret`: base64 text, `env:NAME`, `file:PATH` or `base64:TEXT`. Shows itself in no message.
#[derive(Clone)]
pub struct SecretText(String);

impl FromStr for SecretText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl SecretText {
    /// Reads the secret from wherever it is.
    pub fn read(&self) -> Result<Secret, Failure> {
        let text = self.base64()?;
        Secret::from_base64(&text).map_err(|error| Failure::usage(format!("--secret: {error}")))
    }

    /// The secret's text, as the provider shows it.
    pub fn base64(&self) -> Result<String, Failure> {
        let text = match self.0.split_once(':') {
            Some(("env", name)) => std::env::var(name)
                .map_err(|_| Failure::usage(format!("--secret env:{name}: the environment variable is not set")))?,
            Some(("file", path)) => std::fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("--secret file:{path}: cannot be read: {error}")))?,
            Some(("base64", text)) => text.to_owned(),
            // The base64 alphabet has no colon.
            Some(_) => return Err(Failure::usage("--secret: expected base64, env:NAME or file:PATH")),
            None => self.0.clone(),
        };
        Ok(text.trim().to_owned())
    }
}
