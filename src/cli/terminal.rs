//! Whoever sits at the terminal is asked.

use std::io::{self, IsTerminal as _, Stdin};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

use super::CommandFailure;
use crate::telemetry::logging;

/// Refuses, with this text, where nobody can be asked.
pub fn somebody_is_there(unasked: impl Into<String>) -> Result<(), CommandFailure> {
    match io::stdin().is_terminal() {
        true => Ok(()),
        false => Err(CommandFailure::usage(unasked)),
    }
}

/// Whether the answer is yes. Whoever waits for it may stop waiting.
pub async fn says_yes(question: &str) -> bool {
    let answer = ask(&format!("{question} [y/N]")).await;
    answer.is_ok_and(|answer| matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Asks, and reads a line. Whoever waits for it may stop waiting.
pub async fn ask(question: &str) -> io::Result<String> {
    logging::print_line(question);
    let (sender, line) = oneshot::channel();
    // Not a thread of the runtime, which would wait for it at the end.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line).map(|_| line);
        // Whoever asked may have been stopped.
        let _ = sender.send(read);
    });
    line.await.unwrap_or_else(|_| Err(io::ErrorKind::UnexpectedEof.into()))
}

/// A terminal that does not show what is typed, until this is dropped.
pub struct HiddenInput {
    terminal: Stdin,
    before: Termios,
}

impl HiddenInput {
    pub fn begin() -> io::Result<Self> {
        let terminal = io::stdin();
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
