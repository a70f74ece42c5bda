//! What came of the sending.

use std::{collections::BTreeMap, fmt, time::Duration};

use reqwest::Url;
use serde_json::json;

use crate::config::Shown;

/// What one lane, or all of them, saw.
#[derive(Debug, Default)]
pub struct SendTally {
    /// By status code.
    answers: BTreeMap<u16, u64>,
    /// Webhooks without an answer, by what went wrong.
    failures: BTreeMap<&'static str, u64>,
    duplicates: u64,
    /// Microseconds, one of each answer.
    latencies: Vec<u32>,
}

impl SendTally {
    pub fn answered(&mut self, status: u16, latency: Duration, is_duplicate: bool) {
        *self.answers.entry(status).or_default() += 1;
        self.duplicates += u64::from(is_duplicate);
        self.latencies.push(latency.as_micros().try_into().unwrap_or(u32::MAX));
    }

    pub fn failed(&mut self, class: &'static str, is_duplicate: bool) {
        *self.failures.entry(class).or_default() += 1;
        self.duplicates += u64::from(is_duplicate);
    }

    pub fn add(&mut self, other: Self) {
        for (status, count) in other.answers {
            *self.answers.entry(status).or_default() += count;
        }
        for (class, count) in other.failures {
            *self.failures.entry(class).or_default() += count;
        }
        self.duplicates += other.duplicates;
        self.latencies.extend(other.latencies);
    }
}

/// The summary.
pub struct SendReport {
    url: Url,
    tally: SendTally,
    took: Duration,
}

impl SendReport {
    pub fn new(url: Url, mut tally: SendTally, took: Duration) -> Self {
        tally.latencies.sort_unstable();
        Self { url, tally, took }
    }

    /// Everything was answered 2xx.
    pub fn is_right(&self) -> bool {
        self.tally.failures.is_empty() && self.tally.answers.keys().all(|status| (200..300).contains(status))
    }

    /// Somebody answered.
    pub fn was_reached(&self) -> bool {
        !self.tally.answers.is_empty() || self.tally.failures.is_empty()
    }

    pub fn failures(&self) -> String {
        let each = self
            .tally
            .failures
            .iter()
            .map(|(class, count)| format!("{count} × {class}"));
        each.collect::<Vec<_>>().join(", ")
    }

    pub fn json(&self) -> serde_json::Value {
        let text = |count: (&u16, &u64)| (count.0.to_string(), json!(count.1));
        json!({
            "url": Shown(self.url.as_str()).to_string(),
            "sent": self.sent(),
            "duplicates": self.tally.duplicates,
            "answers": self.tally.answers.iter().map(text).collect::<serde_json::Map<_, _>>(),
            "failed": self.tally.failures.values().sum::<u64>(),
            "failures": self.tally.failures,
            "seconds": self.took.as_secs_f64(),
            "per_second": self.per_second(),
            "latency_ms": { "p50": self.latency_ms(0.5), "p99": self.latency_ms(0.99), "max": self.latency_ms(1.0) },
        })
    }

    /// How many were answered 2xx.
    pub fn accepted(&self) -> u64 {
        let accepted = |(status, count): (&u16, &u64)| (200..300).contains(status).then_some(*count);
        self.tally.answers.iter().filter_map(accepted).sum()
    }

    fn sent(&self) -> u64 {
        self.tally.answers.values().chain(self.tally.failures.values()).sum()
    }

    fn per_second(&self) -> f64 {
        (self.sent() as f64 / self.took.as_secs_f64().max(1e-6) * 10.0).round() / 10.0
    }

    /// The latency that the share `share` of the answers did not exceed; `None` without an answer.
    fn latency_ms(&self, share: f64) -> Option<f64> {
        let latencies = &self.tally.latencies;
        let rank = (latencies.len() as f64 * share).ceil() as usize;
        let micros = latencies.get(rank.saturating_sub(1))?;
        Some(f64::from(*micros) / 1000.0)
    }
}

impl fmt::Display for SendReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, per_second) = (self.took.as_secs_f64(), self.per_second());
        writeln!(
            f,
            "sent      {} in {seconds:.1} s, {per_second:.1} a second",
            self.sent()
        )?;
        if self.tally.duplicates > 0 {
            writeln!(f, "          {} of them duplicates", self.tally.duplicates)?;
        }
        for (status, count) in &self.tally.answers {
            writeln!(f, "answered  {status} × {count}")?;
        }
        for (class, count) in &self.tally.failures {
            writeln!(f, "failed    {class} × {count}")?;
        }
        if let (Some(p50), Some(p99), Some(max)) = (self.latency_ms(0.5), self.latency_ms(0.99), self.latency_ms(1.0)) {
            writeln!(f, "latency   p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_latencies() {
        let mut tally = SendTally::default();
        for ms in (1..=100).rev() {
            tally.answered(200, Duration::from_millis(ms), false);
        }
        let report = SendReport::new("http://h/".parse().unwrap(), tally, Duration::from_secs(1));
        assert_eq!(report.latency_ms(0.5), Some(50.0));
        assert_eq!(report.latency_ms(0.99), Some(99.0));
        assert_eq!(report.latency_ms(1.0), Some(100.0));
        assert!(report.is_right());
    }

    #[test]
    fn an_answer_beside_2xx_or_a_failure_is_not_right() {
        let report = |status: Option<u16>, failure: Option<&'static str>| {
            let mut tally = SendTally::default();
            status
                .into_iter()
                .for_each(|status| tally.answered(status, Duration::ZERO, false));
            failure.into_iter().for_each(|class| tally.failed(class, false));
            let report = SendReport::new("http://h/".parse().unwrap(), tally, Duration::from_secs(1));
            (report.was_reached(), report.is_right())
        };
        assert_eq!(report(Some(202), None), (true, true));
        assert_eq!(report(Some(400), None), (true, false));
        assert_eq!(report(Some(301), None), (true, false));
        assert_eq!(report(Some(200), Some("not connected")), (true, false));
        assert_eq!(report(None, Some("not connected")), (false, false));
    }
}
