//! One life of a producer: from its creation to its first failure.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Partitioner, Producer, ProducerContext, PurgeConfig, ThreadedProducer},
    types::RDKafkaErrorCode as Code,
};
use tokio::{
    runtime::Handle,
    sync::Notify,
    task::{AbortHandle, spawn_blocking},
};

use super::{
    KafkaNames,
    certificates::{self, SessionCertificates},
    failure,
    metrics::{ClientStatistics, KafkaMetrics},
    oauth::TokenLease,
    properties,
};
use crate::failure::{KafkaCause, KafkaFailure};
use forebay_broker::{FailureCause as _, Message, Remedy, partition::partition_of};

/// What the names of a CloudEvent's attributes begin with.
pub(super) const ATTRIBUTE_PREFIX: &str = "ce_";
/// A connection that an idle broker closed is made anew within this time.
const RECONNECTED_WITHIN: Duration = Duration::from_secs(5);
/// How long what is in flight may be confirmed when the session is to end for new certificates.
const OUTDATED_MAX: Duration = Duration::from_secs(10);

/// What became of the messages of a session, as its callbacks tell it.
#[derive(Default)]
pub(super) struct DeliveryOutcome {
    /// In the order in which the broker confirmed them.
    pub confirmed: Vec<SentMessage>,
    /// In the order in which they failed. Where one ends the session, nothing after it counts as failed: it is unknown.
    pub failed: Vec<FailedMessage>,
}

pub(super) struct FailedMessage {
    pub sent: SentMessage,
    pub topic: String,
    /// Of key and value.
    pub bytes: usize,
    pub failure: KafkaFailure,
}

/// A message that the producer has, by its record and its lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct SentMessage {
    pub sequence: u64,
    pub lane: usize,
}

/// What a session's callbacks share with its owner. An older session's callbacks have their own.
pub(super) struct ProducerShared {
    pub outcome: Mutex<DeliveryOutcome>,
    trouble: Mutex<Option<KafkaFailure>>,
    pub changed: Notify,
    /// Messages whose report has not come.
    pub in_flight: AtomicI64,
    /// A broker is connected, as the latest statistics say.
    pub broker_up: AtomicBool,
    /// A broker was connected before.
    was_up: AtomicBool,
    last_reason: Mutex<String>,
    /// Since when the session goes by certificates that were replaced.
    outdated: Mutex<Option<Instant>>,
    pub names: KafkaNames,
    metrics: Arc<KafkaMetrics>,
}

/// The partitions of each topic as the session first saw them, and the partitioner that keeps to them.
///
/// librdkafka itself would use a new partition with the next message, while older messages of the same key are still on
/// their way to the old one.
#[derive(Default)]
pub(super) struct PinnedPartitioner {
    partitions: Mutex<HashMap<String, i32>>,
    /// The topic whose count is another now.
    changed: Mutex<Option<(String, i32, i32)>>,
    is_changed: AtomicBool,
}

pub(super) struct ProducerCallbacks {
    shared: Arc<ProducerShared>,
    pinned: PinnedPartitioner,
}

pub(super) type SessionProducer = ThreadedProducer<ProducerCallbacks, PinnedPartitioner>;

pub(super) struct ProducerSession {
    pub producer: Arc<SessionProducer>,
    pub shared: Arc<ProducerShared>,
    /// The task that hands every new token over.
    renewing: Option<AbortHandle>,
    /// The task that looks at the files of certificates.
    watching: Option<AbortHandle>,
}

impl ProducerShared {
    fn new(names: KafkaNames, metrics: Arc<KafkaMetrics>) -> Self {
        Self {
            outcome: Mutex::default(),
            trouble: Mutex::default(),
            changed: Notify::new(),
            in_flight: AtomicI64::new(0),
            broker_up: AtomicBool::new(false),
            was_up: AtomicBool::new(false),
            last_reason: Mutex::default(),
            outdated: Mutex::default(),
            names,
            metrics,
        }
    }

    /// What keeps the broker from confirming anything. `waiting`: for how long something waits for it.
    pub fn trouble(&self, waiting: Option<Duration>) -> Option<KafkaFailure> {
        let told = self.trouble.lock().clone()?;
        // Brokers close idle connections, also the last one: no trouble while nothing waits, nor while the connection
        // is made anew.
        let was_idle =
            waiting.is_none_or(|waiting| waiting < RECONNECTED_WITHIN) && self.was_up.load(Ordering::Relaxed);
        (told.cause != KafkaCause::BrokersDown || !was_idle).then_some(told)
    }

    /// The files of certificates are others now.
    pub fn certificates_changed(&self) {
        *self.outdated.lock() = Some(Instant::now());
        self.changed.notify_one();
    }

    fn tell(&self, trouble: KafkaFailure) {
        let mut now = self.trouble.lock();
        let known = now.as_ref().map_or(0, |known| known.cause.rank());
        if trouble.cause.rank() >= known {
            tracing::debug!(route = %self.names.route, label = trouble.cause.label(), "{trouble}");
            *now = Some(trouble);
        }
    }

    fn all_is_well(&self) {
        self.was_up.store(true, Ordering::Relaxed);
        if let Some(over) = self.trouble.lock().take() {
            tracing::debug!(route = %self.names.route, label = over.cause.label(), "Kafka is reachable again");
        }
    }
}

impl PinnedPartitioner {
    /// The change of a topic's partitions that ends the session, once nothing is in flight.
    pub fn change(&self) -> Option<KafkaFailure> {
        if !self.is_changed.load(Ordering::Acquire) {
            return None;
        }
        let changed = self.changed.lock();
        let (topic, before, now) = changed.as_ref()?;
        Some(failure::failure(
            Remedy::Retry,
            KafkaCause::PartitionsChanged,
            format!("topic '{topic}' has {now} partitions instead of {before}: keys are spread anew from here on"),
        ))
    }
}

impl Partitioner for PinnedPartitioner {
    fn partition(&self, topic: &str, key: Option<&[u8]>, count: i32, _: impl Fn(i32) -> bool) -> i32 {
        let mut partitions = self.partitions.lock();
        let pinned = match partitions.get(topic) {
            Some(pinned) => *pinned,
            None => {
                partitions.insert(topic.to_string(), count);
                count
            }
        };
        if pinned != count && !self.is_changed.load(Ordering::Relaxed) {
            *self.changed.lock() = Some((topic.to_string(), pinned, count));
            self.is_changed.store(true, Ordering::Release);
        }
        // Below `count`, unless partitions were taken away: then librdkafka fails the message.
        partition_of(key.unwrap_or_default(), pinned.unsigned_abs()).cast_signed()
    }
}

impl ClientContext for ProducerCallbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let route = &*self.shared.names.route;
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(route, facility, "librdkafka: {message}");
            }
            // What this module sets on purpose, and librdkafka warns of at every start.
            RDKafkaLogLevel::Warning if facility == "CONFWARN" && message.contains("enable.gapless.guarantee") => {}
            // Failed connections: the error callback gets them too, and tells them once.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning if matches!(facility, "FAIL" | "ERROR") => {
                tracing::debug!(route, facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
                tracing::warn!(route, facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Info => tracing::info!(route, facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Debug => tracing::debug!(route, facility, "librdkafka: {message}"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<ClientStatistics>(statistics) {
            Ok(statistics) => {
                let up = statistics.has_broker_up();
                self.shared.broker_up.store(up, Ordering::Relaxed);
                if up {
                    self.shared.all_is_well();
                }
                self.shared.metrics.observe(&self.shared.names, &statistics);
            }
            Err(error) => tracing::warn!("failed to parse librdkafka's statistics: {error}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let shared = &self.shared;
        match error.rdkafka_error_code() {
            Some(Code::Fatal) => {
                tracing::warn!(route = %shared.names.route, "librdkafka: {reason}");
                shared.changed.notify_one();
            }
            Some(Code::AllBrokersDown) => {
                let cause = shared.last_reason.lock().clone();
                let reason = if cause.is_empty() { reason } else { &cause };
                if let Some(trouble) = failure::of_client(&error, reason, &shared.names) {
                    shared.tell(trouble);
                }
            }
            _ => {
                *shared.last_reason.lock() = reason.to_string();
                // As librdkafka says of a connection that ends.
                if reason.contains("in state UP") {
                    shared.was_up.store(true, Ordering::Relaxed);
                }
                match failure::of_client(&error, reason, &shared.names) {
                    Some(trouble) => shared.tell(trouble),
                    None => tracing::debug!(route = %shared.names.route, "librdkafka: {error}: {reason}"),
                }
            }
        }
    }
}

impl ProducerContext<PinnedPartitioner> for ProducerCallbacks {
    type DeliveryOpaque = Box<SentMessage>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<SentMessage>) {
        let shared = &self.shared;
        let mut outcome = shared.outcome.lock();
        shared.in_flight.fetch_sub(1, Ordering::AcqRel);
        match result {
            Ok(_) => {
                outcome.confirmed.push(*sent);
                drop(outcome);
                shared.all_is_well();
            }
            Err((error, message)) => match error.rdkafka_error_code() {
                // Purged: the session is being ended, and these are unknown.
                Some(Code::PurgeQueue | Code::PurgeInflight) => return,
                // The cause comes by itself, as the failure of a message or as a fatal error.
                Some(Code::Fatal) => return,
                code => {
                    let code = code.unwrap_or(Code::Unknown);
                    outcome.failed.push(FailedMessage {
                        sent: *sent,
                        topic: message.topic().to_owned(),
                        bytes: message.key_len() + message.payload_len(),
                        failure: failure::of_message(code, message.topic()),
                    });
                }
            },
        }
        shared.changed.notify_one();
    }

    fn get_custom_partitioner(&self) -> Option<&PinnedPartitioner> {
        Some(&self.pinned)
    }
}

/// Why the producer did not take a message.
pub(super) enum SendError {
    Full,
    Failed(KafkaFailure),
}

impl ProducerSession {
    /// Creates the producer. Reads certificates from disk, so not for an async task; within a runtime, if there is a
    /// lease.
    pub fn open(
        config: &ClientConfig,
        lease: Option<TokenLease>,
        names: KafkaNames,
        metrics: Arc<KafkaMetrics>,
    ) -> Result<Self, KafkaFailure> {
        let shared = Arc::new(ProducerShared::new(names, metrics));
        let context = ProducerCallbacks {
            shared: shared.clone(),
            pinned: PinnedPartitioner::default(),
        };
        let certificates = SessionCertificates::read(config);
        let producer: SessionProducer = properties::with_secrets(config)
            .map_err(|reason| failure::unread(&shared.names.sink, &reason))?
            .create_with_context(context)
            .map_err(|error| failure::of_creation(&error, &shared.names.sink))?;
        if let Some(lease) = &lease {
            lease.hand_over(producer.client())?;
        }
        let producer = Arc::new(producer);
        let renewing = lease.map(|lease| {
            let task = renew(Arc::downgrade(&producer), lease);
            Handle::current().spawn(task).abort_handle()
        });
        let watching = Handle::try_current().ok().map(|runtime| {
            let watch = certificates::watch(config.clone(), certificates, shared.clone());
            runtime.spawn(watch).abort_handle()
        });
        Ok(Self {
            producer,
            shared,
            renewing,
            watching,
        })
    }

    /// Keeps to this number of a topic's partitions.
    pub fn pin(&self, topic: &str, partitions: u32) {
        let count = i32::try_from(partitions).expect("a count of partitions is an i32");
        let pinned = &self.producer.context().pinned;
        pinned.partitions.lock().entry(topic.to_owned()).or_insert(count);
    }

    pub fn send(&self, message: &Message, lane: usize) -> Result<(), SendError> {
        // What is in flight drains before new partitions, or certificates, are used.
        if self.producer.context().pinned.change().is_some() || self.shared.outdated.lock().is_some() {
            return Err(SendError::Full);
        }
        let sent = Box::new(SentMessage {
            sequence: message.sequence,
            lane,
        });
        let record = BaseRecord::with_opaque_to(&message.address, sent)
            .key(message.key.as_bytes())
            .payload(&message.body[..])
            .headers(headers(message));
        // Before the report can come.
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        let Err((error, _)) = self.producer.send(record) else {
            return Ok(());
        };
        self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        Err(match code {
            Code::QueueFull => SendError::Full,
            Code::Fatal => match self.fatal() {
                Some(fatal) => SendError::Failed(fatal),
                // The message that failed is on its way to `settle`.
                None => SendError::Full,
            },
            code => SendError::Failed(failure::of_message(code, &message.address)),
        })
    }

    /// The fatal error that ended the session, unless it only says that a message failed: that message's report says
    /// why.
    pub fn fatal(&self) -> Option<KafkaFailure> {
        match self.producer.client().fatal_error()? {
            (Code::GaplessGuarantee, _) => None,
            (code, reason) => Some(failure::fatal(code, &reason, &self.shared.names)),
        }
    }

    /// The session's end by a change of partitions or certificates: when it was seen and nothing is in flight.
    pub fn change(&self) -> Option<KafkaFailure> {
        let outdated = *self.shared.outdated.lock();
        let partitions = || self.producer.context().pinned.change();
        let change = outdated
            .map(|_| failure::certificates_changed(&self.shared.names.sink))
            .or_else(partitions)?;
        // By certificates that have run out nothing is confirmed any more.
        let waited = outdated.is_some_and(|since| since.elapsed() >= OUTDATED_MAX);
        (waited || self.shared.in_flight.load(Ordering::Acquire) <= 0).then_some(change)
    }

    /// Forgets what is in flight and destroys the producer, once whoever asks it something has an answer. Takes up to a
    /// second or two.
    pub fn close(self) {
        for task in self.renewing.iter().chain(&self.watching) {
            task.abort();
        }
        self.producer.purge(PurgeConfig::default().queue().inflight());
        // What is on its way to the broker must not arrive behind the next session's.
        let mut producer = self.producer;
        while let Err(shared) = Arc::try_unwrap(producer) {
            producer = shared;
            sleep(Duration::from_millis(5));
        }
    }
}

/// Hands every token that follows over to the producer, until one of them is gone.
async fn renew(producer: Weak<SessionProducer>, mut lease: TokenLease) {
    while let Some(token) = lease.next().await {
        let Some(producer) = producer.upgrade() else { return };
        // Here a producer may come to its end, which takes a while.
        let given = spawn_blocking(move || token.hand_over(producer.client())).await;
        if let Ok(Err(reason)) = given {
            tracing::warn!("a new token cannot be used, the old one stays: {reason}");
        }
    }
}

fn headers(message: &Message) -> OwnedHeaders {
    let with = |headers: OwnedHeaders, key: &str, value: &str| {
        headers.insert(Header {
            key,
            value: Some(value),
        })
    };
    let headers = OwnedHeaders::new_with_capacity(4 + message.attributes.len());
    let mut headers = Some(with(headers, "content-type", &message.content_type));
    message.for_each_header(ATTRIBUTE_PREFIX, |name, value| {
        headers = headers.take().map(|headers| with(headers, name, value));
    });
    headers.unwrap_or_default()
}
