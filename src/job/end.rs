//! How jobs and their sessions end.

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Job, Reordering};
use crate::{
    sink::{Failure, Remedy, Sink},
    spool::{ReadError, Record},
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
    /// Once all up to this number is settled too; what comes behind is not read.
    Number(u64),
}

impl<S: Sink> Job<S> {
    /// Whether it has nothing more to do.
    pub(super) fn is_done(&self) -> bool {
        let last = match self.until {
            Until::Stopped => return false,
            Until::Head => self.spool.state().head,
            Until::Number(last) => last,
        };
        self.cursor.position() >= last
    }

    /// The last number that it reads.
    pub(super) fn last(&self) -> u64 {
        match self.until {
            Until::Stopped | Until::Head => u64::MAX,
            Until::Number(last) => last,
        }
    }

    /// Takes in what was read, as far as it is its to publish.
    pub(super) fn read(&mut self, read: impl IntoIterator<Item = Record>, through: u64) {
        let last = self.last();
        self.ahead_through = through.min(last);
        self.ahead
            .extend(read.into_iter().filter(|record| record.sequence <= last));
    }

    /// Waits for what is in flight, and was held back, until the deadline of the stop.
    pub(super) async fn finish(&mut self, stop: &StopSignal) -> Result<(), End> {
        let deadline = stop.borrow().unwrap_or_else(Instant::now);
        self.ahead.clear();
        self.ahead_through = self.window.read();
        self.reordering.iter_mut().for_each(Reordering::end);
        loop {
            self.fill().await?;
            if self.window.in_flight().records == 0 {
                break;
            }
            tokio::select! {
                biased;
                over = self.sink.settle(&mut self.settled) => self.settle(over).await?,
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
