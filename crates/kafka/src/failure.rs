//! What went wrong with Kafka, and what to do about it.

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};

use super::{KafkaNames, lanes::StalledLane};
use crate::settings::TopicTemplate;
use forebay_broker::{PublishFailure, Remedy};

pub const AUTHENTICATION: &str = "kafka_authentication";
pub const AUTHORISATION: &str = "kafka_authorisation";
pub const BROKERS_DOWN: &str = "kafka_brokers_down";
pub const CERTIFICATES_CHANGED: &str = "kafka_certificates_changed";
pub const CONFIGURATION: &str = "kafka_configuration";
pub const FATAL: &str = "kafka_fatal";
pub const INVALID_MESSAGE: &str = "kafka_invalid_message";
pub const OTHER: &str = "kafka_other";
pub const PARTITIONS_CHANGED: &str = "kafka_partitions_changed";
pub const STALLED: &str = "kafka_stalled";
pub const TIMESTAMP: &str = "kafka_timestamp";
pub const TLS: &str = "kafka_tls";
pub const TOKEN: &str = "kafka_token";
pub const TOO_LARGE: &str = "kafka_too_large";
pub const UNKNOWN_TOPIC: &str = "kafka_unknown_topic";

/// Every label that a failure of this sink can carry.
pub const LABELS: &[&str] = &[
    AUTHENTICATION,
    AUTHORISATION,
    BROKERS_DOWN,
    CERTIFICATES_CHANGED,
    CONFIGURATION,
    FATAL,
    INVALID_MESSAGE,
    OTHER,
    PARTITIONS_CHANGED,
    STALLED,
    TIMESTAMP,
    TLS,
    TOKEN,
    TOO_LARGE,
    UNKNOWN_TOPIC,
];

/// Those of the failures that are a message's own fault.
pub(super) const DEAD_LETTERS: &[&str] = &[INVALID_MESSAGE, TOO_LARGE, UNKNOWN_TOPIC];

pub(super) fn failure(remedy: Remedy, label: &'static str, text: impl Into<String>) -> PublishFailure {
    PublishFailure {
        remedy,
        label,
        text: text.into(),
    }
}

/// A message to `topic` was not taken or not delivered.
pub(super) fn of_message(code: Code, topic: &str) -> PublishFailure {
    use Code::*;
    match code {
        UnknownTopic | UnknownTopicOrPartition | UnknownTopicId => unknown_topic(topic),
        InvalidTopic => failure(
            Remedy::Hold,
            UNKNOWN_TOPIC,
            format!("topic '{topic}' is not a name that Kafka takes: correct the route's topic"),
        ),
        UnknownPartition => failure(
            Remedy::Retry,
            PARTITIONS_CHANGED,
            format!("topic '{topic}' has fewer partitions than before: its session is renewed"),
        ),
        MessageSizeTooLarge | MessageBatchTooLarge | InvalidMessageSize => failure(
            Remedy::DeadLetter,
            TOO_LARGE,
            format!("topic '{topic}' does not take a message of this size: raise its max.message.bytes"),
        ),
        // Of a record, but not its fault: it carries the time of its publication.
        InvalidTimestamp => failure(
            Remedy::Hold,
            TIMESTAMP,
            format!(
                "the broker of topic '{topic}' refuses this time of publication ({code}): set this host's and the brokers' \
                 clocks right, or raise the topic's message.timestamp.before.max.ms and message.timestamp.after.max.ms"
            ),
        ),
        InvalidRecord | InvalidMessage => failure(
            Remedy::DeadLetter,
            INVALID_MESSAGE,
            format!("the broker of topic '{topic}' refuses this message ({code}): see the topic's configuration"),
        ),
        TopicAuthorizationFailed | ClusterAuthorizationFailed | TransactionalIdAuthorizationFailed => failure(
            Remedy::Hold,
            AUTHORISATION,
            format!("not authorised to write to topic '{topic}' ({code}): grant WRITE and DESCRIBE on it"),
        ),
        Authentication | SaslAuthenticationFailed => failure(
            Remedy::Hold,
            AUTHENTICATION,
            format!("could not authenticate to write to topic '{topic}' ({code}): correct the sink's credentials"),
        ),
        UnsupportedCompressionType | PolicyViolation | UnsupportedForMessageFormat | UnsupportedVersion => failure(
            Remedy::Hold,
            CONFIGURATION,
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
            OTHER,
            format!("failed to write to topic '{topic}': {other}"),
        ),
    }
}

pub(super) fn unknown_topic(topic: &str) -> PublishFailure {
    failure(
        Remedy::Hold,
        UNKNOWN_TOPIC,
        format!("topic '{topic}' does not exist: create it, or set create_topics on the sink"),
    )
}

/// A topic is not there, and the brokers do not make it.
pub(super) fn not_created(topic: &str, code: Code) -> PublishFailure {
    if matches!(code, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) {
        let text = format!(
            "topic '{topic}' does not exist, and not authorised to create it ({code}): grant CREATE on it, or create it"
        );
        return failure(Remedy::Hold, AUTHORISATION, text);
    }
    failure(
        Remedy::Hold,
        UNKNOWN_TOPIC,
        format!(
            "topic '{topic}' does not exist and cannot be created ({code}): see create_topics of the sink, or create it"
        ),
    )
}

/// Topics that are made from events are not made without end.
pub(super) fn too_many_topics(topic: &str, template: &TopicTemplate, topics_max: usize) -> PublishFailure {
    failure(
        Remedy::Hold,
        UNKNOWN_TOPIC,
        format!(
            "topic '{topic}' does not exist and is not created: there are {topics_max} topics of '{template}' already \
             (create_topics.topics_max): raise the limit, or create the topic"
        ),
    )
}

/// A partition takes messages and confirms none.
pub(super) fn stalled_partition(sink: &str, stalled: &StalledLane<'_>) -> PublishFailure {
    let StalledLane {
        topic,
        partition,
        records,
        quiet,
    } = stalled;
    failure(
        Remedy::Hold,
        STALLED,
        format!(
            "sink '{sink}': partition {partition} of topic '{topic}' has confirmed none of {records} messages for {} s: see whether \
             it has a leader and as many replicas in sync as min.insync.replicas says",
            quiet.as_secs()
        ),
    )
}

/// librdkafka declared the producer dead.
pub(super) fn fatal(code: Code, reason: &str, names: &KafkaNames) -> PublishFailure {
    match code {
        Code::ClusterAuthorizationFailed
        | Code::TopicAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => not_authorised(reason, names),
        _ => given_up(reason),
    }
}

fn not_authorised(reason: &str, names: &KafkaNames) -> PublishFailure {
    let sink = &names.sink;
    let topics = match &names.topic {
        Some(topic) => format!("topic '{topic}'"),
        None => "the topics".to_owned(),
    };
    failure(
        Remedy::Hold,
        AUTHORISATION,
        format!(
            "sink '{sink}': not authorised: {reason}: grant WRITE on {topics}; brokers before 2.8 want IDEMPOTENT_WRITE on the \
             cluster, too"
        ),
    )
}

/// The files of certificates or secrets were replaced.
pub(super) fn certificates_changed(sink: &str) -> PublishFailure {
    failure(
        Remedy::Retry,
        CERTIFICATES_CHANGED,
        format!(
            "sink '{sink}': a file of certificates, keys or secrets was replaced: the next session is made with it"
        ),
    )
}

fn given_up(reason: &str) -> PublishFailure {
    failure(
        Remedy::Retry,
        FATAL,
        format!("the producer cannot go on and is built anew: {reason}"),
    )
}

/// The producer could not be built.
pub(super) fn of_creation(error: &KafkaError, sink: &str) -> PublishFailure {
    let reason = match error {
        // The value may be a secret.
        KafkaError::ClientConfig(_, reason, key, _) => format!("property {key}: {reason}"),
        KafkaError::ClientCreation(reason) => reason.clone(),
        other => other.to_string(),
    };
    failure(
        Remedy::Hold,
        CONFIGURATION,
        format!("sink '{sink}': no Kafka producer with these properties: {reason}"),
    )
}

/// A secret's source cannot be read just now.
pub(super) fn unread(sink: &str, reason: &str) -> PublishFailure {
    failure(Remedy::Hold, CONFIGURATION, format!("sink '{sink}': {reason}"))
}

/// A trouble of the client as a whole, from its error callback. `None`: nothing that anybody could act on.
pub(super) fn of_client(error: &KafkaError, reason: &str, names: &KafkaNames) -> Option<PublishFailure> {
    let sink = &names.sink;
    let code = error.rdkafka_error_code()?;
    let found = match code {
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => failure(
            Remedy::Hold,
            AUTHENTICATION,
            format!("sink '{sink}': the broker refuses the credentials: {reason}: correct the sasl.* properties"),
        ),
        // In TLS 1.3 a client learns that its certificate is refused only after the handshake, where it looks like a
        // lost connection.
        _ if code == Code::SSL || reason.contains("SSL alert number") => failure(
            Remedy::Hold,
            TLS,
            format!("sink '{sink}': no TLS with the broker: {reason}: correct the ssl.* properties"),
        ),
        Code::Resolve => failure(
            Remedy::Retry,
            BROKERS_DOWN,
            format!("sink '{sink}': a broker's name does not resolve: {reason}: correct `brokers` or the DNS"),
        ),
        Code::AllBrokersDown => failure(
            Remedy::Retry,
            BROKERS_DOWN,
            format!("sink '{sink}': no broker is reachable: {reason}"),
        ),
        Code::ClusterAuthorizationFailed => not_authorised(reason, names),
        _ => return None,
    };
    Some(found)
}

/// Of two troubles, the one that tells more.
pub(super) fn rank(label: &str) -> u8 {
    match label {
        AUTHENTICATION | TLS | AUTHORISATION => 2,
        BROKERS_DOWN => 1,
        _ => 0,
    }
}
