//! The contract between Forebay and a broker.
//!
//! A broker is a crate, or a module, of its own and implements [`Broker`]: its section of the configuration, where a
//! route's messages go, its metrics, its check, its reader, and a [`Sink`] for each route. Forebay meets it as a
//! [`RegisteredBroker`], which every [`Broker`] is, and names none but where they are registered.
//!
//! A [`Sink`] is one route's publishing session. Exactly one task drives it. It promises: the messages of a key are
//! handed to the broker in the order of [`Sink::enqueue`]; a message is settled with `Ok` only by the broker's own
//! confirmation; and after the first failure of a session nothing that was enqueued later is retried behind its back.
//! The order after a failure is the job's: it ends the session, opens a new one and replays what is not settled.

mod certificates;
mod check;
mod failure;
mod message;
pub mod partition;
mod read;
mod registered;
mod sink;
mod template;

use std::{fmt, panic::RefUnwindSafe, sync::Arc};

use forebay_event::{Event, Provider};
use forebay_section::ConfigTable;
use prometheus::Registry;

pub use certificates::{CertificateFile, CertificateUse};
pub use check::{CheckFinding, FindingLevel};
pub use failure::{Failure, FailureCause, PublishFailure, Remedy};
pub use message::{Message, MessageDestination, MessagePlace, PublishedAgain, SEQUENCE, message_bytes_max, number_of};
pub use read::{
    EventSource, MessageReading, MessageTail, ReadError, ReadMessage, ReadOptions, ReadPlace, TailOptions, header,
};
pub use registered::{BrokerMetrics, RegisteredBroker, RouteAddress, SinkSettings};
pub use sink::{BoxedSink, EnqueueError, SettledMessage, Sink, SinkLabels};
pub use template::{TemplatePart, TopicTemplate};

/// A broker to which events can be published.
pub trait Broker: Send + Sync + RefUnwindSafe + 'static {
    /// What is read of a sink's section.
    type Settings: fmt::Debug + PartialEq + Send + Sync + 'static;
    /// Where the messages of a route go.
    type Address: fmt::Debug + PartialEq + Send + Sync + 'static;
    /// The metrics of all its sinks.
    type Metrics: Send + Sync + 'static;
    type Sink: Sink;

    /// What a sink's `type` says: `kafka`.
    fn name(&self) -> &'static str;

    /// The keys that a sink of it cannot do without, for people: `brokers (Kafka)`.
    fn required_keys(&self) -> &'static str;

    /// Reads a sink's section, all but its `type`. `None`: something in it is not right, which the table has noted.
    fn settings(&self, table: ConfigTable<'_>) -> Option<Self::Settings>;

    /// The keys of a route that [`Self::address`] takes.
    fn route_keys(&self) -> &'static [&'static str];

    /// Takes the keys of a route that say where its messages go.
    fn address(&self, table: &mut ConfigTable<'_>) -> Option<Self::Address>;

    /// Where the messages of a route go that is there because none is configured: one for the `events` of a provider,
    /// and one for its `thumbnails`.
    fn usual_address(&self, provider: &str, route: &str) -> Self::Address;

    /// What the place of a message is made from, where that is more than the event: two routes whose templates never
    /// come to the same are not in each other's way. `None`: events say all.
    fn template<'a>(&self, _: &'a Self::Address) -> Option<&'a TopicTemplate> {
        None
    }

    /// The address of an event's message, in the broker's own form.
    fn address_of(&self, address: &Self::Address, event: &Event, provider: &Provider) -> Arc<str>;

    /// The same address, but for the topic, for publishing somewhere else.
    ///
    /// # Errors
    ///
    /// Why that is no topic, for people.
    fn with_topic(&self, _: &Self::Address, _topic: &str) -> Result<Self::Address, String> {
        Err(format!("{} has no topics", self.name()))
    }

    /// A sink in a few words: `Kafka at kafka-1:9092`.
    fn summary(&self, settings: &Self::Settings) -> String;

    /// Whether messages for the same address come to the same place by both of these sinks.
    fn is_same_place(&self, one: &Self::Settings, other: &Self::Settings) -> bool;

    /// The keys of the section that hold a secret as it is.
    fn inline_secrets(&self, _: &Self::Settings) -> Vec<String> {
        Vec::new()
    }

    /// Whether what a sink is configured to take is as large as what the largest body can become.
    ///
    /// # Errors
    ///
    /// The key that is too small, and what is wrong with it.
    fn check_sizes(&self, _settings: &Self::Settings, _body_bytes_max: u64) -> Result<(), (String, String)> {
        Ok(())
    }

    /// The files of certificates that the section names.
    fn certificate_files(&self, _: &Self::Settings) -> Vec<CertificateFile> {
        Vec::new()
    }

    /// How many file descriptors a route's sink may have open, where a cluster has at least so many nodes.
    fn descriptors(&self, settings: &Self::Settings, nodes_min: u64) -> u64;

    /// Registers the metrics of all its sinks.
    ///
    /// # Errors
    ///
    /// One of them is registered already.
    fn metrics(&self, registry: &Registry) -> prometheus::Result<Self::Metrics>;

    /// A route's sink, without a session: [`Sink::reopen`] opens it.
    ///
    /// # Errors
    ///
    /// The broker's client takes no such configuration.
    fn sink(&self, setup: SinkSetup<'_, Self>, metrics: Arc<Self::Metrics>) -> Result<Self::Sink, PublishFailure>;

    /// Makes what a sink declares at its broker, before anything is published.
    fn prepare(&self, _sink: &str, _: &Self::Settings) -> impl Future<Output = Result<(), PublishFailure>> + Send {
        std::future::ready(Ok(()))
    }

    /// Asks the broker for what would keep a sink from publishing; publishes nothing. The routes are those of the sink,
    /// by name.
    fn check(
        &self,
        sink: &str,
        settings: &Self::Settings,
        routes: &[(&str, &Self::Address)],
        body_bytes_max: u64,
    ) -> impl Future<Output = Vec<CheckFinding>> + Send;

    /// Follows what is published, as a bystander.
    ///
    /// # Errors
    ///
    /// Those of [`ReadError`].
    fn tail(
        &self,
        settings: &Self::Settings,
        followed: &[(&Self::Address, &[String])],
        options: TailOptions,
    ) -> Result<EventSource<dyn MessageTail>, ReadError>;

    /// Reads what was published to the end that is there when the reading begins, and leaves it as it was.
    ///
    /// # Errors
    ///
    /// Those of [`ReadError`].
    fn read(
        &self,
        settings: &Self::Settings,
        address: &Self::Address,
        options: ReadOptions,
    ) -> Result<EventSource<dyn MessageReading>, ReadError>;
}

/// What a route's sink is made of.
pub struct SinkSetup<'a, B: Broker + ?Sized> {
    pub sink: &'a str,
    pub route: &'a str,
    pub settings: &'a B::Settings,
    pub address: &'a B::Address,
    pub limits: SinkLimits,
}

/// What a route asks of its sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkLimits {
    /// The largest body that is accepted.
    pub body_bytes_max: u64,
    /// How many messages are on their way at most.
    pub in_flight_records_max: usize,
}
