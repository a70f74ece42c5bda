//! How long to wait before a call is made again, and when not to.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use super::{ApiError, ClientOptions, RetryAdvice};

/// The tries of one call.
pub(crate) struct CallRetries<'a> {
    options: &'a ClientOptions,
    /// Whether the call comes to the same when it is made twice.
    is_idempotent: bool,
    failures: u32,
    waited: Duration,
}

impl<'a> CallRetries<'a> {
    pub fn new(options: &'a ClientOptions, is_idempotent: bool) -> Self {
        Self {
            options,
            is_idempotent,
            failures: 0,
            waited: Duration::ZERO,
        }
    }

    /// After a try that failed: how long to wait before the next; `None`: it was the last.
    pub fn pause(&mut self, error: &ApiError) -> Option<Duration> {
        self.failures += 1;
        let may = match error.retry() {
            RetryAdvice::NotCarriedOut => true,
            RetryAdvice::Unclear => self.is_idempotent,
            RetryAdvice::Useless => false,
        };
        if !may || self.failures >= self.options.tries_max {
            return None;
        }
        let pause = self.backoff().max(error.retry_after().unwrap_or_default());
        self.waited = self.waited.saturating_add(pause);
        (self.waited <= self.options.wait_max).then_some(pause)
    }

    /// Doubles, between half and all of what the number of failures asks for.
    fn backoff(&self) -> Duration {
        let doublings = (self.failures - 1).min(16);
        let full = self.options.retry_delay_min.saturating_mul(1 << doublings);
        full.min(self.options.retry_delay_max).mul_f64(0.5 + 0.5 * jitter())
    }
}

/// A number in `0.0..1.0` that differs between processes and calls.
fn jitter() -> f64 {
    let random = RandomState::new().hash_one(0_u8);
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ApiRefusal;

    fn refused(status: u16, retry_after: Option<u64>) -> ApiError {
        ApiError::Refused(Box::new(ApiRefusal {
            call: "list webhooks".to_owned(),
            status,
            said: None,
            code: None,
            retry_after: retry_after.map(Duration::from_secs),
            is_change: false,
        }))
    }

    #[test]
    fn pauses_double_and_end_after_the_last_try() {
        let options = ClientOptions::default();
        let mut retries = CallRetries::new(&options, true);
        let pauses: Vec<Duration> = (0..10).map_while(|_| retries.pause(&refused(503, None))).collect();
        assert_eq!(pauses.len() as u32, options.tries_max - 1);
        for (at, pause) in pauses.iter().enumerate() {
            let full = options.retry_delay_min * (1 << at);
            assert!((full / 2..=full).contains(pause), "{pauses:?}");
        }
    }

    #[test]
    fn what_may_have_been_carried_out_is_repeated_only_where_that_is_safe() {
        let options = ClientOptions::default();
        let pause = |is_idempotent, status| CallRetries::new(&options, is_idempotent).pause(&refused(status, None));
        assert!(pause(true, 502).is_some() && pause(false, 502).is_none());
        assert!(pause(true, 429).is_some() && pause(false, 429).is_some());
        assert!(pause(true, 400).is_none() && pause(true, 501).is_none());
    }

    #[test]
    fn what_the_api_asks_for_is_kept_up_to_a_bound() {
        let options = ClientOptions::default();
        let mut retries = CallRetries::new(&options, false);
        assert_eq!(retries.pause(&refused(429, Some(30))), Some(Duration::from_secs(30)));
        assert_eq!(retries.pause(&refused(429, Some(31))), None, "more than 60 s in all");
        let mut retries = CallRetries::new(&options, false);
        assert_eq!(retries.pause(&refused(429, Some(u64::MAX))), None);
    }
}
