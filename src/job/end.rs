//! How jobs and their sessions end.

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::cause::{JobCause, JobFailure};
use super::{Job, RouteReordering};
use crate::{
    sink::{PublishFailure, Remedy, Sink},
    spool::{ReadError, Record},
};

/// Tells every job to stop: nothing more is read, what is in flight may settle until the instant given.
pub type StopSignal = watch::Receiver<Option<Instant>>;

/// When a job ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JobUntil {
    /// When it is told to.
    #[default]
    Stopped,
    /// Once all that the log has is settled too.
    Head,
    /// Once all up to this number is settled too; what comes behind is not read.
    Number(u64),
}

impl<S: Sink> Job<S> {
    /// Whether it has nothing more to do.
    pub(super) fn is_done(&self) -> bool {
        let last = match self.until {
            JobUntil::Stopped => return false,
            JobUntil::Head => self.spool.state().head,
            JobUntil::Number(last) => last,
        };
        self.cursor.position() >= last
    }

    /// The last number that it reads.
    pub(super) fn last(&self) -> u64 {
        match self.until {
            JobUntil::Stopped | JobUntil::Head => u64::MAX,
            JobUntil::Number(last) => last,
        }
    }

    /// Takes in what was read, as far as it is its to publish.
    pub(super) fn read(&mut self, read: impl IntoIterator<Item = Record>, through: u64) {
        let last = self.last();
        self.ahead_through = through.min(last);
        self.ahead
            .extend(read.into_iter().filter(|record| record.sequence <= last));
    }

    /// Waits for what is in flight, and was held back, until the deadline.
    pub(super) async fn finish(&mut self, deadline: Instant) -> Result<(), SessionEnd> {
        self.ahead.clear();
        self.ahead_through = self.window.read();
        self.reordering.iter_mut().for_each(RouteReordering::end);
        loop {
            self.fill().await?;
            if self.window.in_flight().records == 0 {
                break;
            }
            tokio::select! {
                biased;
                over = self.sink.settle(&mut self.settled) => self.process_settled(over).await?,
                () = sleep_until(deadline) => break,
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Ok(())
    }
}

/// Why a session ended.
pub(super) enum SessionEnd {
    /// The job is over with it.
    Over,
    /// The job was paused.
    Paused,
    Failed(PublishFailure),
}

impl From<PublishFailure> for SessionEnd {
    fn from(failure: PublishFailure) -> Self {
        Self::Failed(failure)
    }
}

impl From<ReadError> for SessionEnd {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::Over,
            ReadError::Io { .. } => Self::Failed(PublishFailure::from(JobFailure {
                remedy: Remedy::Retry,
                cause: JobCause::SpoolRead,
                text: error.to_string(),
            })),
        }
    }
}
