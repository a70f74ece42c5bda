//! Follows topics as a bystander: reads all partitions, joins no group, commits nothing.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, Headers as _},
    types::RDKafkaErrorCode as Code,
};
use tokio::sync::mpsc;

use super::{
    oauth::{OauthSettings, TokenKeeper, TokenLease},
    properties::{client_config, message_bytes_max, with_secrets},
};
use crate::settings::{self, TopicTemplate};

/// Messages that were read and wait for [`KafkaTail::next`].
pub(super) const AHEAD_MESSAGES_MAX: usize = 1024;
/// How soon the reading thread sees that it is not wanted any more.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// What to follow.
#[derive(Debug, Clone)]
pub struct KafkaTailOptions {
    /// Brokers and properties, as a sink has them. What only a producer understands does no harm.
    pub kafka: settings::KafkaConfig,
    /// With placeholders: every topic that fits when the tail is opened.
    pub topics: Vec<TopicTemplate>,
    /// From the oldest message that is there; else from the first that comes after the opening.
    pub from_start: bool,
    /// How long the opening may take.
    pub deadline: Duration,
}

/// A message as it stands in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaTailed {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub payload: Vec<u8>,
}

/// Why a topic cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum KafkaTailError {
    #[error("no broker is reachable at {brokers}: {reason}")]
    Unreachable { brokers: String, reason: String },
    #[error("there is no topic {0}")]
    NoTopic(String),
    #[error("{0}")]
    Kafka(String),
}

/// Follows topics. Dropping it ends the reading.
#[derive(Debug)]
pub struct KafkaTail {
    messages: mpsc::Receiver<Result<KafkaTailed, KafkaTailError>>,
}

impl KafkaTail {
    /// Connects and finds its place in every partition; takes at most the options' deadline. Messages that arrive after
    /// it returned are not missed. Partitions and topics that are made later are not seen.
    pub async fn open(options: KafkaTailOptions) -> Result<Self, KafkaTailError> {
        let (sender, messages) = mpsc::channel(AHEAD_MESSAGES_MAX);
        let (tokens, lease) = token(&options.kafka, "tail").await?;
        let given = lease.clone();
        let consumer = tokio::task::spawn_blocking(move || assigned(&options, given.as_ref()))
            .await
            .expect("opening a consumer does not panic")?;
        thread::Builder::new()
            .name("kafka-tail".to_owned())
            .spawn(move || {
                read(&consumer, lease, &sender);
                drop(tokens);
            })
            .map_err(|error| KafkaTailError::Kafka(format!("failed to start a thread: {error}")))?;
        Ok(Self { messages })
    }

    /// The next message of any partition; waits for it as long as it takes. Cancel-safe. After an `Err` the tail is
    /// over.
    pub async fn next(&mut self) -> Result<KafkaTailed, KafkaTailError> {
        let ended = || Err(KafkaTailError::Kafka("the tail is over".to_owned()));
        self.messages.recv().await.unwrap_or_else(ended)
    }
}

/// A token to connect with, and what renews it; neither where the sink authenticates otherwise.
pub(super) async fn token(
    kafka: &settings::KafkaConfig,
    owner: &str,
) -> Result<(Option<TokenKeeper>, Option<TokenLease>), KafkaTailError> {
    let Some(settings) = OauthSettings::from_config(owner, kafka) else {
        return Ok((None, None));
    };
    let mut tokens = TokenKeeper::fetch(settings);
    let lease = tokens.lease().await;
    let lease = lease.map_err(|failure| KafkaTailError::Kafka(failure.text))?;
    Ok((Some(tokens), Some(lease)))
}

/// Remembers what librdkafka says about the brokers, which its errors do not.
#[derive(Default)]
pub(super) struct TailCallbacks {
    reason: Mutex<Option<String>>,
    is_refused: AtomicBool,
}

impl ClientContext for TailCallbacks {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let is_refused = matches!(
            code,
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL)
        );
        let is_new_cause = is_refused || !self.is_refused.load(Ordering::Relaxed);
        // "All brokers down" names no cause; what came before it did.
        if code != Some(Code::AllBrokersDown) && is_new_cause {
            *self.reason.lock() = Some(reason.to_owned());
        }
        self.is_refused.fetch_or(is_refused, Ordering::Relaxed);
    }
}

impl ConsumerContext for TailCallbacks {}

pub(super) type TailConsumer = BaseConsumer<TailCallbacks>;

/// A consumer that stands at its place in every partition of the topics.
fn assigned(options: &KafkaTailOptions, lease: Option<&TokenLease>) -> Result<TailConsumer, KafkaTailError> {
    let consumer = consumer(&config(&options.kafka), lease)?;
    let until = Instant::now() + options.deadline;
    let mut partitions = TopicPartitionList::new();
    for (topic, count) in topics(&consumer, options, until)? {
        for partition in 0..count {
            let offset = match options.from_start {
                true => Offset::Beginning,
                // The end as it is now, not as it will be when the first fetch asks for it.
                false => Offset::Offset(end(&consumer, options, until, &topic, partition)?),
            };
            partitions
                .add_partition_offset(&topic, partition, offset)
                .map_err(|error| KafkaTailError::Kafka(error.to_string()))?;
        }
    }
    consumer
        .assign(&partitions)
        .map_err(|error| KafkaTailError::Kafka(error.to_string()))?;
    Ok(consumer)
}

pub(super) fn consumer(config: &ClientConfig, lease: Option<&TokenLease>) -> Result<TailConsumer, KafkaTailError> {
    let consumer: TailConsumer = with_secrets(config)
        .map_err(KafkaTailError::Kafka)?
        .create_with_context(TailCallbacks::default())
        .map_err(|error| KafkaTailError::Kafka(error.to_string()))?;
    if let Some(lease) = lease {
        let given = lease.hand_over(consumer.client());
        given.map_err(|failure| KafkaTailError::Kafka(failure.text))?;
    }
    Ok(consumer)
}

pub(super) fn config(kafka: &settings::KafkaConfig) -> ClientConfig {
    let mut client = client_config(kafka, message_bytes_max(0), 0);
    // What the broker has is read, whatever this process would send.
    client.remove("message.max.bytes");
    // librdkafka wants a group's name; nobody joins the group.
    client.set("group.id", "forebay-tail");
    client.set("enable.auto.commit", "false");
    client.set("enable.auto.offset.store", "false");
    client.set("auto.offset.reset", "earliest");
    client.set("statistics.interval.ms", "0");
    client
}

/// The topics to read, with the number of their partitions.
pub(super) fn topics(
    consumer: &TailConsumer,
    options: &KafkaTailOptions,
    until: Instant,
) -> Result<BTreeMap<String, i32>, KafkaTailError> {
    let mut found = BTreeMap::new();
    for template in &options.topics {
        let name = template.to_string();
        let metadata = ask(consumer, options, until, |wait| {
            consumer.fetch_metadata(template.literal(), wait)
        })?;
        let fitting = metadata.topics().iter().filter(|topic| template.fits(topic.name()));
        let there = fitting.filter(|topic| topic.error().is_none() && !topic.partitions().is_empty());
        let before = found.len();
        found.extend(there.map(|topic| (topic.name().to_owned(), topic.partitions().len() as i32)));
        if found.len() == before && !found.contains_key(&name) {
            return Err(KafkaTailError::NoTopic(name));
        }
    }
    Ok(found)
}

fn end(
    consumer: &TailConsumer,
    options: &KafkaTailOptions,
    until: Instant,
    topic: &str,
    partition: i32,
) -> Result<i64, KafkaTailError> {
    let (_, end) = ask(consumer, options, until, |wait| {
        consumer.fetch_watermarks(topic, partition, wait)
    })?;
    Ok(end)
}

/// Asks the brokers until they answer, or the deadline is over, or it is clear that waiting does not help.
pub(super) fn ask<T>(
    consumer: &TailConsumer,
    options: &KafkaTailOptions,
    until: Instant,
    question: impl Fn(Duration) -> KafkaResult<T>,
) -> Result<T, KafkaTailError> {
    loop {
        let error = match question(Duration::from_secs(1)) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        // Only a poll hands over what librdkafka has to say; nothing is assigned yet, so no message gets lost here.
        let polled = Instant::now() + POLL;
        while Instant::now() < polled {
            let _ = consumer.poll(Duration::from_millis(10));
        }
        let context = consumer.context();
        if Instant::now() >= until || context.is_refused.load(Ordering::Relaxed) {
            let told = context.reason.lock().clone();
            return Err(KafkaTailError::Unreachable {
                brokers: options.kafka.brokers.join(","),
                reason: told.unwrap_or_else(|| error.to_string()),
            });
        }
    }
}

/// Reads until nobody listens any more, or an error says that there will be nothing more.
fn read(
    consumer: &TailConsumer,
    mut lease: Option<TokenLease>,
    sender: &mpsc::Sender<Result<KafkaTailed, KafkaTailError>>,
) {
    while !sender.is_closed() {
        renew(consumer, lease.as_mut());
        let tailed = match consumer.poll(POLL) {
            None => continue,
            Some(Ok(message)) => Ok(tailed(&message)),
            Some(Err(error)) if passes(&error) => {
                tracing::debug!(%error, "kafka");
                continue;
            }
            Some(Err(error)) => Err(KafkaTailError::Kafka(error.to_string())),
        };
        let is_over = tailed.is_err();
        if sender.blocking_send(tailed).is_err() || is_over {
            return;
        }
    }
}

/// Hands over a token that was fetched since the last time.
pub(super) fn renew(consumer: &TailConsumer, lease: Option<&mut TokenLease>) {
    if let Some(token) = lease.and_then(TokenLease::renewed)
        && let Err(reason) = token.hand_over(consumer.client())
    {
        tracing::warn!("a new token cannot be used, the old one stays: {reason}");
    }
}

/// librdkafka goes on by itself, or it is about the group, which is not used.
pub(super) fn passes(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::AllBrokersDown
                | Code::BrokerTransportFailure
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::AutoOffsetReset
                | Code::GroupAuthorizationFailed
                | Code::CoordinatorNotAvailable
        )
    )
}

pub(super) fn tailed(message: &BorrowedMessage<'_>) -> KafkaTailed {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    KafkaTailed {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        headers: headers
            .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
            .collect(),
        payload: message.payload().unwrap_or_default().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::{
        message::{Header, OwnedHeaders},
        mocking::MockCluster,
        producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _},
    };
    use tokio::time::timeout;

    use std::collections::BTreeSet;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn options(brokers: &str, topic: &str, from_start: bool) -> KafkaTailOptions {
        KafkaTailOptions {
            kafka: settings::KafkaConfig {
                brokers: brokers.split(',').map(str::to_owned).collect(),
                properties: BTreeMap::new(),
                create_topics: None,
            },
            topics: vec![TopicTemplate::parse(topic).unwrap()],
            from_start,
            deadline: SOON,
        }
    }

    fn cluster() -> MockCluster<'static, DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        for topic in ["events.a", "events.b", "other"] {
            cluster.create_topic(topic, 3, 1).unwrap();
        }
        cluster
    }

    fn produce(cluster: &MockCluster<'_, DefaultProducerContext>, topic: &str, key: &str) {
        let mut config = ClientConfig::new();
        let producer: BaseProducer = config
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .create()
            .unwrap();
        let headers = OwnedHeaders::new().insert(Header {
            key: "sequence",
            value: Some("7"),
        });
        let record = BaseRecord::to(topic)
            .key(key)
            .payload("body")
            .headers(headers)
            .timestamp(1234);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(SOON).unwrap();
    }

    async fn next(tail: &mut KafkaTail) -> KafkaTailed {
        timeout(SOON, tail.next()).await.expect("a message in time").unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_tail_from_the_start_has_what_was_there_and_what_comes() {
        let cluster = cluster();
        produce(&cluster, "events.a", "k1");
        let mut tail = KafkaTail::open(options(&cluster.bootstrap_servers(), "events.a", true))
            .await
            .unwrap();
        let first = next(&mut tail).await;
        assert_eq!(
            (first.topic.as_str(), first.offset, first.timestamp_ms),
            ("events.a", 0, Some(1234))
        );
        assert_eq!(
            (first.key.as_deref(), first.payload.as_slice()),
            (Some(&b"k1"[..]), &b"body"[..])
        );
        assert_eq!(first.headers, [("sequence".to_owned(), b"7".to_vec())]);
        produce(&cluster, "events.a", "k2");
        assert_eq!(next(&mut tail).await.key.as_deref(), Some(&b"k2"[..]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_tail_from_the_end_begins_with_what_comes_after_the_opening() {
        let cluster = cluster();
        produce(&cluster, "events.a", "before");
        let mut tail = KafkaTail::open(options(&cluster.bootstrap_servers(), "events.a", false))
            .await
            .unwrap();
        produce(&cluster, "events.a", "after");
        assert_eq!(next(&mut tail).await.key.as_deref(), Some(&b"after"[..]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_template_follows_every_topic_that_fits() {
        let cluster = cluster();
        let mut tail = KafkaTail::open(options(&cluster.bootstrap_servers(), "events.{account}", true))
            .await
            .unwrap();
        produce(&cluster, "other", "no");
        produce(&cluster, "events.a", "a");
        produce(&cluster, "events.b", "b");
        let topics = BTreeSet::from([next(&mut tail).await.topic, next(&mut tail).await.topic]);
        assert_eq!(topics, BTreeSet::from(["events.a".to_owned(), "events.b".to_owned()]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn brokers_that_are_not_there_and_topics_that_are_not_there_are_named() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut nobody = options(&format!("127.0.0.1:{port}"), "events.a", true);
        nobody.deadline = Duration::from_secs(2);
        let error = KafkaTail::open(nobody).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("no broker is reachable at 127.0.0.1:{port}: ")),
            "{error}"
        );
        assert!(error.contains("refused"), "{error}");

        let cluster = cluster();
        let error = KafkaTail::open(options(&cluster.bootstrap_servers(), "no.{account}", true))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "there is no topic no.{account}");
    }
}
