//! From a log to a sink: what publishes a log from a cursor on, until it is told to stop or has published all
//! ([`JobUntil`]). Each route is a job, with a cursor of its own.
//!
//! A job reads the spool in order, renders what its route wants and hands it to the route's [`Sink`]. Nothing of one
//! route is shared with another, so a route that is blocked holds back no other.
//!
//! # Order, and what a failure does to it
//!
//! A *session* is the time between two [`Sink::reopen`]. Within a session the messages of a stream go out in the order
//! of the spool. At the first failure the session is over: what it had in flight is unknown, and the next session
//! publishes again what is not settled. So a consumer can see a stretch of a stream again, at most what was in flight,
//! under the same ids and in the same order, and never misses a part of it. What the failure asks for ([`Remedy`])
//! decides what happens in between:
//!
//! - `Retry` and `Hold` wait, longer each time, and try again for ever; `Hold` also calls the route blocked, because
//!   somebody must act.
//! - `DeadLetter` blames one message, but a broker refuses the batch around it. The replay runs with fewer and fewer
//!   messages in flight until the refused one is alone; that one goes to the dead letters, and its neighbours pass.
//! - `SetAside` blames one message for certain: it goes to the dead letters, and the session goes on.
//!
//! A record for which there is no room among the dead letters waits there for some, and holds back no other, but that a
//! lane with many of them takes no more.
//!
//! # Lanes
//!
//! Messages that come to stand together, those of one partition, are a *lane*
//! ([`MessagePlace`](crate::sink::MessagePlace)). Whatever stands, a lane never takes all that may be in flight; what
//! has no room in its lane is deferred (`deferred.rs`): the route reads on for the others, and reads it again when
//! there is room. So a partition that is full, or a topic that is not there, holds back its own streams and no other.
//!
//! A route with a reorder window holds each event back for a moment, and so hands those of a stream over in the order
//! of their times (`reordering.rs`). What is held is not settled, so the cursor stays before it, and a crash finds it
//! in the spool.
//!
//! # The cursor
//!
//! A route may pin so much of the spool: where it would be more, new events are refused, or its oldest go
//! (`shedding.rs`).
//!
//! The cursor keeps which records are settled: all up to the lowest that is not, and ranges above it, which a replay
//! passes over. A record is settled when the broker has confirmed it and all that was handed over before it in its
//! stream, when it is durable among the dead letters, or when the route does not want it. The cursor on disk may lag:
//! that costs repeats after a crash, never a record.

mod backoff;
mod cause;
mod dead_letter;
mod dead_letters;
mod deferred;
mod end;
mod fill;
mod kept_letters;
mod metrics;
mod pause;
mod plan;
mod refused;
mod reordering;
mod republish;
mod routing;
mod selection;
mod shedding;
mod sizes;
mod spans;
mod status;
#[cfg(test)]
mod tests;
mod watching;
mod window;

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

pub use dead_letter::{DeadLetter, LetterDecodeError};
pub use dead_letters::{DeadLetters, DeadLettersKept, RouteDeadLetters};
pub use end::{JobUntil, StopSignal};
pub use kept_letters::{KeptLetter, LetterReading, LettersError};
pub use republish::{RepublishCounts, RepublishProgress, RepublishSource, Republishing};
pub use routing::{EventRouting, RouteSubscription};
pub use selection::{EventSelection, count_selected};
pub use status::{RouteSnapshot, RouteStatus, RouteTrouble};

use crate::{
    config,
    event::Event,
    sink::{PublishFailure, Remedy, SettledMessage, Sink},
    spool::{Cursor, LogReader, Record, Spool},
};
use backoff::SessionBackoff;
use deferred::{DeferredRecords, LOOK_INTERVAL};
use end::SessionEnd;
use fill::NextOut;
pub use metrics::JobMetrics;
use metrics::RouteMetrics;
use pause::{PAUSE_DEADLINE, paused};
use plan::RoutePlan;
use refused::{RefusedRecord, StuckRecords};
use reordering::RouteReordering;
use republish::RunningRepublishing;
use shedding::BacklogShedding;
use sizes::RouteSizes;
use spans::RouteSpans;
use status::now_ms;
use window::{InFlightWindow, SettledRecord};

/// A read that brought as many shows that they come fast: then they gather before the next read, which saves wake-ups
/// here and requests to the broker. A read that brought all it may is a backlog and is followed at once.
const GATHER_RECORDS_MIN: usize = 32;
const GATHER_INTERVAL: Duration = Duration::from_millis(25);
/// A broker that confirms nothing for this long, while something is in flight, is reported.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Nothing confirmed for so long: while a refused message is looked for, more than that may be in flight.
const SEARCH_QUIET_MAX: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_secs(1);

/// One route's way from the spool to its sink.
pub struct Job<S> {
    until: JobUntil,
    route: String,
    plan: RoutePlan,
    sink: S,
    spool: Spool,
    dead_letters: DeadLetters,
    reader: LogReader,
    cursor: Arc<Cursor>,
    window: InFlightWindow,
    status: RouteStatus,
    spans: RouteSpans,
    metrics: RouteMetrics,
    limits: InFlightLimits,
    sizes: RouteSizes,
    backoff: SessionBackoff,
    /// Read, in order, and not yet looked at.
    ahead: VecDeque<Record>,
    /// How far the log was read: what it has up to here is in `ahead` or was looked at.
    ahead_through: u64,
    /// The events that wait for what should go before them, where the route has a reorder window.
    reordering: Option<RouteReordering>,
    /// What is the next to go out, and waits for room.
    turn: Option<NextOut>,
    deferred: DeferredRecords,
    /// The sink had no room for what was deferred: it is offered again then.
    resting_until: Option<Instant>,
    /// To be dead-lettered when the replay meets it.
    condemned: Option<(u64, PublishFailure)>,
    /// To be kept among the dead letters, all together.
    refused: Vec<RefusedRecord>,
    stuck: StuckRecords,
    shedding: BacklogShedding,
    /// It publishes some of its log once more.
    again: Option<RunningRepublishing>,
    /// Whether it is paused; `None`: it cannot be.
    pause: Option<watch::Receiver<bool>>,
    settled: Vec<SettledMessage>,
    /// What that settles.
    settleable: Vec<SettledRecord>,
    /// When something was confirmed, or the first message was handed over.
    settled_at: Instant,
    /// Since when the sink has no room for the next message, though nothing is in flight.
    not_taken_since: Option<Instant>,
}

/// How much may be in flight.
struct InFlightLimits {
    records_max: usize,
    bytes_max: usize,
    /// Lower than `records_max` while a refused message is being looked for among its neighbours.
    records: usize,
    /// The search ends behind this record.
    search_until: u64,
}

impl<S: Sink> Job<S> {
    /// A job for `route`, which goes on behind `cursor`.
    pub fn new(
        route: &config::RouteConfig,
        replica: Arc<str>,
        sink: S,
        cursor: Cursor,
        spool: Spool,
        dead_letters: DeadLetters,
        metrics: Arc<JobMetrics>,
    ) -> Self {
        let position = cursor.position();
        let shedding = BacklogShedding::new(route, &cursor, &metrics);
        let cursor = Arc::new(cursor);
        let reordering = RouteReordering::new(route, &metrics);
        let plan = RoutePlan::new(route, replica);
        let reader = match &reordering {
            None => spool.reader_of(position + 1, plan.wanted()),
            // What others want tells it how far the time is.
            Some(_) => spool.reader(position + 1),
        };
        Self {
            until: JobUntil::Stopped,
            route: route.name.clone(),
            plan,
            reader,
            spool,
            dead_letters,
            status: RouteStatus::new(&route.name, &route.sink, cursor.clone(), metrics.clone()),
            cursor,
            window: InFlightWindow::new(position),
            spans: RouteSpans::off(&route.name),
            metrics: RouteMetrics::new(&route.name, sink.labels(), metrics),
            sink,
            limits: InFlightLimits {
                records_max: route.in_flight_records_max,
                bytes_max: shedding.in_flight_bytes_max(route.in_flight_bytes_max),
                records: route.in_flight_records_max,
                search_until: 0,
            },
            sizes: RouteSizes::now(),
            backoff: SessionBackoff::default(),
            ahead: VecDeque::new(),
            ahead_through: position,
            reordering,
            turn: None,
            deferred: DeferredRecords::default(),
            resting_until: None,
            condemned: None,
            refused: Vec::new(),
            stuck: StuckRecords::default(),
            shedding,
            again: None,
            pause: None,
            settled: Vec::new(),
            settleable: Vec::new(),
            settled_at: Instant::now(),
            not_taken_since: None,
        }
    }

    /// With another end than to be told to.
    #[must_use]
    pub fn until(mut self, until: JobUntil) -> Self {
        self.until = until;
        self
    }

    /// What it publishes of what is taken in.
    pub fn subscription(&self) -> RouteSubscription {
        RouteSubscription {
            matches: self.plan.matches().clone(),
            cursor: self.cursor.clone(),
        }
    }

    /// What the route tells of itself.
    pub fn status(&self) -> RouteStatus {
        self.status.clone()
    }

    /// Publishes until its end, session after session.
    pub async fn run(mut self, mut stop: StopSignal) {
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(Option::is_some) => return,
                () = self.stand_while_paused() => {}
            }
            match self.session(&mut stop).await {
                Err(SessionEnd::Over) => {
                    self.spans.unsettled("stopped");
                    return;
                }
                Err(SessionEnd::Paused) => continue,
                Err(SessionEnd::Failed(failure)) => self.note(&failure),
                Ok(never) => match never {},
            }
            let until = Instant::now() + self.backoff.delay();
            tokio::select! {
                biased;
                _ = stop.wait_for(Option::is_some) => return,
                () = self.rest(until) => {}
            }
        }
    }

    /// Waits before the next session.
    async fn rest(&mut self, until: Instant) {
        while Instant::now() < until {
            if let Err(SessionEnd::Failed(failure)) = self.shed_all().await {
                self.note(&failure);
            }
            sleep_until(until.min(Instant::now() + TICK)).await;
        }
    }

    /// One session, from the lowest record that is not settled, until something ends it.
    async fn session(&mut self, stop: &mut StopSignal) -> Result<std::convert::Infallible, SessionEnd> {
        self.rewind();
        self.shed_all().await?;
        tokio::select! {
            biased;
            _ = stop.wait_for(Option::is_some) => return Err(SessionEnd::Over),
            peeked = self.peek() => peeked?,
        }
        if self.is_done() {
            return Err(SessionEnd::Over);
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(Option::is_some) => return Err(SessionEnd::Over),
            opened = self.sink.reopen() => opened?,
        }
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut read = Vec::new();
        let mut gathering = None;
        let mut shedding = false;
        let (mut pause, mut is_paused) = (self.pause.clone(), false);
        loop {
            if mem::take(&mut shedding) {
                self.shed().await?;
            }
            self.fill().await?;
            if self.is_done() {
                return Err(SessionEnd::Over);
            }
            let wants_more = self.wants_more();
            let release_at = if wants_more { self.release_at() } else { None };
            let lane_with_room = self.lane_with_room();
            let sheds = self.sheds();
            // What is deferred and has room goes first: read on without it, a lane that was slow once stays behind for
            // ever.
            let reads_on =
                wants_more && gathering.is_none() && lane_with_room.is_none() && self.ahead_through < self.last();
            let looks = self.turn.is_some() || self.resting_until.is_some();
            let over = tokio::select! {
                biased;
                _ = stop.wait_for(Option::is_some) => break,
                () = paused(&mut pause) => {
                    is_paused = true;
                    break;
                }
                over = self.sink.settle(&mut self.settled) => Some(over),
                () = std::future::ready(()), if sheds => {
                    shedding = true;
                    continue;
                }
                () = sleep_until(gathering.unwrap_or_else(Instant::now)), if gathering.is_some() => {
                    gathering = None;
                    continue;
                }
                more = self.reader.next(self.sizes.read_records_max, self.sizes.read_bytes_max, &mut read), if reads_on => {
                    let through = more?;
                    let fast = (GATHER_RECORDS_MIN..self.sizes.read_records_max).contains(&read.len());
                    gathering = fast.then(|| Instant::now() + GATHER_INTERVAL);
                    self.read(read.drain(..), through);
                    continue;
                }
                fetched = self.deferred.fetch(lane_with_room.unwrap_or_default(), &self.spool, &self.cursor),
                    if lane_with_room.is_some() =>
                {
                    fetched?;
                    continue;
                }
                () = sleep(LOOK_INTERVAL), if looks => {
                    self.resting_until = None;
                    continue;
                }
                () = sleep_until(release_at.unwrap_or_else(Instant::now)), if release_at.is_some() => {
                    self.reordering.iter_mut().for_each(RouteReordering::pass_time);
                    continue;
                }
                _ = tick.tick() => None,
            };
            let Some(over) = over else {
                self.watch();
                self.unstick().await?;
                continue;
            };
            self.process_settled(over).await?;
        }
        if is_paused {
            self.finish(Instant::now() + PAUSE_DEADLINE).await?;
            return Err(SessionEnd::Paused);
        }
        let deadline = stop.borrow().unwrap_or_else(Instant::now);
        self.finish(deadline).await?;
        Err(SessionEnd::Over)
    }

    fn rewind(&mut self) {
        let position = self.cursor.position();
        self.window.rewind(position);
        self.reader.seek(position + 1);
        self.reader.skip_settled(self.cursor.settled());
        self.ahead.clear();
        self.ahead_through = position;
        self.reordering.iter_mut().for_each(RouteReordering::rewind);
        self.turn = None;
        self.deferred.clear();
        self.resting_until = None;
        self.refused.clear();
        self.stuck.rewind();
        self.not_taken_since = None;
        self.settled.clear();
        self.publish_progress();
    }

    /// Reads the oldest record that is not settled, so that its age is known also while no session can be opened.
    async fn peek(&mut self) -> Result<(), SessionEnd> {
        if self.spool.state().head <= self.cursor.position() {
            return Ok(());
        }
        let mut read = Vec::new();
        while read.is_empty() && !self.reader.is_at_head() {
            self.ahead_through = self.reader.next(1, self.sizes.read_bytes_max, &mut read).await?;
            if read.is_empty() {
                self.pass(self.ahead_through);
            }
        }
        let oldest = read.first().and_then(|record| Event::decode(&record.bytes).ok());
        if let Some(event) = oldest {
            self.status.waiting_since(event.recorded.0);
        }
        self.read(read, self.ahead_through);
        Ok(())
    }

    /// Takes in what the sink settled. `over`: whether the session goes on.
    async fn process_settled(&mut self, over: Result<(), PublishFailure>) -> Result<(), SessionEnd> {
        let (now, instant) = (now_ms(), Instant::now());
        let in_flight = self.window.in_flight().records;
        let mut failed = None;
        let mut refused = Vec::new();
        let mut confirmed = 0;
        for SettledMessage { sequence, result } in self.settled.drain(..) {
            match result {
                Ok(()) => {
                    self.spans.confirmed(sequence);
                    if let Some(recorded) = self.window.confirm(sequence, instant, &mut self.settleable) {
                        confirmed += 1;
                        let seconds = now.saturating_sub(recorded).max(0) as f64 / 1000.0;
                        self.metrics.publish_seconds.observe(seconds);
                    }
                }
                Err(failure) if failure.remedy == Remedy::SetAside => {
                    self.spans.failed(sequence, failure.label);
                    refused.push((sequence, failure));
                }
                Err(failure) if failed.is_none() => failed = Some((sequence, failure)),
                Err(_) => {}
            }
        }
        self.settle_letters();
        window::apply_settled(&mut self.settleable, &self.cursor);
        self.count_published(confirmed);
        let progressed = confirmed > 0 || !refused.is_empty();
        if !refused.is_empty() {
            self.set_aside(refused).await?;
        }
        if progressed {
            self.metrics.published.inc_by(confirmed);
            self.settled_at = Instant::now();
            self.backoff.reset();
            // A part of the route may still be stuck, which the sink then says.
            if self.trouble().is_none() {
                self.status.unblock();
            }
            self.publish_progress();
        }
        if let Some((sequence, failure)) = failed {
            if failure.remedy == Remedy::DeadLetter {
                self.search(sequence, &failure, in_flight);
            }
            return Err(failure.into());
        }
        over.map_err(SessionEnd::from)
    }

    /// All up to here was read and is nothing for this route.
    fn pass(&mut self, through: u64) {
        self.cursor.settle(self.window.pass(through));
    }

    fn settle_held(&mut self, sequence: u64) {
        if let Some(settled) = self.window.settle_held(sequence) {
            settled.apply_to(&self.cursor);
        }
    }

    fn publish_progress(&mut self) {
        let until = self.limits.search_until;
        let holds_back = |held: &RouteReordering| held.holds_up_to(until);
        if self.window.read() >= until && !self.reordering.as_ref().is_some_and(holds_back) {
            self.limits.records = self.limits.records_max;
        }
        let in_flight = self.window.in_flight().records;
        self.status.progress(in_flight, self.window.oldest_recorded_ms());
        self.note_read();
    }
}
