//! What a connection does after it was closed on our side.
//!
//! A socket that is let go while its peer still sends answers by a reset, and with that the peer loses the answer that
//! it has not read, or never comes to read it. So what comes is read for a while and thrown away.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

/// A peer that is silent for so long has nothing more to send.
const SILENCE: Duration = Duration::from_secs(5);
/// One that goes on sending gets no longer than this.
const DEADLINE: Duration = Duration::from_secs(30);
/// While the server stops, no longer than this.
const DEADLINE_STOPPING: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 4096;
/// Reads before other connections get their turn.
const READS_MAX: usize = 16;

/// A connection of which only the peer's side is open.
pub(super) struct LingeringClose {
    since: Instant,
    heard: Instant,
}

impl LingeringClose {
    pub fn begin() -> Self {
        let since = Instant::now();
        Self { since, heard: since }
    }

    /// Throws away what comes, until the peer ends, is silent or has had its time.
    pub fn poll(
        &mut self,
        tcp: &mut TcpStream,
        timer: Pin<&mut Sleep>,
        stopping: bool,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        for _ in 0..READS_MAX {
            let mut bytes = [0; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *tcp).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.heard = Instant::now(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.poll_deadline(timer, stopping, context),
            }
            if self.heard >= self.deadline(stopping) {
                return Poll::Ready(());
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_deadline(&self, mut timer: Pin<&mut Sleep>, stopping: bool, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline(stopping);
        while Instant::now() < deadline {
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(context));
        }
        Poll::Ready(())
    }

    fn deadline(&self, stopping: bool) -> Instant {
        if stopping {
            self.since + DEADLINE_STOPPING
        } else {
            (self.since + DEADLINE).min(self.heard + SILENCE)
        }
    }
}
