//! `forebay check --connect`: what would keep a Kafka sink from working, found before it does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::Registry;
use rdkafka::{
    ClientConfig,
    admin::{ConfigResource, ResourceSpecifier},
    metadata::MetadataTopic,
    producer::Producer,
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr},
};
use tokio::task::spawn_blocking;

use super::{
    KafkaMetrics, KafkaNames, check_properties, failure, message_bytes_max,
    oauth::{OauthSettings, TokenKeeper, TokenLease},
    properties::client_config,
    session::ProducerSession,
    sizes::too_small,
    topics::{admin, admin_options},
};
use crate::failure::{KafkaCause, KafkaFailure};
use crate::settings;
use forebay_broker::{CheckFinding, FindingLevel};

const DEADLINE: Duration = Duration::from_secs(10);

/// Connects to the brokers of the sink called `sink` and looks at `topics`, which routes name without a placeholder.
/// Writes nothing. Takes up to half a minute.
pub async fn connect_check(
    sink: &str,
    config: &settings::KafkaConfig,
    topics: &[String],
    body_bytes_max: u64,
) -> Vec<CheckFinding> {
    let problems = check_properties(&config.properties);
    if !problems.is_empty() {
        return problems
            .into_iter()
            .map(|(key, reason)| {
                CheckFinding::new(FindingLevel::Problem, format!("sink '{sink}': property {key} {reason}"))
            })
            .collect();
    }
    let client = client_config(config, message_bytes_max(body_bytes_max), 0);
    let mut findings = trust(sink, config);
    let names = KafkaNames::new(sink, "check");
    let mut lease = None;
    if let Some(settings) = OauthSettings::from_config(&format!("sink '{sink}'"), config) {
        let endpoint = settings.endpoint.clone();
        match TokenKeeper::fetch(settings).lease().await {
            Ok(token) => lease = Some(token),
            Err(failure) => {
                findings.push(CheckFinding::new(FindingLevel::Problem, failure.text));
                return findings;
            }
        }
        findings.push(CheckFinding::new(
            FindingLevel::Good,
            format!("sink '{sink}': a token from {endpoint}"),
        ));
    }
    let (settings, token, wanted, create) = (client.clone(), lease.clone(), topics.to_vec(), config.create_topics);
    let seen = spawn_blocking(move || look(&settings, token, names, &wanted, create))
        .await
        .expect("looking at a cluster does not panic");
    match seen {
        Err(failure) => findings.push(CheckFinding::new(FindingLevel::Problem, failure.text)),
        Ok(SeenCluster {
            findings: seen,
            existing,
        }) => {
            findings.extend(seen);
            findings.extend(settings_of(&client, lease, &existing, body_bytes_max).await);
        }
    }
    findings
}

/// Says by whose word brokers are trusted, for the vendored OpenSSL knows no store of its own.
fn trust(sink: &str, config: &settings::KafkaConfig) -> Vec<CheckFinding> {
    let property = |key: &str| config.properties.get(key).map(|value| value.to_ascii_lowercase());
    let tls = property("security.protocol").is_some_and(|protocol| protocol.contains("ssl"));
    if tls && !config.properties.keys().any(|key| key.starts_with("ssl.ca.")) {
        let text = format!("sink '{sink}': certificates of brokers are checked by the system's store of CAs");
        return vec![CheckFinding::new(FindingLevel::Good, text)];
    }
    Vec::new()
}

struct SeenCluster {
    findings: Vec<CheckFinding>,
    /// Each with its replication.
    existing: Vec<(String, usize)>,
}

fn look(
    client: &ClientConfig,
    lease: Option<TokenLease>,
    names: KafkaNames,
    topics: &[String],
    create: Option<settings::CreateTopics>,
) -> Result<SeenCluster, KafkaFailure> {
    let sink = names.sink.clone();
    let metrics = KafkaMetrics::register(&Registry::new()).expect("the first on its registry");
    let session = ProducerSession::open(client, lease, names, Arc::new(metrics))?;
    let result = look_with(&session, &sink, topics, create);
    session.close();
    result
}

fn look_with(
    session: &ProducerSession,
    sink: &str,
    topics: &[String],
    create: Option<settings::CreateTopics>,
) -> Result<SeenCluster, KafkaFailure> {
    let mut seen = SeenCluster {
        findings: Vec::new(),
        existing: Vec::new(),
    };
    let deadline = Instant::now() + DEADLINE;
    let cluster = loop {
        // In short turns, to stop as soon as the cause is known.
        match session
            .producer
            .client()
            .fetch_metadata(topics.first().map(String::as_str), Duration::from_secs(1))
        {
            Ok(metadata) => break metadata,
            Err(error) => {
                let trouble = session.shared.trouble(None);
                let certain = trouble.as_ref().is_some_and(|trouble| trouble.cause.rank() > 1);
                if certain || Instant::now() >= deadline {
                    return Err(trouble.unwrap_or_else(|| {
                        failure::failure(
                            forebay_broker::Remedy::Retry,
                            KafkaCause::BrokersDown,
                            format!(
                                "sink '{sink}': no broker answers within {} s: {error}",
                                DEADLINE.as_secs()
                            ),
                        )
                    }));
                }
            }
        }
    };
    let count = cluster.brokers().len();
    seen.findings.push(CheckFinding::new(
        FindingLevel::Good,
        format!(
            "sink '{sink}': connected, {count} broker{}",
            if count == 1 { "" } else { "s" }
        ),
    ));
    for name in topics {
        match session.producer.client().fetch_metadata(Some(name), DEADLINE) {
            Ok(metadata) => {
                for topic in metadata.topics().iter().filter(|topic| topic.name() == name) {
                    seen.topic(topic, create);
                }
            }
            Err(error) => {
                let text = format!("topic '{name}': could not be looked at: {error}");
                seen.findings.push(CheckFinding::new(FindingLevel::Problem, text));
            }
        }
    }
    if let Some(trouble) = session.shared.trouble(None) {
        seen.findings
            .push(CheckFinding::new(FindingLevel::Problem, trouble.text));
    }
    Ok(seen)
}

impl SeenCluster {
    fn topic(&mut self, topic: &MetadataTopic, create: Option<settings::CreateTopics>) {
        let name = topic.name();
        let finding = match topic.error() {
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => match create {
                Some(how) => CheckFinding::new(
                    FindingLevel::Good,
                    format!(
                        "topic '{name}' does not exist and will be created: {} partitions, {} replicas",
                        how.partitions, how.replication
                    ),
                ),
                None => CheckFinding::new(FindingLevel::Problem, failure::unknown_topic(name).text),
            },
            Some(error) => CheckFinding::new(FindingLevel::Problem, failure::of_message(Code::from(error), name).text),
            None => {
                let partitions = topic.partitions();
                let replicas = partitions
                    .iter()
                    .map(|partition| partition.replicas().len())
                    .min()
                    .unwrap_or(0);
                self.existing.push((name.to_string(), replicas));
                let leaderless = partitions.iter().filter(|partition| partition.leader() < 0).count();
                if leaderless > 0 {
                    CheckFinding::new(
                        FindingLevel::Problem,
                        format!(
                            "topic '{name}': {leaderless} of {} partitions have no leader",
                            partitions.len()
                        ),
                    )
                } else {
                    CheckFinding::new(
                        FindingLevel::Good,
                        format!("topic '{name}': {} partitions, {replicas} replicas", partitions.len()),
                    )
                }
            }
        };
        self.findings.push(finding);
    }
}

/// What the topics' own settings would do to events.
async fn settings_of(
    client: &ClientConfig,
    lease: Option<TokenLease>,
    topics: &[(String, usize)],
    body_bytes_max: u64,
) -> Vec<CheckFinding> {
    let client = client.clone();
    let Ok(Some(admin)) = spawn_blocking(move || admin(&client, lease.as_ref())).await else {
        return Vec::new();
    };
    let wanted: Vec<_> = topics.iter().map(|(name, _)| ResourceSpecifier::Topic(name)).collect();
    let mut findings = Vec::new();
    if !wanted.is_empty() {
        match admin.describe_configs(&wanted, &admin_options()).await {
            Ok(results) => {
                for ((name, replicas), result) in topics.iter().zip(results) {
                    match result {
                        Ok(settings) => judge(name, *replicas, &settings, body_bytes_max, &mut findings),
                        Err(code) => findings.push(unread(name, code)),
                    }
                }
            }
            Err(error) => findings.push(CheckFinding::new(
                FindingLevel::Warning,
                format!("the topics' settings could not be read: {error}"),
            )),
        }
    }
    spawn_blocking(move || drop(admin));
    findings
}

fn unread(topic: &str, code: Code) -> CheckFinding {
    let text = format!(
        "topic '{topic}': its settings could not be read ({code}): grant DESCRIBE_CONFIGS to have its limits checked"
    );
    CheckFinding::new(FindingLevel::Warning, text)
}

fn judge(
    topic: &str,
    replicas: usize,
    settings: &ConfigResource,
    body_bytes_max: u64,
    findings: &mut Vec<CheckFinding>,
) {
    let value = |key: &str| settings.get(key).and_then(|entry| entry.value.as_deref());
    let number = |key: &str| value(key).and_then(|value| value.parse::<u64>().ok());

    let too_small = number("max.message.bytes").and_then(|taken| too_small(topic, taken, body_bytes_max));
    findings.extend(too_small.map(|text| CheckFinding::new(FindingLevel::Warning, text)));
    if value("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        findings.push(CheckFinding::new(
            FindingLevel::Problem,
            format!(
                "topic '{topic}' is compacted, which keeps only the latest event of each stream: set its cleanup.policy to delete"
            ),
        ));
    }
    let in_sync = number("min.insync.replicas").unwrap_or(1);
    if replicas < 2 || in_sync < 2 {
        findings.push(CheckFinding::new(
            FindingLevel::Warning,
            format!(
                "topic '{topic}' confirms what one broker has ({replicas} replicas, min.insync.replicas {in_sync}): a lost disk \
                 loses events; use 3 replicas and min.insync.replicas=2"
            ),
        ));
    }
}
