//! How jobs and their sessions end.

use tokio::{sync::watch, time::Instant};

use crate::{
    sink::{Failure, Remedy},
    spool::ReadError,
};

/// Tells every job to stop: nothing more is read, what is in flight may settle until the instant given.
pub type StopSignal = watch::Receiver<Option<Instant>>;

/// When a job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When it is told to.
    Stopped,
    /// Once all that the log has is settled too.
    Head,
}

/// Why a session ended.
pub(super) enum End {
    /// The job is over with it.
    Over,
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::Over,
            ReadError::Io { .. } => Self::Failed(Failure {
                remedy: Remedy::Retry,
                label: "spool_read",
                text: error.to_string(),
            }),
        }
    }
}
