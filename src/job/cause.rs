//! What a job finds wrong itself.

use crate::{
    config::UNROUTED,
    sink::{Failure, FailureCause},
};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobCause {
    /// Something is in flight, and the broker confirms none of it.
    NoConfirmation,
    /// The sink has no room for the next message, and nothing in flight.
    NotTaken,
    /// The route may pin no more of the spool.
    BacklogFull,
    /// There is no room for a dead letter.
    DeadLettersFull,
    /// A record is not one that this build can read.
    Undecodable,
    /// The spool cannot be read.
    SpoolRead,
    /// No route wants the event.
    Unrouted,
}

/// A failure that a job finds itself.
pub(super) type JobFailure = Failure<JobCause>;

impl FailureCause for JobCause {
    fn label(self) -> &'static str {
        match self {
            Self::NoConfirmation => "no_confirmation",
            Self::NotTaken => "not_taken",
            Self::BacklogFull => "backlog_full",
            Self::DeadLettersFull => "dead_letters_full",
            Self::Undecodable => "undecodable",
            Self::SpoolRead => "spool_read",
            Self::Unrouted => UNROUTED,
        }
    }
}

impl JobCause {
    /// Those that any route may meet.
    pub const OF_ANY_ROUTE: [Self; 6] = [
        Self::NoConfirmation,
        Self::NotTaken,
        Self::BacklogFull,
        Self::DeadLettersFull,
        Self::Undecodable,
        Self::SpoolRead,
    ];
}
