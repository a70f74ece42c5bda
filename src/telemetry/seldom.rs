//! Rate-limits a log line.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets one through in each interval, and counts the rest.
pub struct LogThrottle {
    interval: Duration,
    state: Mutex<ThrottleState>,
}

#[derive(Default)]
struct ThrottleState {
    said: Option<Instant>,
    unsaid: u64,
}

impl LogThrottle {
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            state: Mutex::default(),
        }
    }

    /// How many were not said since the last that was, if it is time to say one again.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.said.is_some_and(|said| now.duration_since(said) < self.interval) {
            state.unsaid += 1;
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_said_in_each_interval_and_the_rest_is_counted() {
        let seldom = LogThrottle::new(Duration::from_secs(1));
        let start = Instant::now();
        for (after_ms, expected) in [
            (0, Some(0)),
            (1, None),
            (999, None),
            (1000, Some(2)),
            (1001, None),
            (2500, Some(1)),
        ] {
            assert_eq!(
                seldom.due(start + Duration::from_millis(after_ms)),
                expected,
                "after {after_ms} ms"
            );
        }
    }
}
