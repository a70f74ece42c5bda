//! What went wrong with Kafka, and what to do about it.

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};

use super::{KafkaNames, lanes::StalledLane};
use crate::settings::TopicTemplate;
use forebay_broker::{Failure, FailureCause, Remedy};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaCause {
    Authentication,
    Authorisation,
    BrokersDown,
    CertificatesChanged,
    Configuration,
    Fatal,
    InvalidMessage,
    Other,
    PartitionsChanged,
    Stalled,
    Timestamp,
    Tls,
    Token,
    TooLarge,
    UnknownTopic,
}

/// A failure: what is wrong, what to do about it, and a text for people.
pub type KafkaFailure = Failure<KafkaCause>;

impl FailureCause for KafkaCause {
    fn label(self) -> &'static str {
        match self {
            Self::Authentication => "kafka_authentication",
            Self::Authorisation => "kafka_authorisation",
            Self::BrokersDown => "kafka_brokers_down",
            Self::CertificatesChanged => "kafka_certificates_changed",
            Self::Configuration => "kafka_configuration",
            Self::Fatal => "kafka_fatal",
            Self::InvalidMessage => "kafka_invalid_message",
            Self::Other => "kafka_other",
            Self::PartitionsChanged => "kafka_partitions_changed",
            Self::Stalled => "kafka_stalled",
            Self::Timestamp => "kafka_timestamp",
            Self::Tls => "kafka_tls",
            Self::Token => "kafka_token",
            Self::TooLarge => "kafka_too_large",
            Self::UnknownTopic => "kafka_unknown_topic",
        }
    }
}

impl KafkaCause {
    /// Every cause that a failure of this sink can have.
    pub(crate) const ALL: [Self; 15] = [
        Self::Authentication,
        Self::Authorisation,
        Self::BrokersDown,
        Self::CertificatesChanged,
        Self::Configuration,
        Self::Fatal,
        Self::InvalidMessage,
        Self::Other,
        Self::PartitionsChanged,
        Self::Stalled,
        Self::Timestamp,
        Self::Tls,
        Self::Token,
        Self::TooLarge,
        Self::UnknownTopic,
    ];
    /// Those that are a message's own fault.
    pub(crate) const OF_A_MESSAGE: [Self; 3] = [Self::InvalidMessage, Self::TooLarge, Self::UnknownTopic];

    /// Of two causes, the one with the higher rank tells more.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Self::Authentication | Self::Tls | Self::Authorisation => 2,
            Self::BrokersDown => 1,
            _ => 0,
        }
    }
}

pub(super) fn failure(remedy: Remedy, cause: KafkaCause, text: impl Into<String>) -> KafkaFailure {
    KafkaFailure {
        remedy,
        cause,
        text: text.into(),
    }
}

/// A message to `topic` was not taken or not delivered.
pub(super) fn of_message(code: Code, topic: &str) -> KafkaFailure {
    use Code::*;
    match code {
        UnknownTopic | UnknownTopicOrPartition | UnknownTopicId => unknown_topic(topic),
        InvalidTopic => failure(
            Remedy::Hold,
            KafkaCause::UnknownTopic,
            format!("topic '{topic}' is not a name that Kafka takes: correct the route's topic"),
        ),
        UnknownPartition => failure(
            Remedy::Retry,
            KafkaCause::PartitionsChanged,
            format!("topic '{topic}' has fewer partitions than before: its session is renewed"),
        ),
        MessageSizeTooLarge | MessageBatchTooLarge | InvalidMessageSize => failure(
            Remedy::DeadLetter,
            KafkaCause::TooLarge,
            format!("topic '{topic}' does not take a message of this size: raise its max.message.bytes"),
        ),
        // Of a record, but not its fault: it carries the time of its publication.
        InvalidTimestamp => failure(
            Remedy::Hold,
            KafkaCause::Timestamp,
            format!(
                "the broker of topic '{topic}' refuses this time of publication ({code}): set this host's and the brokers' \
                 clocks right, or raise the topic's message.timestamp.before.max.ms and message.timestamp.after.max.ms"
            ),
        ),
        InvalidRecord | InvalidMessage => failure(
            Remedy::DeadLetter,
            KafkaCause::InvalidMessage,
            format!("the broker of topic '{topic}' refuses this message ({code}): see the topic's configuration"),
        ),
        TopicAuthorizationFailed | ClusterAuthorizationFailed | TransactionalIdAuthorizationFailed => failure(
            Remedy::Hold,
            KafkaCause::Authorisation,
            format!("not authorised to write to topic '{topic}' ({code}): grant WRITE and DESCRIBE on it"),
        ),
        Authentication | SaslAuthenticationFailed => failure(
            Remedy::Hold,
            KafkaCause::Authentication,
            format!("could not authenticate to write to topic '{topic}' ({code}): correct the sink's credentials"),
        ),
        UnsupportedCompressionType | PolicyViolation | UnsupportedForMessageFormat | UnsupportedVersion => failure(
            Remedy::Hold,
            KafkaCause::Configuration,
            format!("topic '{topic}' does not take what this sink sends ({code}): compare their configurations"),
        ),
        Fatal
        | GaplessGuarantee
        | OutOfOrderSequenceNumber
        | UnknownProducerId
        | InvalidProducerEpoch
        | InvalidProducerIdMapping
        | Inconsistent
        | Fenced => given_up(&format!("topic '{topic}': {code}")),
        other => failure(
            Remedy::Retry,
            KafkaCause::Other,
            format!("failed to write to topic '{topic}': {other}"),
        ),
    }
}

pub(super) fn unknown_topic(topic: &str) -> KafkaFailure {
    failure(
        Remedy::Hold,
        KafkaCause::UnknownTopic,
        format!("topic '{topic}' does not exist: create it, or set create_topics on the sink"),
    )
}

/// A topic is not there, and the brokers do not make it.
pub(super) fn not_created(topic: &str, code: Code) -> KafkaFailure {
    if matches!(code, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) {
        let text = format!(
            "topic '{topic}' does not exist, and not authorised to create it ({code}): grant CREATE on it, or create it"
        );
        return failure(Remedy::Hold, KafkaCause::Authorisation, text);
    }
    failure(
        Remedy::Hold,
        KafkaCause::UnknownTopic,
        format!(
            "topic '{topic}' does not exist and cannot be created ({code}): see create_topics of the sink, or create it"
        ),
    )
}

/// Topics that are made from events are not made without end.
pub(super) fn too_many_topics(topic: &str, template: &TopicTemplate, topics_max: usize) -> KafkaFailure {
    failure(
        Remedy::Hold,
        KafkaCause::UnknownTopic,
        format!(
            "topic '{topic}' does not exist and is not created: there are {topics_max} topics of '{template}' already \
             (create_topics.topics_max): raise the limit, or create the topic"
        ),
    )
}

/// A partition takes messages and confirms none.
pub(super) fn stalled_partition(sink: &str, stalled: &StalledLane<'_>) -> KafkaFailure {
    let StalledLane {
        topic,
        partition,
        records,
        quiet,
    } = stalled;
    failure(
        Remedy::Hold,
        KafkaCause::Stalled,
        format!(
            "sink '{sink}': partition {partition} of topic '{topic}' has confirmed none of {records} messages for {} s: see whether \
             it has a leader and as many replicas in sync as min.insync.replicas says",
            quiet.as_secs()
        ),
    )
}

/// librdkafka declared the producer dead.
pub(super) fn fatal(code: Code, reason: &str, names: &KafkaNames) -> KafkaFailure {
    match code {
        Code::ClusterAuthorizationFailed
        | Code::TopicAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => not_authorised(reason, names),
        _ => given_up(reason),
    }
}

fn not_authorised(reason: &str, names: &KafkaNames) -> KafkaFailure {
    let sink = &names.sink;
    let topics = match &names.topic {
        Some(topic) => format!("topic '{topic}'"),
        None => "the topics".to_owned(),
    };
    failure(
        Remedy::Hold,
        KafkaCause::Authorisation,
        format!(
            "sink '{sink}': not authorised: {reason}: grant WRITE on {topics}; brokers before 2.8 want IDEMPOTENT_WRITE on the \
             cluster, too"
        ),
    )
}

/// The files of certificates or secrets were replaced.
pub(super) fn certificates_changed(sink: &str) -> KafkaFailure {
    failure(
        Remedy::Retry,
        KafkaCause::CertificatesChanged,
        format!(
            "sink '{sink}': a file of certificates, keys or secrets was replaced: the next session is made with it"
        ),
    )
}

fn given_up(reason: &str) -> KafkaFailure {
    failure(
        Remedy::Retry,
        KafkaCause::Fatal,
        format!("the producer cannot go on and is built anew: {reason}"),
    )
}

/// The producer could not be built.
pub(super) fn of_creation(error: &KafkaError, sink: &str) -> KafkaFailure {
    let reason = match error {
        // The value may be a secret.
        KafkaError::ClientConfig(_, reason, key, _) => format!("property {key}: {reason}"),
        KafkaError::ClientCreation(reason) => reason.clone(),
        other => other.to_string(),
    };
    failure(
        Remedy::Hold,
        KafkaCause::Configuration,
        format!("sink '{sink}': no Kafka producer with these properties: {reason}"),
    )
}

/// A secret's source cannot be read just now.
pub(super) fn unread(sink: &str, reason: &str) -> KafkaFailure {
    failure(
        Remedy::Hold,
        KafkaCause::Configuration,
        format!("sink '{sink}': {reason}"),
    )
}

/// A trouble of the client as a whole, from its error callback. `None`: nothing that anybody could act on.
pub(super) fn of_client(error: &KafkaError, reason: &str, names: &KafkaNames) -> Option<KafkaFailure> {
    let sink = &names.sink;
    let code = error.rdkafka_error_code()?;
    let found = match code {
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => failure(
            Remedy::Hold,
            KafkaCause::Authentication,
            format!("sink '{sink}': the broker refuses the credentials: {reason}: correct the sasl.* properties"),
        ),
        // In TLS 1.3 a client learns that its certificate is refused only after the handshake, where it looks like a
        // lost connection.
        _ if code == Code::SSL || reason.contains("SSL alert number") => failure(
            Remedy::Hold,
            KafkaCause::Tls,
            format!("sink '{sink}': no TLS with the broker: {reason}: correct the ssl.* properties"),
        ),
        Code::Resolve => failure(
            Remedy::Retry,
            KafkaCause::BrokersDown,
            format!("sink '{sink}': a broker's name does not resolve: {reason}: correct `brokers` or the DNS"),
        ),
        Code::AllBrokersDown => failure(
            Remedy::Retry,
            KafkaCause::BrokersDown,
            format!("sink '{sink}': no broker is reachable: {reason}"),
        ),
        Code::ClusterAuthorizationFailed => not_authorised(reason, names),
        _ => return None,
    };
    Some(found)
}
