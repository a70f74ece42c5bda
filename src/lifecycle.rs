//! Where the process is between its start and its end: what readiness and the answers to the sender depend on.

use std::sync::atomic::{AtomicU8, Ordering};

/// A phase of the process's life. They follow each other in this order; one may be left out, none comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Recovering. Not ready; what is sent all the same is accepted.
    Starting,
    /// Ready.
    Ready,
    /// About to stop: not ready, so that no new requests are routed here, and still accepting those that are.
    Draining,
    /// Stopping: requests are refused with 503.
    Stopping,
}

impl Phase {
    /// The phase as `/status` and `/readyz` call it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
            Phase::Stopping => "stopping",
        }
    }
}

/// The phase, shared by all that ask for it and the one that moves it on.
#[derive(Debug)]
pub struct Lifecycle(AtomicU8);

impl Lifecycle {
    pub fn starting() -> Self {
        Self(AtomicU8::new(Phase::Starting as u8))
    }

    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            2 => Phase::Draining,
            _ => Phase::Stopping,
        }
    }

    /// Moves on to `phase`; does nothing when that phase is already behind.
    pub fn advance(&self, phase: Phase) {
        self.0.fetch_max(phase as u8, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_never_comes_back() {
        let lifecycle = Lifecycle::starting();
        for (next, expected) in [
            (Phase::Ready, Phase::Ready),
            (Phase::Starting, Phase::Ready),
            (Phase::Stopping, Phase::Stopping),
            (Phase::Draining, Phase::Stopping),
        ] {
            lifecycle.advance(next);
            assert_eq!(lifecycle.phase(), expected);
        }
    }
}
