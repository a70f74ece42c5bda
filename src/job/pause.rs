//! A job that is paused publishes nothing: what it has in flight settles, and it goes on where it was.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use super::{Job, TICK};
use crate::sink::Sink;

/// What is in flight when a job is paused may settle within this; else it is published again.
pub(super) const PAUSE_DEADLINE: Duration = Duration::from_secs(10);

impl<S: Sink> Job<S> {
    /// It is paused while this is true.
    #[must_use]
    pub fn pausable(mut self, pause: watch::Receiver<bool>) -> Self {
        self.pause = Some(pause);
        self
    }

    /// Waits until it is not paused.
    pub(super) async fn stand_while_paused(&mut self) {
        let Some(mut pause) = self.pause.clone() else { return };
        while *pause.borrow_and_update() {
            self.rewind();
            // How old the oldest is, is told all the same. One that cannot be read is found by the session.
            let _ = self.peek().await;
            self.rest(Instant::now() + TICK).await;
        }
    }
}

/// Resolves once a job is paused.
pub(super) async fn paused(pause: &mut Option<watch::Receiver<bool>>) {
    if let Some(pause) = pause
        && pause.wait_for(|is_paused| *is_paused).await.is_ok()
    {
        return;
    }
    // Nobody can pause it, or nobody is left who could.
    std::future::pending().await
}
