//! Kafka, through librdkafka: one idempotent producer per route.
//!
//! Order is Forebay's own affair. A session is one life of a producer; at the first message that fails, librdkafka sends
//! nothing more (`enable.gapless.guarantee`), the producer is thrown away, and dispatch replays from the lowest unsettled
//! record through a new one. A copy that was written all the same has the same id.
//!
//! While a session lasts, it keeps to the partition count that it first saw of a topic. When the count changes, it takes
//! nothing more, lets what is in flight be confirmed, and ends; the next session uses the new count. So no key has messages
//! in flight to two partitions at once.

mod check;
pub mod embedded;
mod failure;
mod metrics;
mod oauth;
mod properties;
pub mod read;
mod session;
pub mod tail;
mod topics;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rdkafka::ClientConfig;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

pub use check::connect_check;
pub use failure::LABELS;
pub use metrics::KafkaMetrics;
pub(super) use properties::certificate_files;
pub use properties::{check_properties, message_bytes_max};

use self::{
    oauth::{Settings, Tokens},
    session::{Failed, SendError, Session},
};
use super::{EnqueueError, Failure, Labels, Message, Remedy, Settled, Sink};
use crate::config;

/// How long a route's owner waits for an old producer to go, before it goes on without.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// Nothing confirmed for so long, with messages in flight and a broker connected: the session is given up, for a client can hold
/// on to a view of the cluster that is gone.
const STALL_MAX: Duration = Duration::from_secs(120);
/// librdkafka's own `batch.size`.
const BATCH_BYTES: u32 = 1_000_000;
/// Batches are not made smaller than this.
const BATCH_BYTES_MIN: u32 = 4_096;

/// Whose producer it is.
#[derive(Debug, Clone)]
pub struct Names {
    pub sink: Arc<str>,
    pub route: Arc<str>,
    /// The topics that the route names without a placeholder.
    pub topics: Arc<[String]>,
}

/// What a route asks of its producer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest body that is accepted.
    pub body_bytes_max: u64,
    /// The route's window.
    pub in_flight_records_max: usize,
}

/// One route's producer.
pub struct KafkaSink {
    client: ClientConfig,
    /// Where tokens come from, for a sink that authenticates by them.
    oauth: Option<Settings>,
    tokens: Option<Tokens>,
    names: Names,
    metrics: Arc<KafkaMetrics>,
    create_topics: Option<config::CreateTopics>,
    /// Topics that are to be created, as far as they do not exist.
    wanted: BTreeSet<String>,
    session: Option<Session>,
    /// Why the last attempt to open a session failed.
    closed: Option<Failure>,
    /// The failure that ended the session, once it was told.
    over: Option<Failure>,
    /// When something was confirmed last, or the first message went out.
    progress: Instant,
    /// Messages of the session that are not settled.
    unsettled: usize,
    /// A topic took no batch of the size before: its `max.message.bytes` is for a batch as a whole.
    batch_bytes: Option<u32>,
}

impl KafkaSink {
    /// A sink without a session yet: [`Sink::reopen`] opens it. `Err`: a property breaks a promise.
    pub fn new(
        config: &config::Kafka,
        names: Names,
        limits: Limits,
        metrics: Arc<KafkaMetrics>,
    ) -> Result<Self, Failure> {
        if let Some((key, reason)) = check_properties(&config.properties).into_iter().next() {
            return Err(failure::failure(
                Remedy::Hold,
                failure::CONFIGURATION,
                format!("sink '{}': property {key} {reason}", names.sink),
            ));
        }
        let client = properties::client_config(
            config,
            message_bytes_max(limits.body_bytes_max),
            limits.in_flight_records_max.saturating_mul(2),
        );
        metrics.born(&names);
        Ok(Self {
            client,
            oauth: Settings::of(&format!("sink '{}'", names.sink), config),
            tokens: None,
            create_topics: config.create_topics,
            wanted: names.topics.iter().cloned().collect(),
            names,
            metrics,
            session: None,
            closed: None,
            over: None,
            progress: Instant::now(),
            unsettled: 0,
            batch_bytes: None,
        })
    }

    /// The session is over: says so from now on.
    fn end(&mut self, failure: Failure) -> Failure {
        self.over = Some(failure.clone());
        failure
    }
}

/// The size of batches after those of the size `now` were too large.
fn smaller(client: &ClientConfig, now: Option<u32>) -> u32 {
    let given = client.get("batch.size").and_then(|bytes| bytes.parse().ok());
    let now = now.or(given).unwrap_or(BATCH_BYTES);
    (now / 4).max(BATCH_BYTES_MIN).min(now)
}

fn no_session() -> Failure {
    failure::failure(Remedy::Retry, failure::OTHER, "no session with Kafka yet")
}

impl Sink for KafkaSink {
    async fn reopen(&mut self) -> Result<(), Failure> {
        if let Some(old) = self.session.take() {
            close(old).await;
        }
        let opened = self.open().await;
        self.over = None;
        self.unsettled = 0;
        self.progress = Instant::now();
        match opened {
            Ok(session) => {
                self.metrics.opened(&self.names);
                self.session = Some(session);
                self.closed = None;
                Ok(())
            }
            Err(failure) => {
                self.closed = Some(failure.clone());
                Err(failure)
            }
        }
    }

    fn enqueue(&mut self, message: Message) -> Result<(), EnqueueError> {
        if let Some(over) = &self.over {
            return Err(EnqueueError::Failed(over.clone()));
        }
        let session = self
            .session
            .as_ref()
            .ok_or_else(|| EnqueueError::Failed(no_session()))?;
        if session.shared.outcome.lock().failed.is_some() {
            // `settle` has something to tell first.
            return Err(EnqueueError::Full(Box::new(message)));
        }
        let idle = session.shared.in_flight.load(Ordering::Acquire) <= 0;
        match session.send(&message) {
            Ok(()) => {
                if idle {
                    self.progress = Instant::now();
                }
                self.unsettled += 1;
                Ok(())
            }
            Err(SendError::Full) => Err(EnqueueError::Full(Box::new(message))),
            Err(SendError::Failed(failure)) => {
                if failure.label == failure::UNKNOWN_TOPIC {
                    self.wanted.insert(message.destination.to_string());
                }
                Err(EnqueueError::Failed(failure))
            }
        }
    }

    async fn settle(&mut self, settled: &mut Vec<Settled>) -> Result<(), Failure> {
        loop {
            if let Some(over) = &self.over {
                return Err(over.clone());
            }
            let session = self.session.as_ref().ok_or_else(no_session)?;
            let outcome = std::mem::take(&mut *session.shared.outcome.lock());
            let before = settled.len();
            self.unsettled = self.unsettled.saturating_sub(outcome.confirmed.len());
            settled.extend(outcome.confirmed.into_iter().map(|sequence| Settled {
                sequence,
                result: Ok(()),
            }));
            if let Some(Failed {
                sequence,
                topic,
                failure,
            }) = outcome.failed
            {
                match failure.label {
                    failure::UNKNOWN_TOPIC => drop(self.wanted.insert(topic)),
                    // Alone, it was the message and not the batch around it.
                    failure::TOO_LARGE => {
                        self.batch_bytes = (self.unsettled > 1).then(|| smaller(&self.client, self.batch_bytes));
                    }
                    _ => {}
                }
                settled.push(Settled {
                    sequence,
                    result: Err(failure.clone()),
                });
                self.over = Some(failure);
            }
            if settled.len() > before {
                self.progress = Instant::now();
                return Ok(());
            }
            if let Some(over) = session.fatal().or_else(|| session.change()) {
                return Err(self.end(over));
            }
            if let Some(stalled) = self.stalled() {
                return Err(self.end(stalled));
            }
            let shared = session.shared.clone();
            // The second is for what no callback tells: a stall.
            let _ = timeout(Duration::from_secs(1), shared.changed.notified()).await;
        }
    }

    fn trouble(&self) -> Option<Failure> {
        let Some(session) = &self.session else {
            return self.closed.clone();
        };
        let told = session.shared.trouble()?;
        // A broker that refuses an expired token is not the one to talk to.
        let token = self.tokens.as_ref().and_then(Tokens::trouble);
        Some(token.unwrap_or(told))
    }

    fn labels(&self) -> Labels {
        Labels {
            failures: LABELS,
            dead_letters: failure::DEAD_LETTERS,
        }
    }
}

impl KafkaSink {
    async fn open(&mut self) -> Result<Session, Failure> {
        let lease = match &self.oauth {
            None => None,
            Some(settings) => {
                let tokens = self.tokens.get_or_insert_with(|| {
                    let (metrics, names) = (self.metrics.clone(), self.names.clone());
                    Tokens::fetch_telling(settings.clone(), move |not_after| metrics.token(&names, not_after))
                });
                Some(tokens.lease().await?)
            }
        };
        if let Some(how) = self.create_topics
            && !self.wanted.is_empty()
        {
            topics::create(&self.client, lease.as_ref(), how, &mut self.wanted).await;
        }
        let (mut client, names, metrics) = (self.client.clone(), self.names.clone(), self.metrics.clone());
        if let Some(bytes) = self.batch_bytes {
            client.set("batch.size", bytes.to_string());
        }
        tokio::task::spawn_blocking(move || Session::open(&client, lease, names, metrics))
            .await
            .expect("opening a session does not panic")
    }

    /// A broker is there and confirms nothing.
    fn stalled(&self) -> Option<Failure> {
        let shared = &self.session.as_ref()?.shared;
        let waiting = shared.in_flight.load(Ordering::Acquire);
        let quiet = self.progress.elapsed();
        (waiting > 0 && quiet >= STALL_MAX && shared.broker_up.load(Ordering::Relaxed)).then(|| {
            failure::failure(
                Remedy::Retry,
                failure::STALLED,
                format!(
                    "sink '{}': {waiting} messages in flight and none confirmed for {} s, with a broker connected: \
                     see whether the topic's partitions have leaders and min.insync.replicas",
                    self.names.sink,
                    quiet.as_secs()
                ),
            )
        })
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        // Destroying a producer takes a while, which a task must not; and a runtime that ends waits for it.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || session.close())),
            Err(_) => session.close(),
        }
    }
}

async fn close(session: Session) {
    let closing = tokio::task::spawn_blocking(move || session.close());
    if timeout(CLOSE_DEADLINE, closing).await.is_err() {
        tracing::warn!("an old Kafka producer is slow to go; going on without waiting for it");
    }
}

#[cfg(test)]
mod tests;
