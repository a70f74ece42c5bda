//! The token of the API: from a variable, a file, or whoever sits at the terminal; never from an argument, which stands
//! in the list of processes.

use std::{
    convert::Infallible,
    fs::File,
    io::{self, IsTerminal as _, Read as _, Stdin},
    path::Path,
    str::FromStr,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

use crate::{
    cli::{CommandFailure, stopped},
    millicast_api::ApiToken,
    telemetry::logging,
};

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
    // Before the echo is off, so that a signal ends this in order and finds it on again.
    let stopped = stopped();
    let hidden = HiddenInput::begin(io::stdin()).map_err(unusable)?;
    logging::print_line("Token of the API (it is not shown):");
    let (sender, line) = oneshot::channel();
    // Not a thread of the runtime, which would wait for it at the end.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line).map(|_| line);
        // Whoever asked may have been stopped.
        let _ = sender.send(read);
    });
    let line = tokio::select! {
        line = line => line.unwrap_or_else(|_| Err(io::ErrorKind::UnexpectedEof.into())),
        () = stopped => return Err(CommandFailure::not_right("no token was given")),
    };
    drop(hidden);
    let token = ApiToken::parse(&line.map_err(unusable)?);
    token.map_err(|error| CommandFailure::usage(format!("the token: {error}")))
}

/// A terminal that does not show what is typed, until this is dropped.
struct HiddenInput {
    terminal: Stdin,
    before: Termios,
}

impl HiddenInput {
    fn begin(terminal: Stdin) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing any more.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
