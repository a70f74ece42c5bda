//! What a test does with a broker: make topics, read records.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};

const DEADLINE: Duration = Duration::from_secs(30);

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("log_level", "0")
        .set("allow.auto.create.topics", "false");
    config
}

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    client(bootstrap).create().unwrap()
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(DEADLINE))
        .request_timeout(Some(DEADLINE))
}

/// A topic of a name of its own; `name` says what it is for.
pub async fn create_topic(bootstrap: &str, name: &str, partitions: i32, config: &[(&str, &str)]) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unique = format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    create_topic_named(bootstrap, &unique, partitions, config).await;
    unique
}

/// A topic of exactly this name, once brokers tell of it.
pub async fn create_topic_named(bootstrap: &str, name: &str, partitions: i32, config: &[(&str, &str)]) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        match admin(bootstrap)
            .create_topics([&topic], &options())
            .await
            .unwrap()
            .remove(0)
        {
            Ok(_) => break,
            // A topic of that name is still being deleted, or too few brokers are up yet.
            Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(100)).await,
            Err((_, code)) => panic!("topic {name}: {code}"),
        }
    }
    // The controller has it; the broker that is asked learns of it a moment later.
    while self::partitions(bootstrap, name) < usize::try_from(partitions).unwrap() {
        assert!(Instant::now() < deadline, "topic {name}: made, and not there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sets one of the topic's own settings.
pub async fn set_topic(bootstrap: &str, name: &str, key: &str, value: &str) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(key, value);
    let results = admin(bootstrap).alter_configs([&change], &options()).await.unwrap();
    results.into_iter().for_each(|result| drop(result.unwrap()));
}

pub async fn delete_topic(bootstrap: &str, name: &str) {
    let result = admin(bootstrap)
        .delete_topics(&[name], &options())
        .await
        .unwrap()
        .remove(0);
    result.expect("a topic that can be deleted");
}

/// Brings a topic to `count` partitions.
pub async fn add_partitions(bootstrap: &str, name: &str, count: usize) {
    let new = NewPartitions::new(name, count);
    let result = admin(bootstrap)
        .create_partitions([&new], &options())
        .await
        .unwrap()
        .remove(0);
    result.expect("partitions can be added");
}

/// How many partitions a topic has.
pub fn partitions(bootstrap: &str, topic: &str) -> usize {
    let consumer: BaseConsumer = client(bootstrap).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
    metadata.topics()[0].partitions().len()
}

/// Which node, counted from 0, leads the first partition of a topic; none at some moments of a change.
pub fn leader(bootstrap: &str, topic: &str) -> Option<usize> {
    let consumer: BaseConsumer = client(bootstrap).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
    usize::try_from(metadata.topics()[0].partitions()[0].leader() - 1).ok()
}

/// Waits until so many replicas of the topic's first partition are in sync.
pub fn wait_for_replicas_in_sync(bootstrap: &str, topic: &str, count: usize, within: Duration) {
    let deadline = Instant::now() + within;
    loop {
        let consumer: BaseConsumer = client(bootstrap).create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
        let in_sync = metadata.topics()[0].partitions()[0].isr().len();
        if in_sync == count {
            return;
        }
        assert!(Instant::now() < deadline, "{in_sync} replicas in sync, not {count}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until so many brokers are registered with the cluster.
pub fn wait_for_brokers(bootstrap: &str, count: usize, within: Duration) -> Result<(), String> {
    let deadline = Instant::now() + within;
    let mut seen = String::from("nothing answered");
    while Instant::now() < deadline {
        let consumer: BaseConsumer = client(bootstrap).create().unwrap();
        match consumer.fetch_metadata(None, Duration::from_secs(2)) {
            Ok(metadata) if metadata.brokers().len() >= count => return Ok(()),
            Ok(metadata) => seen = format!("{} brokers of {count}", metadata.brokers().len()),
            Err(error) => seen = error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("no Kafka at {bootstrap} within {within:?}: {seen}"))
}

/// A record as it lies in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub value: Vec<u8>,
    pub timestamp_ms: Option<i64>,
    pub headers: BTreeMap<String, String>,
}

impl Read {
    /// The sequence number that its header says.
    pub fn sequence(&self) -> u64 {
        self.headers["sequence"].parse().unwrap()
    }
}

/// Reads a topic from its beginning until there are `count` records, or a deadline has passed: then what there was.
pub fn read(bootstrap: &str, topic: &str, count: usize) -> Vec<Read> {
    read_with(&client(bootstrap), topic, count, DEADLINE)
}

/// Reads all that a topic holds now.
pub fn read_all(bootstrap: &str, topic: &str) -> Vec<Read> {
    let consumer: BaseConsumer = client(bootstrap).create().unwrap();
    let count = (0..partitions(bootstrap, topic))
        .map(|partition| {
            let partition = i32::try_from(partition).unwrap();
            let (low, high) = consumer.fetch_watermarks(topic, partition, DEADLINE).unwrap();
            usize::try_from(high - low).unwrap()
        })
        .sum();
    read(bootstrap, topic, count)
}

pub fn read_with(config: &ClientConfig, topic: &str, count: usize, within: Duration) -> Vec<Read> {
    let deadline = Instant::now() + within;
    let consumer: BaseConsumer = config.clone().set("group.id", "forebay-tests").create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), within).unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        assignment
            .add_partition_offset(topic, partition.id(), Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut records = Vec::new();
    while records.len() < count && Instant::now() < deadline {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            records.push(Read {
                partition: message.partition(),
                offset: message.offset(),
                key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
                value: message.payload().unwrap_or_default().to_vec(),
                timestamp_ms: message.timestamp().to_millis(),
                headers: message.headers().map(headers).unwrap_or_default(),
            });
        }
    }
    records
}

fn headers(headers: &impl Headers) -> BTreeMap<String, String> {
    headers
        .iter()
        .map(|header| {
            let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
            (header.key.to_string(), value)
        })
        .collect()
}
