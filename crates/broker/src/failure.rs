//! Why something was not published, and what to do about it.

/// A failure as a job sees it: what to do about it, a label for metrics, a text for people. A broker has an enum of its
/// own behind it; nothing goes by the label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct PublishFailure {
    pub remedy: Remedy,
    /// From a closed set: [`crate::SinkLabels`].
    pub label: &'static str,
    /// Names the thing, the cause and the cure.
    pub text: String,
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
