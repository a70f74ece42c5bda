//! One life of a connection: its lanes, and what they share.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use lapin::{Event, types::ShortString};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::Instant,
};

use super::{RabbitMqNames, connect::BrokerLink, failure, lane::ChannelLane, metrics::RabbitMqMetrics};
use crate::failure::{RabbitMqCause, RabbitMqFailure};
use crate::settings;
use forebay_broker::{Message, Remedy, SettledMessage, partition::partition_of};

/// A lane that was refused so long, with nothing taken in between, is told of.
const REFUSED_MAX: Duration = Duration::from_secs(1);

/// What the tasks of a session share with its owner.
pub(super) struct SessionShared {
    pub names: RabbitMqNames,
    pub exchange: ShortString,
    pub hold_unroutable: bool,
    /// What is missing is made by the next session.
    declares: bool,
    /// What came back in the session before, which ended for it, and in this one.
    returned_before: BTreeSet<u64>,
    returned: Mutex<BTreeSet<u64>>,
    pub link: BrokerLink,
    pub changed: Notify,
    outcome: Mutex<LaneOutcome>,
    blocked: Mutex<BlockedConnection>,
    /// Lanes whose queues take nothing, since when, and why.
    refused: Mutex<BTreeMap<usize, (Instant, RabbitMqFailure)>>,
    /// Those that had no answer at all in the session before, and have not begun in this one.
    silent_before: Mutex<BTreeMap<usize, (Instant, RabbitMqFailure)>>,
    /// When something was confirmed last.
    confirmed: Mutex<Option<Instant>>,
    partitions: u32,
    /// How many channels were opened.
    channels: AtomicUsize,
    metrics: Arc<RabbitMqMetrics>,
}

/// What became of messages, and of the session.
#[derive(Default)]
pub(super) struct LaneOutcome {
    pub settled: Vec<SettledMessage>,
    pub over: Option<RabbitMqFailure>,
}

/// What a session leaves to the next one.
#[derive(Default)]
pub(super) struct SessionBefore {
    /// The messages that came back, for which it was ended by a missing queue.
    returned: BTreeSet<u64>,
    /// Lanes without any answer, since when, and why.
    silent: BTreeMap<usize, (Instant, RabbitMqFailure)>,
}

#[derive(Default)]
struct BlockedConnection {
    reason: Option<String>,
    ended: Option<Instant>,
}

pub(super) struct RabbitMqSession {
    pub shared: Arc<SessionShared>,
    lanes: Vec<Option<mpsc::UnboundedSender<Message>>>,
    tasks: JoinSet<()>,
}

impl RabbitMqSession {
    /// `before`: what is to be known of the session before. `lanes`: how many channels there may be.
    pub fn new(
        link: BrokerLink,
        config: &settings::RabbitMqConfig,
        names: RabbitMqNames,
        metrics: Arc<RabbitMqMetrics>,
        before: SessionBefore,
        lanes: usize,
    ) -> Self {
        metrics.session(&names, true);
        let events = link.events_listener();
        let shared = Arc::new(SessionShared {
            names,
            exchange: config.exchange.as_str().into(),
            hold_unroutable: config.unroutable == settings::Unroutable::Hold,
            declares: config.declare,
            returned_before: before.returned,
            returned: Mutex::default(),
            link,
            changed: Notify::new(),
            outcome: Mutex::default(),
            blocked: Mutex::default(),
            refused: Mutex::default(),
            silent_before: Mutex::new(before.silent),
            confirmed: Mutex::default(),
            partitions: config.partitions,
            channels: AtomicUsize::new(0),
            metrics,
        });
        let mut tasks = JoinSet::new();
        let watched = shared.clone();
        tasks.spawn(async move {
            let mut events = pin!(events);
            while let Some(event) = events.next().await {
                watched.heard(event);
            }
        });
        Self {
            shared,
            lanes: vec![None; lanes],
            tasks,
        }
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Gives a message to its partition's lane. `Err`: the lane has ended, which the session will tell.
    pub fn send(&mut self, message: Message) -> Result<(), Box<Message>> {
        let number = self.shared.partition(&message) as usize % self.lanes.len();
        let feed = self.lanes[number].get_or_insert_with(|| {
            // How much may be on its way is the route's to say.
            let (feed, lane) = mpsc::unbounded_channel();
            self.tasks.spawn(ChannelLane::run(number, self.shared.clone(), lane));
            feed
        });
        feed.send(message).map_err(|refused| Box::new(refused.0))
    }

    /// A failure that no task told.
    pub fn failed(&mut self) -> Option<RabbitMqFailure> {
        let sink = &self.shared.names.sink;
        if let Some(ended) = self.tasks.try_join_next() {
            let text = match ended {
                Ok(()) => "its task ended",
                Err(_) => "a bug: its task panicked",
            };
            return Some(failure::closed(sink, text));
        }
        let lost = !self.shared.link.status().connected();
        lost.then(|| failure::closed(sink, "it is not connected any more"))
    }

    /// Ends the session: nothing is published any more.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
        self.shared.metrics.session(&self.shared.names, false);
        if let Some(shared) = Arc::into_inner(self.shared) {
            shared.link.close().await;
        }
    }

    /// Without waiting.
    pub fn abandon(self) {
        self.shared.metrics.session(&self.shared.names, false);
    }
}

impl SessionShared {
    /// The session is over. The first reason counts.
    pub fn end(&self, mut failure: RabbitMqFailure) {
        if failure.cause == RabbitMqCause::Channels && self.channels.load(Ordering::Relaxed) > 0 {
            // The next session makes do with those that there were.
            failure.remedy = Remedy::Retry;
        }
        self.outcome.lock().over.get_or_insert(failure);
        self.changed.notify_one();
    }

    pub fn report_settled(&self, settled: impl Iterator<Item = SettledMessage>) {
        self.outcome.lock().settled.extend(settled);
        self.changed.notify_one();
    }

    /// What was settled since the last time; the reason of the end stays.
    pub fn drain_settled(&self, settled: &mut Vec<SettledMessage>) -> Option<RabbitMqFailure> {
        let mut outcome = self.outcome.lock();
        settled.append(&mut outcome.settled);
        outcome.over.clone()
    }

    pub fn is_over(&self) -> bool {
        self.outcome.lock().over.is_some()
    }

    /// Whether a message that came back is to end the session, so that the next one declares what is missing. Once:
    /// what comes back of queues that were declared just now is not missing them.
    pub fn is_to_be_declared_for(&self, sequence: u64) -> bool {
        let declares = self.declares && !self.returned_before.contains(&sequence);
        if declares {
            self.returned.lock().insert(sequence);
        }
        declares
    }

    /// What the next session is to know of this one.
    pub fn leave(&self) -> SessionBefore {
        let refused = mem::take(&mut *self.refused.lock());
        let silent = refused
            .into_iter()
            .filter(|(_, (_, failure))| failure.cause == RabbitMqCause::Unconfirmed);
        SessionBefore {
            returned: mem::take(&mut self.returned.lock()),
            silent: silent.chain(mem::take(&mut *self.silent_before.lock())).collect(),
        }
    }

    pub fn unroutable(&self, remedy: Remedy, routing_key: &str) -> RabbitMqFailure {
        failure::unroutable(remedy, &self.names.sink, self.exchange.as_str(), routing_key)
    }

    pub fn was_blocked_within(&self, time: Duration) -> bool {
        let blocked = self.blocked.lock();
        blocked.reason.is_some() || blocked.ended.is_some_and(|ended| ended.elapsed() < time)
    }

    pub fn partition(&self, message: &Message) -> u32 {
        partition_of(message.key.as_bytes(), self.partitions)
    }

    pub fn lane_is_refused(&self, lane: usize, since: Instant, failure: RabbitMqFailure) {
        self.refused.lock().insert(lane, (since, failure));
    }

    /// Whether a lane that begins had no answer in the session before: it goes on to be reported so.
    pub fn was_silent(&self, lane: usize) -> bool {
        let silent = self.silent_before.lock().remove(&lane);
        let was_silent = silent.is_some();
        self.refused.lock().extend(silent.map(|silent| (lane, silent)));
        was_silent
    }

    pub fn confirmed(&self) {
        *self.confirmed.lock() = Some(Instant::now());
    }

    pub fn was_confirmed_within(&self, time: Duration) -> bool {
        self.confirmed.lock().is_some_and(|at| at.elapsed() < time)
    }

    pub fn lane_is_well(&self, lane: usize) {
        self.refused.lock().remove(&lane);
    }

    /// What keeps messages from being confirmed.
    pub fn trouble(&self) -> Option<RabbitMqFailure> {
        if let Some(reason) = &self.blocked.lock().reason {
            return Some(failure::blocked(&self.names.sink, reason));
        }
        let refused = self.refused.lock();
        let mut long = refused.values().filter(|(since, _)| since.elapsed() >= REFUSED_MAX);
        long.next().map(|(_, failure)| failure.clone())
    }

    /// How many channels RabbitMQ gave, if it was one too many that ended the session.
    pub fn channels_granted(&self) -> Option<usize> {
        let outcome = self.outcome.lock();
        let over = outcome.over.as_ref()?;
        (over.cause == RabbitMqCause::Channels).then(|| self.channels.load(Ordering::Relaxed))
    }

    pub fn channel_opened(&self) {
        self.channels.fetch_add(1, Ordering::Relaxed);
        self.metrics.channels.with_label_values(&self.labels()).inc();
    }

    pub fn count_returned(&self, count: usize) {
        if count > 0 {
            self.metrics
                .returned
                .with_label_values(&self.labels())
                .inc_by(count as u64);
        }
    }

    pub fn count_nack(&self) {
        self.metrics.nacks.with_label_values(&self.labels()).inc();
    }

    fn labels(&self) -> [&str; 2] {
        [&self.names.sink, &self.names.route]
    }

    fn heard(&self, event: Event) {
        match event {
            Event::ConnectionBlocked(reason) => {
                self.metrics.blocked.with_label_values(&self.labels()).set(1);
                self.blocked.lock().reason = Some(reason);
            }
            Event::ConnectionUnblocked => {
                self.metrics.blocked.with_label_values(&self.labels()).set(0);
                *self.blocked.lock() = BlockedConnection {
                    reason: None,
                    ended: Some(Instant::now()),
                };
            }
            // A lane that a channel's error belongs to tells more of it.
            Event::Error(error) if !self.link.status().connected() => {
                self.end(failure::of_session(&error, &self.names.sink, self.exchange.as_str()));
            }
            _ => {}
        }
    }
}
