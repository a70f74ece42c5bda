//! What goes when a route pins more of the spool than it may, where new events are not refused instead: the oldest of
//! what is not with the sink.
//!
//! What is in flight stays, and is settled as ever: it is at most half of the limit. So a stream's events go out in
//! their order, with a gap.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::cause::{JobCause, JobFailure};
use super::metrics::JobMetrics;
use super::{Job, SessionEnd, plan};
use crate::{
    config::{BacklogFull, BacklogLimit, RouteConfig},
    sink::{PublishFailure, Remedy, Sink},
    spool::{Cursor, Record},
};

/// Once it pins more than it may, so much of the limit is what it gets down to.
const SHARE_KEPT: f64 = 0.9;
/// Before it is tried again where nothing could go.
const AGAIN_DELAY: Duration = Duration::from_secs(2);

pub(super) struct BacklogShedding {
    when_full: BacklogFull,
    bytes_max: u64,
    /// From where it pins more than it may until it is well below.
    is_shedding: bool,
    /// Nothing can go before.
    rests_until: Option<Instant>,
}

impl BacklogShedding {
    /// Limits what the route's cursor may pin.
    pub(super) fn new(route: &RouteConfig, cursor: &Cursor, metrics: &JobMetrics) -> Self {
        let BacklogLimit { bytes_max, when_full } = route.backlog;
        let labels = [route.name.as_str()];
        if let Some(bytes_max) = bytes_max {
            let shown = i64::try_from(bytes_max).unwrap_or(i64::MAX);
            metrics.route_pinned_bytes_max.with_label_values(&labels).set(shown);
            metrics.backlog_dropped.with_label_values(&labels).inc_by(0);
        } else {
            // An error says that there was none.
            let _ = metrics.route_pinned_bytes_max.remove_label_values(&labels);
        }
        cursor.limit(bytes_max.unwrap_or(u64::MAX));
        cursor.refuse_above_limit(bytes_max.is_some() && when_full == BacklogFull::Refuse);
        Self {
            when_full,
            bytes_max: bytes_max.unwrap_or(u64::MAX),
            is_shedding: false,
            rests_until: None,
        }
    }

    /// How much may be in flight, of `bytes_max`.
    pub(super) fn in_flight_bytes_max(&self, bytes_max: usize) -> usize {
        match self.when_full {
            BacklogFull::Refuse => bytes_max,
            _ => bytes_max.min(usize::try_from(self.bytes_max / 2).unwrap_or(usize::MAX)),
        }
    }
}

impl<S: Sink> Job<S> {
    /// Whether something is to go now.
    pub(super) fn sheds(&mut self) -> bool {
        let shedding = &mut self.shedding;
        if shedding.when_full == BacklogFull::Refuse || shedding.rests_until.is_some_and(|until| until > Instant::now())
        {
            return false;
        }
        let is_above = self
            .cursor
            .is_above(if shedding.is_shedding { SHARE_KEPT } else { 1.0 });
        if is_above && !shedding.is_shedding {
            tracing::warn!(
                route = self.route,
                pinned_bytes = self.cursor.pinned_bytes(),
                backlog_bytes_max = shedding.bytes_max,
                "the route may pin no more of the spool: {}",
                match shedding.when_full {
                    BacklogFull::DropOldest => "its oldest events are given up",
                    _ => "its oldest events go to the dead letters",
                }
            );
        }
        shedding.is_shedding = is_above;
        is_above
    }

    /// Lets go until enough has gone.
    pub(super) async fn shed_all(&mut self) -> Result<(), SessionEnd> {
        while self.sheds() {
            self.shed().await?;
        }
        Ok(())
    }

    /// Lets go of some of the oldest records that are not with the sink.
    pub(super) async fn shed(&mut self) -> Result<(), SessionEnd> {
        let kept = (self.shedding.bytes_max as f64 * SHARE_KEPT) as u64;
        let excess = self.cursor.pinned_bytes().saturating_sub(kept);
        let mut reader = self.spool.reader(self.cursor.position() + 1);
        reader.skip_settled(self.cursor.settled());
        let mut shed = Vec::new();
        let (mut read, mut bytes) = (Vec::new(), 0);
        while shed.is_empty() && !reader.is_at_head() {
            reader
                .next(self.sizes.read_records_max, self.sizes.read_bytes_max, &mut read)
                .await?;
            for record in read.drain(..) {
                if bytes <= excess && self.may_go(&record) {
                    bytes += record.bytes.len() as u64;
                    shed.push(record);
                }
            }
        }
        let gone = match self.shedding.when_full {
            BacklogFull::DeadLetter => self.keep_shed(shed).await,
            _ => {
                let dropped = self.metrics.all.backlog_dropped.with_label_values(&[&self.route]);
                dropped.inc_by(shed.len() as u64);
                shed
            }
        };
        if gone.is_empty() {
            self.shedding.rests_until = Some(Instant::now() + AGAIN_DELAY);
            return Ok(());
        }
        for record in &gone {
            match self.window.settle_held(record.sequence) {
                Some(settled) => settled.apply_to(&self.cursor),
                None => self
                    .cursor
                    .settle_record(record.sequence..=record.sequence, record.bytes.len()),
            }
            self.stuck.remove(record.sequence);
        }
        let is_gone = |record: &Record| gone.binary_search_by_key(&record.sequence, |one| one.sequence).is_ok();
        self.ahead.retain(|record| !is_gone(record));
        self.reader.skip_settled(self.cursor.settled());
        self.publish_progress();
        Ok(())
    }

    /// Whether the route has a record that is not settled, and not with the sink.
    fn may_go(&mut self, record: &Record) -> bool {
        let sequence = record.sequence;
        if sequence <= self.window.read() {
            return self.window.is_held(sequence);
        }
        plan::wants(self.plan.matches(), &record.bytes)
    }

    /// Keeps records among the dead letters; returns those that are. Where there is no room, new events are refused
    /// until there is.
    async fn keep_shed(&mut self, records: Vec<Record>) -> Vec<Record> {
        let failure = PublishFailure::from(JobFailure {
            remedy: Remedy::SetAside,
            cause: JobCause::BacklogFull,
            text: "the route may pin no more of the spool (backlog_bytes_max)".into(),
        });
        let kept = join_all(records.iter().map(|record| self.store_dead_letter(record, &failure))).await;
        let reason = kept.iter().find_map(|kept| kept.as_ref().err());
        self.cursor.refuse_above_limit(reason.is_some());
        if let Some(reason) = reason {
            self.status.block(reason);
        }
        let kept = records.into_iter().zip(kept).filter(|(_, kept)| kept.is_ok());
        kept.map(|(record, _)| record).collect()
    }
}
