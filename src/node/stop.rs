//! SIGTERM and Ctrl-C: the same orderly stop; a second one is at once. SIGHUP ends nothing.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

/// Sent for a write beyond the limit of a file's size (`ulimit -f`), and deadly unless somebody listens: then the write
/// fails, which the spool takes for a full disk.
#[cfg(target_os = "linux")]
const FILE_SIZE_LIMIT: Option<i32> = Some(25);
#[cfg(not(target_os = "linux"))]
const FILE_SIZE_LIMIT: Option<i32> = None;

impl StopSignals {
    pub(super) fn listen() -> io::Result<Self> {
        if let Some(number) = FILE_SIZE_LIMIT {
            // Once listened for, it stays harmless for as long as the process lives.
            drop(signal(SignalKind::from_raw(number))?);
        }
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of either, and names it.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP, by which what is in files is read again at once. Where nothing is, it is caught all the same.
pub(super) struct Hangups(Signal);

impl Hangups {
    pub(super) fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
}
