//! One route's publishing session.

use std::pin::Pin;

use crate::{FailureCause, Message, MessageDestination, MessagePlace, PublishFailure};

/// A publishing session with a broker, driven by one job.
pub trait Sink: Send + Sync + 'static {
    /// Ends the session, if there is one, forgetting all that it had in flight, and opens a new one.
    ///
    /// Must return within a deadline of its own.
    fn reopen(&mut self) -> impl Future<Output = Result<(), PublishFailure>> + Send;

    /// Where a message to `address` under `key` goes, as far as the session knows.
    fn place(&self, address: &str, key: &str) -> MessagePlace;

    /// Where a message goes, for its span.
    fn destination(&self, message: &Message) -> MessageDestination;

    /// Hands a message over without waiting. Messages go out in this order.
    ///
    /// # Errors
    ///
    /// It was not taken: [`EnqueueError`].
    fn enqueue(&mut self, message: Message) -> Result<(), EnqueueError>;

    /// Waits until something was settled and moves it into `settled`. Cancel-safe. `Err`: the session is over, and
    /// whatever is not settled is unknown: reopen and replay it.
    fn settle(&mut self, settled: &mut Vec<SettledMessage>) -> impl Future<Output = Result<(), PublishFailure>> + Send;

    /// What keeps the broker from confirming anything just now, if the session knows (a wrong password, no broker to
    /// reach). `None` when all is well.
    fn trouble(&self) -> Option<PublishFailure>;

    /// The labels that its failures carry.
    fn labels(&self) -> SinkLabels;
}

/// The closed sets of a sink's labels: what is counted by them stands at 0 before the first failure.
#[derive(Debug, Clone)]
pub struct SinkLabels {
    pub failures: Vec<&'static str>,
    /// Those of the failures that are a message's own fault.
    pub dead_letters: Vec<&'static str>,
}

impl SinkLabels {
    pub fn from_causes<C: FailureCause>(failures: &[C], dead_letters: &[C]) -> Self {
        let labels = |causes: &[C]| causes.iter().map(|cause| cause.label()).collect();
        Self {
            failures: labels(failures),
            dead_letters: labels(dead_letters),
        }
    }
}

/// Why a message was not taken.
#[derive(Debug)]
pub enum EnqueueError {
    /// The session's own queue is full. Offer the same message again after something was settled.
    Full(Box<Message>),
    /// The message or the session failed.
    Failed(PublishFailure),
}

/// What became of one message.
#[derive(Debug)]
pub struct SettledMessage {
    pub sequence: u64,
    pub result: Result<(), PublishFailure>,
}

/// A sink of any broker.
pub struct BoxedSink(Box<dyn AnySink>);

impl BoxedSink {
    pub fn new(sink: impl Sink) -> Self {
        Self(Box::new(sink))
    }
}

type BoxedFuture<'a> = Pin<Box<dyn Future<Output = Result<(), PublishFailure>> + Send + 'a>>;

/// [`Sink`], so that its type need not be known.
trait AnySink: Send + Sync {
    fn reopen(&mut self) -> BoxedFuture<'_>;
    fn place(&self, address: &str, key: &str) -> MessagePlace;
    fn destination(&self, message: &Message) -> MessageDestination;
    fn enqueue(&mut self, message: Message) -> Result<(), EnqueueError>;
    fn settle<'a>(&'a mut self, settled: &'a mut Vec<SettledMessage>) -> BoxedFuture<'a>;
    fn trouble(&self) -> Option<PublishFailure>;
    fn labels(&self) -> SinkLabels;
}

impl<S: Sink> AnySink for S {
    fn reopen(&mut self) -> BoxedFuture<'_> {
        Box::pin(Sink::reopen(self))
    }

    fn place(&self, address: &str, key: &str) -> MessagePlace {
        Sink::place(self, address, key)
    }

    fn destination(&self, message: &Message) -> MessageDestination {
        Sink::destination(self, message)
    }

    fn enqueue(&mut self, message: Message) -> Result<(), EnqueueError> {
        Sink::enqueue(self, message)
    }

    fn settle<'a>(&'a mut self, settled: &'a mut Vec<SettledMessage>) -> BoxedFuture<'a> {
        Box::pin(Sink::settle(self, settled))
    }

    fn trouble(&self) -> Option<PublishFailure> {
        Sink::trouble(self)
    }

    fn labels(&self) -> SinkLabels {
        Sink::labels(self)
    }
}

impl Sink for BoxedSink {
    async fn reopen(&mut self) -> Result<(), PublishFailure> {
        self.0.reopen().await
    }

    fn place(&self, address: &str, key: &str) -> MessagePlace {
        self.0.place(address, key)
    }

    fn destination(&self, message: &Message) -> MessageDestination {
        self.0.destination(message)
    }

    fn enqueue(&mut self, message: Message) -> Result<(), EnqueueError> {
        self.0.enqueue(message)
    }

    async fn settle(&mut self, settled: &mut Vec<SettledMessage>) -> Result<(), PublishFailure> {
        self.0.settle(settled).await
    }

    fn trouble(&self) -> Option<PublishFailure> {
        self.0.trouble()
    }

    fn labels(&self) -> SinkLabels {
        self.0.labels()
    }
}
