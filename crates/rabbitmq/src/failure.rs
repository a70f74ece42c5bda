//! What went wrong with RabbitMQ, and what to do about it.

use lapin::{ErrorKind, protocol::AMQPError};

use super::uri::AmqpNode;
use forebay_broker::{Failure, FailureCause, Remedy};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RabbitMqCause {
    AccessRefused,
    Authentication,
    Blocked,
    Channels,
    Closed,
    Configuration,
    Nacked,
    Other,
    Tls,
    TooLarge,
    Topology,
    Unconfirmed,
    UnknownExchange,
    Unreachable,
    Unroutable,
    Vhost,
}

/// A failure: what is wrong, what to do about it, and a text for people.
pub type RabbitMqFailure = Failure<RabbitMqCause>;

impl FailureCause for RabbitMqCause {
    fn label(self) -> &'static str {
        match self {
            Self::AccessRefused => "rabbitmq_access_refused",
            Self::Authentication => "rabbitmq_authentication",
            Self::Blocked => "rabbitmq_blocked",
            Self::Channels => "rabbitmq_channels",
            Self::Closed => "rabbitmq_closed",
            Self::Configuration => "rabbitmq_configuration",
            Self::Nacked => "rabbitmq_nacked",
            Self::Other => "rabbitmq_other",
            Self::Tls => "rabbitmq_tls",
            Self::TooLarge => "rabbitmq_too_large",
            Self::Topology => "rabbitmq_topology",
            Self::Unconfirmed => "rabbitmq_unconfirmed",
            Self::UnknownExchange => "rabbitmq_unknown_exchange",
            Self::Unreachable => "rabbitmq_unreachable",
            Self::Unroutable => "rabbitmq_unroutable",
            Self::Vhost => "rabbitmq_vhost",
        }
    }
}

impl RabbitMqCause {
    /// Every cause that a failure of this sink can have.
    pub(crate) const ALL: [Self; 16] = [
        Self::AccessRefused,
        Self::Authentication,
        Self::Blocked,
        Self::Channels,
        Self::Closed,
        Self::Configuration,
        Self::Nacked,
        Self::Other,
        Self::Tls,
        Self::TooLarge,
        Self::Topology,
        Self::Unconfirmed,
        Self::UnknownExchange,
        Self::Unreachable,
        Self::Unroutable,
        Self::Vhost,
    ];
    /// Those that are a message's own fault.
    pub(crate) const OF_A_MESSAGE: [Self; 2] = [Self::TooLarge, Self::Unroutable];

    /// Of two causes, the one with the higher rank tells more.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Self::Authentication | Self::Tls | Self::Vhost | Self::Configuration => 2,
            Self::Unreachable => 1,
            _ => 0,
        }
    }
}

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

pub(super) fn failure(remedy: Remedy, cause: RabbitMqCause, text: impl Into<String>) -> RabbitMqFailure {
    RabbitMqFailure {
        remedy,
        cause,
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
) -> RabbitMqFailure {
    match (stage, error.kind()) {
        (_, ErrorKind::ProtocolError(error)) => of_handshake(error, sink, node, user),
        (FailureStage::Tcp, _) => unreachable(sink, node, &cause(error)),
        (FailureStage::Tls, _) => failure(
            Remedy::Hold,
            RabbitMqCause::Tls,
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

fn of_handshake(error: &AMQPError, sink: &str, node: &AmqpNode, user: &str) -> RabbitMqFailure {
    let told = error.get_message();
    match error.get_id() {
        code::ACCESS_REFUSED => failure(
            Remedy::Hold,
            RabbitMqCause::Authentication,
            format!(
                "sink '{sink}': {node} refuses {user}: {told}: correct the credentials; they are read again at every try"
            ),
        ),
        code::NOT_ALLOWED | code::INVALID_PATH => failure(
            Remedy::Hold,
            RabbitMqCause::Vhost,
            format!(
                "sink '{sink}': {node} does not open virtual host '{}' for {user}: {told}: \
                 create it, bring it up, or grant access to it",
                node.vhost
            ),
        ),
        _ => closed(sink, &format!("{node}: {error}")),
    }
}

pub(super) fn unreachable(sink: &str, node: &AmqpNode, cause: &str) -> RabbitMqFailure {
    failure(
        Remedy::Hold,
        RabbitMqCause::Unreachable,
        format!("sink '{sink}': {node} cannot be reached: {cause}"),
    )
}

/// A file or variable of the configuration cannot be used just now.
pub(super) fn configuration(sink: &str, text: &str) -> RabbitMqFailure {
    failure(
        Remedy::Hold,
        RabbitMqCause::Configuration,
        format!("sink '{sink}': {text}"),
    )
}

/// RabbitMQ gives no channel more: a limit of the node, the virtual host or the user, who may be others' too.
pub(super) fn no_channel(sink: &str, told: &str) -> RabbitMqFailure {
    failure(
        Remedy::Hold,
        RabbitMqCause::Channels,
        format!(
            "sink '{sink}': RabbitMQ gives no more channels ({told}): raise channel_max, or the user's limit of channels; the \
             partitions share those that there are"
        ),
    )
}

/// An open session failed.
pub(super) fn of_session(error: &lapin::Error, sink: &str, exchange: &str) -> RabbitMqFailure {
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
            RabbitMqCause::UnknownExchange,
            format!(
                "sink '{sink}': exchange '{exchange}' is not there ({told}): create it, or set declare on the sink; \
                 a queue that is reported so has lost its node"
            ),
        ),
        code::ACCESS_REFUSED => failure(
            Remedy::Hold,
            RabbitMqCause::AccessRefused,
            format!("sink '{sink}': not allowed to publish to exchange '{exchange}' ({told}): grant write on it"),
        ),
        code::CONTENT_TOO_LARGE => too_large(Remedy::DeadLetter, sink, told.as_str()),
        code::PRECONDITION_FAILED | code::FRAME_ERROR if refused_bytes(told.as_str()).is_some() => {
            too_large(Remedy::DeadLetter, sink, told.as_str())
        }
        code::NOT_ALLOWED | code::INVALID_PATH => failure(
            Remedy::Hold,
            RabbitMqCause::Vhost,
            format!(
                "sink '{sink}': the virtual host does not go on ({told}): bring it up again, or grant access to it"
            ),
        ),
        code::CONNECTION_FORCED => closed(sink, &format!("an operator or the node closed it: {told}")),
        _ => failure(
            Remedy::Retry,
            RabbitMqCause::Other,
            format!("sink '{sink}': failed to publish: {error}"),
        ),
    }
}

/// `… number of channels opened for user 'forebay' has reached the maximum allowed user limit of (5)` and its like.
pub(super) fn is_about_channels(told: &str) -> bool {
    told.contains("number of channels opened")
}

pub(super) fn closed(sink: &str, cause: &str) -> RabbitMqFailure {
    failure(
        Remedy::Retry,
        RabbitMqCause::Closed,
        format!("sink '{sink}': the connection was lost: {cause}"),
    )
}

/// The body that RabbitMQ found too large, from `message size 20 is larger than configured max size 10` and its like.
pub(super) fn refused_bytes(told: &str) -> Option<usize> {
    let behind = told.split_once("message size ")?.1;
    let (bytes, rest) = behind.split_once(' ')?;
    rest.contains("larger").then(|| bytes.parse().ok())?
}

pub(super) fn too_large(remedy: Remedy, sink: &str, told: &str) -> RabbitMqFailure {
    failure(
        remedy,
        RabbitMqCause::TooLarge,
        format!("sink '{sink}': RabbitMQ takes no message of this size ({told}): raise its max_message_size"),
    )
}

/// What stands beside the body does not fit into one frame.
pub(super) fn headers_too_large(sink: &str, bytes: usize, bytes_max: usize) -> RabbitMqFailure {
    failure(
        Remedy::DeadLetter,
        RabbitMqCause::TooLarge,
        format!("sink '{sink}': {bytes} bytes of headers and properties, and a frame of AMQP holds {bytes_max}"),
    )
}

/// A queue refuses what it was sent (`reject-publish`), or could not keep it.
pub(super) fn nacked(sink: &str, exchange: &str, partition: u32) -> RabbitMqFailure {
    failure(
        Remedy::Hold,
        RabbitMqCause::Nacked,
        format!(
            "sink '{sink}': a queue bound to exchange '{exchange}' refuses messages of partition {partition:02}: \
             it is full, or its node fails: see to its consumer or raise its limit; the messages are offered again, in order"
        ),
    )
}

/// No queue is bound for a message.
pub(super) fn unroutable(remedy: Remedy, sink: &str, exchange: &str, routing_key: &str) -> RabbitMqFailure {
    failure(
        remedy,
        RabbitMqCause::Unroutable,
        format!("sink '{sink}': no queue takes routing key '{routing_key}' from exchange '{exchange}': bind one"),
    )
}

/// A queue that was declared is gone.
pub(super) fn undeclared(sink: &str, routing_key: &str) -> RabbitMqFailure {
    failure(
        Remedy::Retry,
        RabbitMqCause::Unroutable,
        format!(
            "sink '{sink}': no queue takes routing key '{routing_key}', though one was declared: somebody has deleted it or its \
             binding; exchange and queues are declared again"
        ),
    )
}

/// The broker says nothing at all: a quorum queue without a majority does that.
pub(super) fn unconfirmed(sink: &str, partition: u32, records: usize, seconds: u64) -> RabbitMqFailure {
    failure(
        Remedy::Hold,
        RabbitMqCause::Unconfirmed,
        format!(
            "sink '{sink}': {records} messages of partition {partition:02} and no word of all of them for {seconds} s: \
             see whether the queue has a majority of its nodes; they are waited for"
        ),
    )
}

/// The node has stopped reading from publishers.
pub(super) fn blocked(sink: &str, reason: &str) -> RabbitMqFailure {
    failure(
        Remedy::Hold,
        RabbitMqCause::Blocked,
        format!("sink '{sink}': RabbitMQ has blocked the connection: {reason}: free memory or disk of its node"),
    )
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
        for (id, told, remedy, cause) in [
            (
                404,
                "NOT_FOUND - no exchange 'x' in vhost '/'",
                Hold,
                RabbitMqCause::UnknownExchange,
            ),
            (403, "ACCESS_REFUSED - write access", Hold, RabbitMqCause::AccessRefused),
            (406, large, DeadLetter, RabbitMqCause::TooLarge),
            (
                406,
                "PRECONDITION_FAILED - inequivalent arg",
                Retry,
                RabbitMqCause::Other,
            ),
            (311, "CONTENT_TOO_LARGE", DeadLetter, RabbitMqCause::TooLarge),
            (320, "CONNECTION_FORCED - broker forced", Retry, RabbitMqCause::Closed),
            (530, "NOT_ALLOWED - vhost is down", Hold, RabbitMqCause::Vhost),
            (
                530,
                "NOT_ALLOWED - number of channels opened for user 'f' has reached the maximum allowed user limit of (5)",
                Hold,
                RabbitMqCause::Channels,
            ),
            (541, "INTERNAL_ERROR", Retry, RabbitMqCause::Other),
        ] {
            let failure = of_session(&protocol(id, told), "rabbit", "x");
            assert_eq!((failure.remedy, failure.cause), (remedy, cause), "{id} {told}");
            assert!(failure.text.contains("sink 'rabbit'"), "{failure}");
            assert!(RabbitMqCause::ALL.contains(&failure.cause));
        }
        let io = lapin::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert_eq!(of_session(&io, "rabbit", "x").cause, RabbitMqCause::Closed);
    }

    #[test]
    fn a_connection_that_fails_names_node_and_user_and_never_the_password() {
        let node = parse("amqp://ada:s3cret@h/v").unwrap();
        let io = lapin::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        for (error, stage, cause) in [
            (
                protocol(403, "ACCESS_REFUSED - Login was refused"),
                FailureStage::Handshake,
                RabbitMqCause::Authentication,
            ),
            (
                protocol(530, "NOT_ALLOWED - vhost v not found"),
                FailureStage::Handshake,
                RabbitMqCause::Vhost,
            ),
            (
                protocol(320, "CONNECTION_FORCED"),
                FailureStage::Handshake,
                RabbitMqCause::Closed,
            ),
            (io.clone(), FailureStage::Tcp, RabbitMqCause::Unreachable),
            (io.clone(), FailureStage::Tls, RabbitMqCause::Tls),
            (io, FailureStage::Handshake, RabbitMqCause::Unreachable),
        ] {
            let failure = of_connecting(&error, stage, "rabbit", &node, "user 'ada'");
            assert_eq!(failure.cause, cause);
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
