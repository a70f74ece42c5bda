//! The token of the API: from a variable, a file, or whoever sits at the terminal; never from an argument, which stands
//! in the list of processes.

use std::{
    convert::Infallible,
    fs::File,
    io::{self, IsTerminal as _, Read as _},
    path::Path,
    str::FromStr,
};

use super::terminal::{self, HiddenInput};
use crate::{cli::CommandFailure, millicast_api::ApiToken};

/// More than a token, and white space, take.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// `--token`. What is no source may be the token itself, so it shows itself in no message.
#[derive(Clone)]
pub enum TokenSource {
    Env(String),
    File(String),
    Wrong,
}

impl FromStr for TokenSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Self::Env(name.to_owned()),
            Some(("file", path)) if !path.is_empty() => Self::File(path.to_owned()),
            _ => Self::Wrong,
        })
    }
}

impl TokenSource {
    pub fn read(&self) -> Result<ApiToken, CommandFailure> {
        let (origin, text) = match self {
            Self::Env(name) => (
                format!("env:{name}"),
                std::env::var(name).map_err(|error| error.to_string()),
            ),
            Self::File(path) => {
                let text = read_file(Path::new(path)).map_err(|error| format!("cannot be read: {error}"));
                (format!("file:{path}"), text)
            }
            Self::Wrong => {
                return Err(CommandFailure::usage(
                    "--token: expected env:NAME or file:PATH; a token itself would stand in the list of processes",
                ));
            }
        };
        let wrong = |cause: String| CommandFailure::usage(format!("--token {origin}: {cause}"));
        let text = text.map_err(wrong)?;
        ApiToken::parse(&text).map_err(|error| wrong(error.to_string()))
    }
}

/// Reads a small file whole.
fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let bytes = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    match bytes as u64 > FILE_BYTES_MAX {
        true => Err(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes"))),
        false => Ok(text),
    }
}

/// Asks whoever sits at the terminal, and does not show what is typed.
pub async fn ask() -> Result<ApiToken, CommandFailure> {
    if !io::stdin().is_terminal() {
        return Err(CommandFailure::usage(
            "the API wants a token, and nobody can be asked here: say --token env:NAME or --token file:PATH",
        ));
    }
    let unusable = |error: io::Error| CommandFailure::usage(format!("the terminal cannot be used: {error}"));
    let hidden = HiddenInput::begin().map_err(unusable)?;
    let line = terminal::ask("Token of the API (it is not shown):").await;
    drop(hidden);
    let token = ApiToken::parse(&line.map_err(unusable)?);
    token.map_err(|error| CommandFailure::usage(format!("the token: {error}")))
}
