//! Where the process is between its start and its end: what readiness and the answers to the sender depend on.

use std::sync::atomic::{AtomicU8, Ordering};

/// A phase of the process's life. They follow each other in this order; one may be left out, none comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ProcessPhase {
    /// Recovering. Not ready; what is sent all the same is accepted.
    Starting,
    /// Ready.
    Ready,
    /// About to stop: not ready, so that no new requests are routed here, and still accepting those that are.
    Draining,
    /// Stopping: requests are refused with 503.
    Stopping,
}

impl ProcessPhase {
    /// The phase as `/status` and `/readyz` call it.
    pub fn name(self) -> &'static str {
        match self {
            ProcessPhase::Starting => "starting",
            ProcessPhase::Ready => "ready",
            ProcessPhase::Draining => "draining",
            ProcessPhase::Stopping => "stopping",
        }
    }
}

/// The phase, shared by all that ask for it and the one that moves it on.
#[derive(Debug)]
pub struct ProcessLifecycle(AtomicU8);

impl ProcessLifecycle {
    pub fn starting() -> Self {
        Self(AtomicU8::new(ProcessPhase::Starting as u8))
    }

    pub fn phase(&self) -> ProcessPhase {
        match self.0.load(Ordering::Acquire) {
            0 => ProcessPhase::Starting,
            1 => ProcessPhase::Ready,
            2 => ProcessPhase::Draining,
            _ => ProcessPhase::Stopping,
        }
    }

    /// Moves on to `phase`; does nothing when that phase is already behind.
    pub fn advance(&self, phase: ProcessPhase) {
        self.0.fetch_max(phase as u8, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_never_comes_back() {
        let lifecycle = ProcessLifecycle::starting();
        for (next, expected) in [
            (ProcessPhase::Ready, ProcessPhase::Ready),
            (ProcessPhase::Starting, ProcessPhase::Ready),
            (ProcessPhase::Stopping, ProcessPhase::Stopping),
            (ProcessPhase::Draining, ProcessPhase::Stopping),
        ] {
            lifecycle.advance(next);
            assert_eq!(lifecycle.phase(), expected);
        }
    }
}
