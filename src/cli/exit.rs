//! How a subcommand ends.

use std::process::ExitCode;

use crate::config::ConfigProblems;

/// The exit codes, after BSD's `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCause {
    Ok = 0,
    /// The check, or the sending, did not come out right.
    NotRight = 1,
    /// Usage or configuration.
    Usage = 64,
    /// Something that is needed is not reachable.
    Unavailable = 69,
    /// A bug.
    Bug = 70,
    /// The disk; also: another process holds the spool.
    Disk = 74,
}

impl From<ExitCause> for ExitCode {
    fn from(exit: ExitCause) -> Self {
        (exit as u8).into()
    }
}

/// Why a subcommand could not do what it was asked for, and the code with which it ends.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct CommandFailure {
    pub exit: ExitCause,
    /// Names the thing, the cause and, where there is one, the cure.
    pub text: String,
}

impl CommandFailure {
    fn new(exit: ExitCause, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { exit, text }
    }

    /// The check, the sending or the stopping did not come out right.
    pub fn not_right(text: impl Into<String>) -> Self {
        Self::new(ExitCause::NotRight, text)
    }

    /// The command line, or the configuration.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(ExitCause::Usage, text)
    }

    /// Something that is needed is not reachable.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::new(ExitCause::Unavailable, text)
    }

    /// The disk.
    pub fn disk(text: impl Into<String>) -> Self {
        Self::new(ExitCause::Disk, text)
    }

    /// What should not happen.
    pub fn bug(text: impl Into<String>) -> Self {
        Self::new(ExitCause::Bug, text)
    }
}

impl From<ConfigProblems> for CommandFailure {
    fn from(problems: ConfigProblems) -> Self {
        Self::usage(format!("the configuration cannot be used\n{problems}"))
    }
}
