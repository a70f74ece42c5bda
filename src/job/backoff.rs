//! How long to wait before the next try.

use std::time::Duration;

const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(10);

/// Doubles from 100 ms to 10 s, with jitter, until something went well.
#[derive(Debug)]
pub(super) struct SessionBackoff {
    failures: u32,
    jitter: fn() -> f64,
}

impl Default for SessionBackoff {
    fn default() -> Self {
        Self { failures: 0, jitter }
    }
}

impl SessionBackoff {
    /// With the longest delays.
    #[cfg(test)]
    pub(super) fn without_jitter() -> Self {
        Self {
            failures: 0,
            jitter: || 1.0,
        }
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next delay: between half and all of what the number of failures asks for.
    pub(super) fn delay(&mut self) -> Duration {
        let full = DELAY_MIN.saturating_mul(1 << self.failures.min(16)).min(DELAY_MAX);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + 0.5 * (self.jitter)())
    }
}

/// A number in `0.0..1.0` that differs between processes and calls.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0_u8);
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_limit_and_start_again_after_a_success() {
        let mut backoff = SessionBackoff::default();
        let delays: Vec<_> = (0..40).map(|_| backoff.delay()).collect();
        assert!(delays[0] <= DELAY_MIN && delays[0] >= DELAY_MIN / 2);
        assert!(delays[39] <= DELAY_MAX && delays[39] >= DELAY_MAX / 2);
        backoff.reset();
        assert!(backoff.delay() <= DELAY_MIN);
    }
}
