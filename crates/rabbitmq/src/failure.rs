//! What went wrong with RabbitMQ, and what to do about it.

use lapin::{ErrorKind, protocol::AMQPError};

use super::uri::AmqpNode;
use forebay_broker::{PublishFailure, Remedy};

pub const ACCESS_REFUSED: &str = "rabbitmq_access_refused";
pub const AUTHENTICATION: &str = "rabbitmq_authentication";
pub const BLOCKED: &str = "rabbitmq_blocked";
pub const CHANNELS: &str = "rabbitmq_channels";
pub const CLOSED: &str = "rabbitmq_closed";
pub const CONFIGURATION: &str = "rabbitmq_configuration";
pub const NACKED: &str = "rabbitmq_nacked";
pub const OTHER: &str = "rabbitmq_other";
pub const TLS: &str = "rabbitmq_tls";
pub const TOO_LARGE: &str = "rabbitmq_too_large";
pub const TOPOLOGY: &str = "rabbitmq_topology";
pub const UNCONFIRMED: &str = "rabbitmq_unconfirmed";
pub const UNKNOWN_EXCHANGE: &str = "rabbitmq_unknown_exchange";
pub const UNREACHABLE: &str = "rabbitmq_unreachable";
pub const UNROUTABLE: &str = "rabbitmq_unroutable";
pub const VHOST: &str = "rabbitmq_vhost";

/// Every label that a failure of this sink can carry.
pub const LABELS: &[&str] = &[
    ACCESS_REFUSED,
    AUTHENTICATION,
    BLOCKED,
    CHANNELS,
    CLOSED,
    CONFIGURATION,
    NACKED,
    OTHER,
    TLS,
    TOO_LARGE,
    TOPOLOGY,
    UNCONFIRMED,
    UNKNOWN_EXCHANGE,
    UNREACHABLE,
    UNROUTABLE,
    VHOST,
];

/// Those of the failures that are a message's own fault.
pub(super) const DEAD_LETTERS: &[&str] = &[TOO_LARGE, UNROUTABLE];

/// AMQP's reply codes.
mod code {
    pub const CONTENT_TOO_LARGE: u16 = 311;
    pub const CONNECTION_FORCED: u16 = 320;
    pub const INVALID_PATH: u16 = 402;
    pub const ACCESS_REFUSED: u16 = 403;
    pub const NOT_FOUND: u16 = 404;
    pub const PRECONDITION_FAILED: u16 = 406;
    pub const FRAME_ERROR: u16 = 501;
    pub const NOT_ALLOWED: u16 = 530;
}

pub(super) fn failure(remedy: Remedy, label: &'static str, text: impl Into<String>) -> PublishFailure {
    PublishFailure {
        remedy,
        label,
        text: text.into(),
    }
}

/// Where a connection had got to when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureStage {
    Tcp,
    Tls,
    /// AMQP's own handshake: credentials, limits, virtual host.
    Handshake,
}

/// No connection with a node.
pub(super) fn of_connecting(
    error: &lapin::Error,
    stage: FailureStage,
    sink: &str,
    node: &AmqpNode,
    user: &str,
) -> PublishFailure {
    match (stage, error.kind()) {
        (_, ErrorKind::ProtocolError(error)) => of_handshake(error, sink, node, user),
        (FailureStage::Tcp, _) => unreachable(sink, node, &cause(error)),
        (FailureStage::Tls, _) => failure(
            Remedy::Hold,
            TLS,
            format!(
                "sink '{sink}': no TLS with {node}: {}: see whether it is the port for TLS, and tls.ca_file",
                cause(error)
            ),
        ),
        (FailureStage::Handshake, _) => unreachable(
            sink,
            node,
            &format!(
                "it ended the handshake of AMQP: {}: see whether the port is the one for {}, and the client's certificate",
                cause(error),
                if node.tls { "amqps" } else { "amqp" }
            ),
        ),
    }
}

fn of_handshake(error: &AMQPError, sink: &str, node: &AmqpNode, user: &str) -> PublishFailure {
    let told = error.get_message();
    match error.get_id() {
        code::ACCESS_REFUSED => failure(
            Remedy::Hold,
            AUTHENTICATION,
            format!(
                "sink '{sink}': {node} refuses {user}: {told}: correct the credentials; they are read again at every try"
            ),
        ),
        code::NOT_ALLOWED | code::INVALID_PATH => failure(
            Remedy::Hold,
            VHOST,
            format!(
                "sink '{sink}': {node} does not open virtual host '{}' for {user}: {told}: \
                 create it, bring it up, or grant access to it",
                node.vhost
            ),
        ),
        _ => closed(sink, &format!("{node}: {error}")),
    }
}

pub(super) fn unreachable(sink: &str, node: &AmqpNode, cause: &str) -> PublishFailure {
    failure(
        Remedy::Hold,
        UNREACHABLE,
        format!("sink '{sink}': {node} cannot be reached: {cause}"),
    )
}

/// A file or variable of the configuration cannot be used just now.
pub(super) fn configuration(sink: &str, text: &str) -> PublishFailure {
    failure(Remedy::Hold, CONFIGURATION, format!("sink '{sink}': {text}"))
}

/// RabbitMQ gives no channel more: a limit of the node, the virtual host or the user, who may be others' too.
pub(super) fn no_channel(sink: &str, told: &str) -> PublishFailure {
    failure(
        Remedy::Hold,
        CHANNELS,
        format!(
            "sink '{sink}': RabbitMQ gives no more channels ({told}): raise channel_max, or the user's limit of channels; the \
             partitions share those that there are"
        ),
    )
}

/// An open session failed.
pub(super) fn of_session(error: &lapin::Error, sink: &str, exchange: &str) -> PublishFailure {
    let error = match error.kind() {
        ErrorKind::ProtocolError(error) => error,
        ErrorKind::ChannelsLimitReached => return no_channel(sink, "the connection's limit"),
        _ => return closed(sink, &cause(error)),
    };
    let told = error.get_message();
    match error.get_id() {
        code::NOT_ALLOWED if is_about_channels(told.as_str()) => no_channel(sink, told.as_str()),
        code::NOT_FOUND => failure(
            Remedy::Hold,
            UNKNOWN_EXCHANGE,
            format!(
                "sink '{sink}': exchange '{exchange}' is not there ({told}): create it, or set declare on the sink; \
                 a queue that is reported so has lost its node"
            ),
        ),
        code::ACCESS_REFUSED => failure(
            Remedy::Hold,
            ACCESS_REFUSED,
            format!("sink '{sink}': not allowed to publish to exchange '{exchange}' ({told}): grant write on it"),
        ),
        code::CONTENT_TOO_LARGE => too_large(Remedy::DeadLetter, sink, told.as_str()),
        code::PRECONDITION_FAILED | code::FRAME_ERROR if refused_bytes(told.as_str()).is_some() => {
            too_large(Remedy::DeadLetter, sink, told.as_str())
        }
        code::NOT_ALLOWED | code::INVALID_PATH => failure(
            Remedy::Hold,
            VHOST,
            format!(
                "sink '{sink}': the virtual host does not go on ({told}): bring it up again, or grant access to it"
            ),
        ),
        code::CONNECTION_FORCED => closed(sink, &format!("an operator or the node closed it: {told}")),
        _ => failure(
            Remedy::Retry,
            OTHER,
            format!("sink '{sink}': failed to publish: {error}"),
        ),
    }
}

/// `… number of channels opened for user 'forebay' has reached the maximum allowed user limit of (5)` and its like.
pub(super) fn is_about_channels(told: &str) -> bool {
    told.contains("number of channels opened")
}

pub(super) fn closed(sink: &str, cause: &str) -> PublishFailure {
    failure(
        Remedy::Retry,
        CLOSED,
        format!("sink '{sink}': the connection was lost: {cause}"),
    )
}

/// The body that RabbitMQ found too large, from `message size 20 is larger than configured max size 10` and its like.
pub(super) fn refused_bytes(told: &str) -> Option<usize> {
    let behind = told.split_once("message size ")?.1;
    let (bytes, rest) = behind.split_once(' ')?;
    rest.contains("larger").then(|| bytes.parse().ok())?
}

pub(super) fn too_large(remedy: Remedy, sink: &str, told: &str) -> PublishFailure {
    failure(
        remedy,
        TOO_LARGE,
        format!("sink '{sink}': RabbitMQ takes no message of this size ({told}): raise its max_message_size"),
    )
}

/// What stands beside the body does not fit into one frame.
pub(super) fn headers_too_large(sink: &str, bytes: usize, bytes_max: usize) -> PublishFailure {
    failure(
        Remedy::DeadLetter,
        TOO_LARGE,
        format!("sink '{sink}': {bytes} bytes of headers and properties, and a frame of AMQP holds {bytes_max}"),
    )
}

/// A queue refuses what it was sent (`reject-publish`), or could not keep it.
pub(super) fn nacked(sink: &str, exchange: &str, partition: u32) -> PublishFailure {
    failure(
        Remedy::Hold,
        NACKED,
        format!(
            "sink '{sink}': a queue bound to exchange '{exchange}' refuses messages of partition {partition:02}: \
             it is full, or its node fails: see to its consumer or raise its limit; the messages are offered again, in order"
        ),
    )
}

/// No queue is bound for a message.
pub(super) fn unroutable(remedy: Remedy, sink: &str, exchange: &str, routing_key: &str) -> PublishFailure {
    failure(
        remedy,
        UNROUTABLE,
        format!("sink '{sink}': no queue takes routing key '{routing_key}' from exchange '{exchange}': bind one"),
    )
}

/// A queue that was declared is gone.
pub(super) fn undeclared(sink: &str, routing_key: &str) -> PublishFailure {
    failure(
        Remedy::Retry,
        UNROUTABLE,
        format!(
            "sink '{sink}': no queue takes routing key '{routing_key}', though one was declared: somebody has deleted it or its \
             binding; exchange and queues are declared again"
        ),
    )
}

/// The broker says nothing at all: a quorum queue without a majority does that.
pub(super) fn unconfirmed(sink: &str, partition: u32, records: usize, seconds: u64) -> PublishFailure {
    failure(
        Remedy::Hold,
        UNCONFIRMED,
        format!(
            "sink '{sink}': {records} messages of partition {partition:02} and no word of all of them for {seconds} s: \
             see whether the queue has a majority of its nodes; they are waited for"
        ),
    )
}

/// The node has stopped reading from publishers.
pub(super) fn blocked(sink: &str, reason: &str) -> PublishFailure {
    failure(
        Remedy::Hold,
        BLOCKED,
        format!("sink '{sink}': RabbitMQ has blocked the connection: {reason}: free memory or disk of its node"),
    )
}

/// Of two failures, the one that tells more.
pub(super) fn rank(label: &str) -> u8 {
    match label {
        AUTHENTICATION | TLS | VHOST | CONFIGURATION => 2,
        UNREACHABLE => 1,
        _ => 0,
    }
}

/// The innermost text of an error, without lapin's words around it.
fn cause(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::IOError(error) | ErrorKind::RuntimeShutdownError(error) => error.to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::ShortString;

    use super::*;
    use crate::uri::parse;

    fn protocol(id: u16, told: &str) -> lapin::Error {
        let error = AMQPError::from_id(id, ShortString::from(told)).expect("a code of AMQP");
        ErrorKind::ProtocolError(error).into()
    }

    #[test]
    fn an_open_sessions_failure_goes_by_the_reply_code() {
        use Remedy::*;
        let large = "PRECONDITION_FAILED - message size 20 is larger than configured max size 10";
        for (id, told, remedy, label) in [
            (404, "NOT_FOUND - no exchange 'x' in vhost '/'", Hold, UNKNOWN_EXCHANGE),
            (403, "ACCESS_REFUSED - write access", Hold, ACCESS_REFUSED),
            (406, large, DeadLetter, TOO_LARGE),
            (406, "PRECONDITION_FAILED - inequivalent arg", Retry, OTHER),
            (311, "CONTENT_TOO_LARGE", DeadLetter, TOO_LARGE),
            (320, "CONNECTION_FORCED - broker forced", Retry, CLOSED),
            (530, "NOT_ALLOWED - vhost is down", Hold, VHOST),
            (
                530,
                "NOT_ALLOWED - number of channels opened for user 'f' has reached the maximum allowed user limit of (5)",
                Hold,
                CHANNELS,
            ),
            (541, "INTERNAL_ERROR", Retry, OTHER),
        ] {
            let failure = of_session(&protocol(id, told), "rabbit", "x");
            assert_eq!((failure.remedy, failure.label), (remedy, label), "{id} {told}");
            assert!(failure.text.contains("sink 'rabbit'"), "{failure}");
            assert!(LABELS.contains(&failure.label));
        }
        let io = lapin::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert_eq!(of_session(&io, "rabbit", "x").label, CLOSED);
    }

    #[test]
    fn a_connection_that_fails_names_node_and_user_and_never_the_password() {
        let node = parse("amqp://ada:s3cret@h/v").unwrap();
        let io = lapin::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        for (error, stage, label) in [
            (
                protocol(403, "ACCESS_REFUSED - Login was refused"),
                FailureStage::Handshake,
                AUTHENTICATION,
            ),
            (
                protocol(530, "NOT_ALLOWED - vhost v not found"),
                FailureStage::Handshake,
                VHOST,
            ),
            (protocol(320, "CONNECTION_FORCED"), FailureStage::Handshake, CLOSED),
            (io.clone(), FailureStage::Tcp, UNREACHABLE),
            (io.clone(), FailureStage::Tls, TLS),
            (io, FailureStage::Handshake, UNREACHABLE),
        ] {
            let failure = of_connecting(&error, stage, "rabbit", &node, "user 'ada'");
            assert_eq!(failure.label, label);
            assert!(
                failure.text.contains("h:5672") && !failure.text.contains("s3cret"),
                "{failure}"
            );
        }
    }

    #[test]
    fn the_size_that_was_refused_is_read_from_the_text() {
        for (told, bytes) in [
            (
                "PRECONDITION_FAILED - message size 20 is larger than configured max size 10",
                Some(20),
            ),
            (
                "PRECONDITION_FAILED - message size 20 is larger than max size 10",
                Some(20),
            ),
            ("PRECONDITION_FAILED - inequivalent arg 'type'", None),
            ("", None),
        ] {
            assert_eq!(refused_bytes(told), bytes, "{told}");
        }
    }
}
