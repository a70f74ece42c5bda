//! Kafka, through librdkafka: one idempotent producer per route.
//!
//! Order is Forebay's own affair. A session is one life of a producer; at the first message that fails, librdkafka
//! sends nothing more (`enable.gapless.guarantee`), the producer is thrown away, and the job replays what is not
//! settled through a new one. A copy that was written all the same has the same id.
//!
//! What may not go to the producer yet waits in the sink, by topic and partition (`lanes`): until a topic was found,
//! and until a partition's first confirmation of the session. What becomes of a topic that is not there is the route's
//! to say ([`UnknownTopic`]); what goes elsewhere does not wait for it.
//!
//! While a session lasts, it keeps to the partition count that it first saw of a topic. When the count changes, it
//! takes nothing more, lets what is in flight be confirmed, and ends; the next session uses the new count. So no key
//! has messages in flight to two partitions at once.

mod broker;
mod certificates;
mod check;
pub mod embedded;
mod failure;
mod lanes;
mod metrics;
mod oauth;
mod outcome;
mod properties;
mod read;
mod search;
mod session;
pub mod settings;
mod sizes;
mod state;
mod tail;
mod topics;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rdkafka::ClientConfig;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

pub use broker::{Kafka, read_topics, tail_topics};
pub use check::connect_check;
pub use failure::{KafkaCause, KafkaFailure};
pub use metrics::KafkaMetrics;
pub use properties::{SECRETS, check_properties, check_sizes, message_bytes_max};
pub use read::TopicReading;
pub use settings::{CreateTopics, KafkaConfig, RouteTopics, UnknownTopic};
pub use tail::{KafkaTail, KafkaTailError, KafkaTailOptions, KafkaTailed};

use self::{
    lanes::{PartitionLanes, PlacedMessage},
    oauth::{OauthSettings, TokenKeeper, TokenLease},
    search::TopicSearch,
    session::{ProducerSession, SendError},
    sizes::{AskedTopics, TopicSizes},
    state::{SessionProducers, SessionState},
};
use forebay_broker::{
    EnqueueError, Message, MessageDestination, MessagePlace, PublishFailure, Remedy, SettledMessage, Sink, SinkLabels,
    SinkLimits, number_of,
};

/// How long a route's owner waits for an old producer to go, before it goes on without.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// A partition that has confirmed nothing for so long, with messages in flight, is told of.
const STALL_MIN: Duration = Duration::from_secs(20);
/// Nothing confirmed for so long, with messages in flight and a broker connected: the session is given up, for a client
/// can hold on to a view of the cluster that is gone.
const STALL_MAX: Duration = Duration::from_secs(120);
/// With no broker connected for so long, and something to be published, the session is given up too.
const DISCONNECTED_MAX: Duration = Duration::from_secs(60);
/// librdkafka's own `batch.size`.
const BATCH_BYTES: usize = 1_000_000;
/// Between two looks for topics that are not there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Whose producer it is.
#[derive(Debug, Clone)]
pub struct KafkaNames {
    pub sink: Arc<str>,
    pub route: Arc<str>,
    /// The topic, where the configuration names it.
    topic: Option<Arc<str>>,
}

impl KafkaNames {
    pub fn new(sink: &str, route: &str) -> Self {
        Self {
            sink: sink.into(),
            route: route.into(),
            topic: None,
        }
    }
}

/// One route's producer.
pub struct KafkaSink {
    client: ClientConfig,
    /// Where tokens come from, for a sink that authenticates by them.
    oauth: Option<OauthSettings>,
    tokens: Option<TokenKeeper>,
    names: KafkaNames,
    topics: RouteTopics,
    metrics: Arc<KafkaMetrics>,
    create_topics: Option<CreateTopics>,
    session: SessionState,
    lanes: PartitionLanes,
    search: TopicSearch,
    /// Settled without the broker.
    refused: Vec<SettledMessage>,
    /// On their way to the fallback, by sequence.
    diverted: BTreeMap<u64, Message>,
    /// When something was confirmed last, or the first message went out.
    progress: Instant,
    /// Why a session was given up, until another has confirmed something.
    stalled: Option<KafkaFailure>,
    /// Messages of the session that are not settled.
    unsettled: usize,
    sizes: TopicSizes,
    /// The largest body that is accepted.
    body_bytes_max: u64,
    asked: AskedTopics,
}

impl KafkaSink {
    /// A sink without a session yet: [`Sink::reopen`] opens it. `Err`: a property breaks a promise.
    pub fn new(
        config: &KafkaConfig,
        mut names: KafkaNames,
        topics: RouteTopics,
        limits: SinkLimits,
        metrics: Arc<KafkaMetrics>,
    ) -> Result<Self, KafkaFailure> {
        if let Some((key, reason)) = check_properties(&config.properties).into_iter().next() {
            return Err(failure::failure(
                Remedy::Hold,
                KafkaCause::Configuration,
                format!("sink '{}': property {key} {reason}", names.sink),
            ));
        }
        let client = properties::client_config(
            config,
            message_bytes_max(limits.body_bytes_max),
            limits.in_flight_records_max.saturating_mul(2),
        );
        names.topic = topics.literal().cloned();
        metrics.born(&names);
        Ok(Self {
            client,
            oauth: OauthSettings::from_config(&format!("sink '{}'", names.sink), config),
            tokens: None,
            create_topics: config.create_topics,
            names,
            topics,
            metrics,
            session: SessionState::New,
            lanes: PartitionLanes::default(),
            search: TopicSearch::default(),
            refused: Vec::new(),
            diverted: BTreeMap::new(),
            progress: Instant::now(),
            stalled: None,
            unsettled: 0,
            sizes: TopicSizes::default(),
            body_bytes_max: limits.body_bytes_max,
            asked: AskedTopics::default(),
        })
    }

    /// The session is over: says so from now on.
    fn end(&mut self, failure: KafkaFailure) -> KafkaFailure {
        self.session.end(failure.clone());
        failure
    }
}

/// Gives a message to the producer.
fn send(session: &ProducerSession, message: &Message, lane: usize, progress: &mut Instant) -> Result<(), SendError> {
    let idle = session.shared.in_flight.load(Ordering::Acquire) <= 0;
    session.send(message, lane)?;
    if idle {
        *progress = Instant::now();
    }
    Ok(())
}

impl Sink for KafkaSink {
    async fn reopen(&mut self) -> Result<(), PublishFailure> {
        self.search = TopicSearch::default();
        self.refused.clear();
        self.diverted.clear();
        for old in self.session.take().into_iter().flat_map(SessionProducers::into_each) {
            close(old).await;
        }
        let opened = self.open().await;
        self.lanes = PartitionLanes::new(self.sizes.clone());
        self.unsettled = 0;
        self.progress = Instant::now();
        match opened {
            Ok(producers) => {
                self.metrics.opened(&self.names);
                self.session = SessionState::Open(producers);
                if let Some(topic) = self.topics.literal() {
                    self.lanes.expect(topic);
                }
                Ok(())
            }
            Err(failure) => {
                self.session = SessionState::Refused(failure.clone());
                Err(failure.into())
            }
        }
    }

    fn place(&self, address: &str, key: &str) -> MessagePlace {
        MessagePlace {
            lane: self.lanes.number(address, key),
            stream: number_of((address, key)),
        }
    }

    fn destination(&self, message: &Message) -> MessageDestination {
        let topic = message.address.to_string();
        MessageDestination {
            attributes: vec![
                ("messaging.system", "kafka".to_owned()),
                ("messaging.destination.name", topic.clone()),
                ("messaging.kafka.message.key", message.key.clone()),
            ],
            name: topic,
        }
    }

    fn enqueue(&mut self, message: Message) -> Result<(), EnqueueError> {
        let producers = self.session.open();
        let session = &producers.map_err(|over| EnqueueError::Failed(over.into()))?.main;
        // `settle` has something to tell first.
        if !session.shared.outcome.lock().failed.is_empty() {
            return Err(EnqueueError::Full(Box::new(message)));
        }
        let now = Instant::now();
        if self.unsettled == 0 {
            self.progress = now;
        }
        match self.lanes.place(message, now) {
            PlacedMessage::Held => {}
            PlacedMessage::Absent(message, failure) => {
                self.search.again(message.address.clone());
                self.place_elsewhere(message, failure);
            }
            PlacedMessage::Go(message, lane) => match send(session, &message, lane, &mut self.progress) {
                Ok(()) => self.lanes.sent(lane, now),
                Err(SendError::Full) => return Err(EnqueueError::Full(Box::new(message))),
                Err(SendError::Failed(failure)) => return Err(EnqueueError::Failed(failure.into())),
            },
        }
        self.unsettled += 1;
        Ok(())
    }

    async fn settle(&mut self, settled: &mut Vec<SettledMessage>) -> Result<(), PublishFailure> {
        loop {
            self.session.open()?;
            let before = settled.len();
            self.take_outcome(settled)?;
            self.take_outcome_aside(settled);
            self.take_look();
            self.release(settled);
            self.look();
            settled.append(&mut self.refused);
            self.unsettled = self.unsettled.saturating_sub(settled.len() - before);
            if settled.len() > before {
                return Ok(());
            }
            let main = &self.session.open()?.main;
            if let Some(over) = main.fatal().or_else(|| main.change()) {
                return Err(self.end(over).into());
            }
            if let Some(disconnected) = self.disconnected() {
                return Err(self.end(disconnected).into());
            }
            if let Some(stalled) = self.silence() {
                self.stalled = Some(stalled.clone());
                return Err(self.end(stalled).into());
            }
            let SessionProducers { main, aside } = self.session.open()?;
            let changed = async {
                match aside {
                    None => main.shared.changed.notified().await,
                    Some(aside) => tokio::select! {
                        () = main.shared.changed.notified() => {}
                        () = aside.shared.changed.notified() => {}
                    },
                }
            };
            // The second is for what no callback tells: a stall, a topic to look for again.
            let _ = timeout(LOOK_INTERVAL, changed).await;
        }
    }

    fn trouble(&self) -> Option<PublishFailure> {
        let main = match &self.session {
            SessionState::New => return None,
            SessionState::Refused(failure) => return Some(failure.clone().into()),
            SessionState::Open(producers) | SessionState::Over(producers, _) => &producers.main,
        };
        let Some(found) = main.shared.trouble(self.waiting()) else {
            let stalled = self.stalled.clone().or_else(|| self.stalled_partition());
            return stalled.or_else(|| self.lanes.trouble().cloned()).map(Into::into);
        };
        // A broker that refuses an expired token is not the one to talk to.
        let token = self.tokens.as_ref().and_then(TokenKeeper::trouble);
        Some(token.unwrap_or(found).into())
    }

    fn labels(&self) -> SinkLabels {
        SinkLabels::from_causes(&KafkaCause::ALL, &KafkaCause::OF_A_MESSAGE)
    }
}

impl KafkaSink {
    async fn open(&mut self) -> Result<SessionProducers, KafkaFailure> {
        let lease = match &self.oauth {
            None => None,
            Some(settings) => {
                let tokens = self.tokens.get_or_insert_with(|| {
                    let (metrics, names) = (self.metrics.clone(), self.names.clone());
                    TokenKeeper::fetch_telling(settings.clone(), move |not_after| metrics.token(&names, not_after))
                });
                Some(tokens.lease().await?)
            }
        };
        self.search.lease = lease.clone();
        self.sizes.ask(&self.client, lease.as_ref()).await;
        let mut client = self.client.clone();
        client.set("batch.size", self.sizes.batch_bytes(&self.client).to_string());
        let main = self.open_producer(client, lease.clone()).await?;
        let aside = match self.sizes.is_empty() {
            true => Ok(None),
            false => self
                .open_producer(properties::alone(&self.client), lease)
                .await
                .map(Some),
        };
        match aside {
            Ok(aside) => Ok(SessionProducers { main, aside }),
            Err(failure) => {
                close(main).await;
                Err(failure)
            }
        }
    }

    async fn open_producer(
        &self,
        client: ClientConfig,
        lease: Option<TokenLease>,
    ) -> Result<ProducerSession, KafkaFailure> {
        let (names, metrics) = (self.names.clone(), self.metrics.clone());
        tokio::task::spawn_blocking(move || ProducerSession::open(&client, lease, names, metrics))
            .await
            .expect("opening a session does not panic")
    }

    /// Sends what was held back and may go now.
    fn release(&mut self, settled: &mut Vec<SettledMessage>) {
        self.divert();
        let Some(SessionProducers { main, aside }) = self.session.producers() else {
            return;
        };
        let progress = &mut self.progress;
        while let Err((sequence, mut failure)) = (self.lanes).release(Instant::now(), |message, lane, alone| {
            let session = aside.as_ref().filter(|_| alone).unwrap_or(main);
            match send(session, message, lane, progress) {
                Ok(()) => Ok(true),
                Err(SendError::Full) => Ok(false),
                Err(SendError::Failed(failure)) => Err(failure),
            }
        }) {
            let own_fault = failure.remedy == Remedy::DeadLetter;
            if own_fault {
                // It was not sent, so the session goes on.
                failure.remedy = Remedy::SetAside;
            }
            settled.push(SettledMessage {
                sequence,
                result: Err(failure.clone().into()),
            });
            if !own_fault {
                self.session.end(failure);
                return;
            }
        }
    }

    /// One of the partitions confirms nothing.
    fn stalled_partition(&self) -> Option<KafkaFailure> {
        let stalled = self.lanes.stalled(STALL_MIN)?;
        Some(failure::stalled_partition(&self.names.sink, &stalled))
    }

    /// For how long something waits to be confirmed.
    fn waiting(&self) -> Option<Duration> {
        (self.unsettled > 0).then(|| self.progress.elapsed())
    }

    /// Something waits, and for a minute no broker is connected: a client can hold on to what made it fail.
    fn disconnected(&self) -> Option<KafkaFailure> {
        let shared = &self.session.producers()?.main.shared;
        let for_long = self.waiting().is_some_and(|waiting| waiting >= DISCONNECTED_MAX);
        let trouble = shared
            .trouble(self.waiting())
            .filter(|_| for_long && !shared.broker_up.load(Ordering::Relaxed))?;
        let text = format!("{}; the client is built anew", trouble.text);
        Some(KafkaFailure { text, ..trouble })
    }

    /// A broker is there and confirms nothing.
    fn silence(&self) -> Option<KafkaFailure> {
        let shared = &self.session.producers()?.main.shared;
        let waiting = shared.in_flight.load(Ordering::Acquire);
        let quiet = self.progress.elapsed();
        (waiting > 0 && quiet >= STALL_MAX && shared.broker_up.load(Ordering::Relaxed)).then(|| {
            failure::failure(
                Remedy::Hold,
                KafkaCause::Stalled,
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
        for session in self.session.take().into_iter().flat_map(SessionProducers::into_each) {
            // Destroying a producer takes a while, which a task must not; and a runtime that ends waits for it.
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || session.close())),
                Err(_) => session.close(),
            }
        }
    }
}

async fn close(session: ProducerSession) {
    let closing = tokio::task::spawn_blocking(move || session.close());
    if timeout(CLOSE_DEADLINE, closing).await.is_err() {
        tracing::warn!("an old Kafka producer is slow to go; going on without waiting for it");
    }
}

#[cfg(test)]
mod tests;
