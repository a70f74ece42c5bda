//! What keeps a route from publishing, and what is reported of it.

use tokio::time::Instant;

use super::cause::{JobCause, JobFailure};
use super::{Job, SEARCH_QUIET_MAX, SILENCE_MAX};
use crate::sink::{PublishFailure, Remedy, Sink};

impl<S: Sink> Job<S> {
    /// What keeps something from going out.
    pub(super) fn trouble(&self) -> Option<PublishFailure> {
        self.sink.trouble().or_else(|| self.stuck.trouble())
    }

    /// Once a second: what the sink says of itself, and whether the broker has gone silent.
    pub(super) fn watch(&mut self) {
        self.publish_progress();
        let in_flight = self.window.in_flight().records;
        let quiet = self.settled_at.elapsed();
        if in_flight > 0 && quiet >= SEARCH_QUIET_MAX {
            // One that is not answered must not end the search for another that is refused.
            self.limits.records = (self.limits.records * 2).min(self.limits.records_max);
        }
        let silent = in_flight > 0 && quiet >= SILENCE_MAX;
        let silence = || {
            PublishFailure::from(JobFailure {
                remedy: Remedy::Hold,
                cause: JobCause::NoConfirmation,
                text: format!(
                    "the broker has confirmed none of {in_flight} messages for {} s; they are waited for",
                    quiet.as_secs()
                ),
            })
        };
        let not_taken = self.not_taken_since.filter(|since| since.elapsed() >= SILENCE_MAX);
        let refusal = |since: Instant| {
            PublishFailure::from(JobFailure {
                remedy: Remedy::Hold,
                cause: JobCause::NotTaken,
                text: format!(
                    "the sink has had no room for the next message for {} s, though nothing is in flight: see its buffers",
                    since.elapsed().as_secs()
                ),
            })
        };
        let trouble = self.trouble().or_else(|| silent.then(silence));
        match trouble.or_else(|| not_taken.map(refusal)) {
            Some(failure) => self.status.block(&failure),
            // That nothing is wrong just now is no sign that anything goes out: a broker that confirms nothing lets
            // itself be connected to. So what blocks a route goes by a confirmation, or with nothing left to publish.
            None if self.spool.state().head <= self.cursor.position() => self.status.unblock(),
            None => {}
        }
    }

    /// Counts a failure that ended a session, and says it.
    pub(super) fn note(&mut self, failure: &PublishFailure) {
        let labels = [self.route.as_str(), failure.label];
        self.metrics.all.publish_errors.with_label_values(&labels).inc();
        self.spans.unsettled(failure.label);
        if failure.remedy == Remedy::Hold {
            self.status.block(failure);
        } else {
            self.status.failed(failure);
            tracing::warn!(
                route = self.route,
                kind = failure.label,
                "publishing is tried again: {failure}"
            );
        }
    }
}
