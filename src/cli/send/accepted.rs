//! What the receiver itself says that it has accepted.

use std::time::Duration;

use reqwest::{Client, Url};
use tokio::time::{Instant, sleep};

use crate::{cli::CommandFailure, config::Shown};

const METRIC: &str = "forebay_events_total";
/// An event is counted right after its answer.
const COUNTED_DEADLINE: Duration = Duration::from_secs(5);
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A Forebay's `/metrics`, and what it had accepted at the beginning.
pub struct AcceptedEvents {
    client: Client,
    url: Url,
    before: f64,
}

impl AcceptedEvents {
    pub async fn now(url: &str) -> Result<Self, CommandFailure> {
        let parsed: Result<Url, _> = url.parse();
        let url = parsed.map_err(|error| CommandFailure::usage(format!("--metrics {}: {error}", Shown(url))))?;
        let client = Client::builder().timeout(ANSWER_DEADLINE).no_proxy().build();
        let client = client.map_err(|error| CommandFailure::unavailable(format!("failed to set up HTTP: {error}")))?;
        let mut accepted = Self {
            client,
            url,
            before: 0.0,
        };
        accepted.before = accepted.read().await?;
        Ok(accepted)
    }

    /// Waits until `count` more are accepted.
    pub async fn has_grown_by(&self, count: u64) -> Result<(), CommandFailure> {
        let deadline = Instant::now() + COUNTED_DEADLINE;
        loop {
            let grown = self.read().await? - self.before;
            if grown >= count as f64 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(CommandFailure::not_right(format!(
                    "{count} were answered 2xx, and {METRIC} at {} grew by {grown}: another replica took them, or it is not a Forebay's",
                    Shown(self.url.as_str())
                )));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn read(&self) -> Result<f64, CommandFailure> {
        let fail = |error: reqwest::Error| {
            let cause = error.without_url();
            CommandFailure::unavailable(format!("--metrics {}: {cause}", Shown(self.url.as_str())))
        };
        let answer = self.client.get(self.url.clone()).send().await.map_err(fail)?;
        let text = answer.error_for_status().map_err(fail)?.text().await.map_err(fail)?;
        Ok(sum(&text))
    }
}

fn sum(metrics: &str) -> f64 {
    let of_metric = |line: &str| {
        let labels = line.strip_prefix(METRIC)?;
        labels
            .starts_with(['{', ' '])
            .then(|| line.rsplit(' ').next()?.parse::<f64>().ok())?
    };
    metrics.lines().filter_map(of_metric).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_summed_over_its_labels() {
        let text = "# TYPE forebay_events_total counter\nforebay_events_total{endpoint=\"a b\",kind=\"feeds\"} 3\n\
            forebay_events_total{endpoint=\"c\",kind=\"media\"} 4\nforebay_events_total_x 9\n";
        assert_eq!(sum(text), 7.0);
        assert_eq!(sum(""), 0.0);
    }
}
