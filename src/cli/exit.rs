//! How a subcommand ends.

use std::process::ExitCode;

use crate::config::Problems;

/// The exit codes, after BSD's `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
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

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

/// Why a subcommand could not do what it was asked for, and the code with which it ends.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    pub exit: Exit,
    /// Names the thing, the cause and, where there is one, the cure.
    pub text: String,
}

impl Failure {
    fn new(exit: Exit, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { exit, text }
    }

    /// The check, the sending or the stopping did not come out right.
    pub fn not_right(text: impl Into<String>) -> Self {
        Self::new(Exit::NotRight, text)
    }

    /// The command line, or the configuration.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// Something that is needed is not reachable.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::new(Exit::Unavailable, text)
    }

    /// The disk.
    pub fn disk(text: impl Into<String>) -> Self {
        Self::new(Exit::Disk, text)
    }

    /// What should not happen.
    pub fn bug(text: impl Into<String>) -> Self {
        Self::new(Exit::Bug, text)
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::usage(format!("the configuration cannot be used\n{problems}"))
    }
}
