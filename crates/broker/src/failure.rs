//! Why something was not published, and what to do about it.

/// A failure as whoever found it knows it. It is seen three ways: what to do about it, a label for metrics, a text for
/// people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure<C> {
    pub remedy: Remedy,
    pub cause: C,
    /// Names the thing, the cause and the cure.
    pub text: String,
}

/// What is wrong: an enum of whoever finds it.
pub trait FailureCause: Copy + Eq {
    /// The label of metrics, from a closed set: [`crate::SinkLabels`]. Nothing goes by it.
    fn label(self) -> &'static str;
}

/// A failure as a job sees it, whoever found it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct PublishFailure {
    pub remedy: Remedy,
    pub label: &'static str,
    pub text: String,
}

impl<C: FailureCause> From<Failure<C>> for PublishFailure {
    fn from(failure: Failure<C>) -> Self {
        Self {
            remedy: failure.remedy,
            label: failure.cause.label(),
            text: failure.text,
        }
    }
}

/// What a job does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It passes by itself: open a new session after a back-off and replay.
    Retry,
    /// Somebody must act (no such topic, not authorised): the route is blocked and says so; it goes on trying.
    Hold,
    /// It is this message's own fault (too large): replay one by one until the culprit is found, and dead-letter it
    /// alone.
    DeadLetter,
    /// It is this message's own fault, and the broker said so of this one alone: it becomes a dead letter, its
    /// neighbours pass, and the session goes on unless [`crate::Sink::settle`] says that it is over.
    SetAside,
}
