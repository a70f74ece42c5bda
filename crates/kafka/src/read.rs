//! Reads topics from where they begin, or from a time, to the end that they have when the reading begins. As a tail, it
//! joins no group and commits nothing.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{Message as _, Offset, TopicPartitionList, consumer::Consumer as _, error::KafkaError};
use tokio::sync::mpsc;

use super::{
    oauth::TokenLease,
    tail::{
        AHEAD_MESSAGES_MAX, KafkaTailError, KafkaTailOptions, KafkaTailed, POLL, TailConsumer, ask, config, consumer,
        passes, renew, tailed, token, topics,
    },
};

/// With nothing from any broker for so long, the reading is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What is in one partition, as the reading found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicExtent {
    pub topic: String,
    pub partition: i32,
    /// The first offset that is read.
    pub begin: i64,
    /// Behind the last one.
    pub end: i64,
    /// There were older messages: deleted since, or before the time from which is read.
    pub is_cut: bool,
}

/// Reads topics to their end. Dropping it ends the reading.
pub struct TopicReading {
    extents: Vec<TopicExtent>,
    messages: mpsc::Receiver<Result<KafkaTailed, KafkaTailError>>,
}

impl TopicReading {
    /// Connects and finds beginning and end of every partition. `from_ms`: from the first message that a broker took in
    /// at this time or later, in milliseconds since the Unix epoch.
    pub async fn open(options: KafkaTailOptions, from_ms: Option<i64>) -> Result<Self, KafkaTailError> {
        let (tokens, lease) = token(&options.kafka, "read").await?;
        let given = lease.clone();
        let (consumer, extents) = tokio::task::spawn_blocking(move || surveyed(&options, from_ms, given.as_ref()))
            .await
            .expect("opening a consumer does not panic")?;
        let (sender, messages) = mpsc::channel(AHEAD_MESSAGES_MAX);
        let to_read = extents.clone();
        thread::Builder::new()
            .name("kafka-read".to_owned())
            .spawn(move || {
                if let Err(error) = read(&consumer, lease, &to_read, &sender) {
                    // Nobody listens any more: then there is nobody to tell.
                    let _ = sender.blocking_send(Err(error));
                }
                drop(tokens);
            })
            .map_err(|error| KafkaTailError::Kafka(format!("failed to start a thread: {error}")))?;
        Ok(Self { extents, messages })
    }

    /// What there is to read.
    pub fn extents(&self) -> &[TopicExtent] {
        &self.extents
    }

    /// The next message of any partition; `None` when all are read to their end.
    pub async fn next(&mut self) -> Result<Option<KafkaTailed>, KafkaTailError> {
        self.messages.recv().await.transpose()
    }
}

fn surveyed(
    options: &KafkaTailOptions,
    from_ms: Option<i64>,
    lease: Option<&TokenLease>,
) -> Result<(TailConsumer, Vec<TopicExtent>), KafkaTailError> {
    let mut config = config(&options.kafka);
    // Offsets can end in some that no message has: those of transactions, or of what was compacted.
    config.set("enable.partition.eof", "true");
    let consumer = consumer(&config, lease)?;
    let until = Instant::now() + options.deadline;
    let mut extents = Vec::new();
    for (topic, count) in topics(&consumer, options, until)? {
        for partition in 0..count {
            let (low, end) = ask(&consumer, options, until, |wait| {
                consumer.fetch_watermarks(&topic, partition, wait)
            })?;
            let begin = match from_ms {
                None => low,
                Some(ms) => first_since(&consumer, options, until, (&topic, partition), ms)?.unwrap_or(end),
            };
            extents.push(TopicExtent {
                topic: topic.clone(),
                partition,
                begin: begin.clamp(low, end),
                end,
                is_cut: begin > 0,
            });
        }
    }
    Ok((consumer, extents))
}

/// The offset of the first message of this time or later, if there is one.
fn first_since(
    consumer: &TailConsumer,
    options: &KafkaTailOptions,
    until: Instant,
    (topic, partition): (&str, i32),
    ms: i64,
) -> Result<Option<i64>, KafkaTailError> {
    let found = ask(consumer, options, until, |wait| {
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(topic, partition, Offset::Offset(ms))?;
        consumer.offsets_for_times(times, wait)
    })?;
    Ok(match found.elements().first().map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => Some(offset),
        _ => None,
    })
}

/// Topic after topic, because the end of a partition is told without its topic.
fn read(
    consumer: &TailConsumer,
    mut lease: Option<TokenLease>,
    extents: &[TopicExtent],
    sender: &mpsc::Sender<Result<KafkaTailed, KafkaTailError>>,
) -> Result<(), KafkaTailError> {
    let kafka = |error: KafkaError| KafkaTailError::Kafka(error.to_string());
    for of_topic in extents.chunk_by(|a, b| a.topic == b.topic) {
        let mut partitions = TopicPartitionList::new();
        let mut open: BTreeMap<i32, i64> = BTreeMap::new();
        for extent in of_topic.iter().filter(|extent| extent.begin < extent.end) {
            partitions
                .add_partition_offset(&extent.topic, extent.partition, Offset::Offset(extent.begin))
                .map_err(kafka)?;
            open.insert(extent.partition, extent.end);
        }
        consumer.assign(&partitions).map_err(kafka)?;
        let mut heard = Instant::now();
        while !open.is_empty() {
            renew(consumer, lease.as_mut());
            match consumer.poll(POLL) {
                None if sender.is_closed() => return Ok(()),
                None if heard.elapsed() > SILENCE_MAX => {
                    let left = open.len();
                    return Err(KafkaTailError::Kafka(format!(
                        "nothing came for {} s, with {left} partitions of {} not read to their end",
                        SILENCE_MAX.as_secs(),
                        of_topic[0].topic
                    )));
                }
                None => continue,
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(&end) = open.get(&partition) else { continue };
                    // What came after the reading began is not looked at.
                    if offset < end && sender.blocking_send(Ok(tailed(&message))).is_err() {
                        return Ok(());
                    }
                    if offset + 1 >= end {
                        open.remove(&partition);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(error)) if passes(&error) => {
                    tracing::debug!(%error, "kafka");
                    continue;
                }
                Some(Err(error)) => return Err(kafka(error)),
            }
            heard = Instant::now();
        }
    }
    Ok(())
}
