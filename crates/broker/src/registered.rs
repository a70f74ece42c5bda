//! A broker, its settings and its addresses without their types, for whoever does not know which brokers there are.

use std::{any::Any, fmt, panic::RefUnwindSafe, pin::Pin, sync::Arc};

use forebay_event::{Event, Provider};
use forebay_section::ConfigTable;
use prometheus::Registry;

use crate::{
    BoxedSink, Broker, CertificateFile, CheckFinding, EventSource, MessageReading, MessageTail, PublishFailure,
    ReadError, ReadOptions, SinkLimits, SinkSetup, TailOptions, TopicTemplate,
};

type BoxedFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something of a broker's, of a type that only the broker knows.
trait BrokerValue: Any + fmt::Debug + Send + Sync {}

impl<T: Any + fmt::Debug + Send + Sync> BrokerValue for T {}

/// What was read of a sink's section.
#[derive(Clone)]
pub struct SinkSettings {
    broker: &'static dyn RegisteredBroker,
    value: Arc<dyn BrokerValue>,
}

/// Where a route's messages go.
#[derive(Clone)]
pub struct RouteAddress {
    broker: &'static dyn RegisteredBroker,
    value: Arc<dyn BrokerValue>,
}

/// The metrics of all sinks of a broker.
pub struct BrokerMetrics {
    broker: &'static dyn RegisteredBroker,
    value: Arc<dyn Any + Send + Sync>,
}

/// A [`Broker`], whose types need not be known. Every broker is one.
pub trait RegisteredBroker: Erased {
    /// What a sink's `type` says.
    fn name(&self) -> &'static str;

    /// The keys that a sink of it cannot do without, for people.
    fn required_keys(&self) -> &'static str;

    /// The keys of a route that [`Self::read_address`] takes.
    fn route_keys(&self) -> &'static [&'static str];

    /// Reads a sink's section, all but its `type`. `None`: something in it is not right, which the table has noted.
    fn read_settings(&'static self, table: ConfigTable<'_>) -> Option<SinkSettings>;

    /// Takes the keys of a route that say where its messages go.
    fn read_address(&'static self, table: &mut ConfigTable<'_>) -> Option<RouteAddress>;

    /// Where the messages of a route go that is there because none is configured.
    fn usual_address(&'static self, provider: &str, route: &str) -> RouteAddress;

    /// Registers the metrics of all its sinks.
    ///
    /// # Errors
    ///
    /// One of them is registered already.
    fn register_metrics(&'static self, registry: &Registry) -> prometheus::Result<BrokerMetrics>;
}

impl<B: Broker> RegisteredBroker for B {
    fn name(&self) -> &'static str {
        Broker::name(self)
    }

    fn required_keys(&self) -> &'static str {
        Broker::required_keys(self)
    }

    fn route_keys(&self) -> &'static [&'static str] {
        Broker::route_keys(self)
    }

    fn read_settings(&'static self, table: ConfigTable<'_>) -> Option<SinkSettings> {
        Broker::settings(self, table).map(|settings| SinkSettings {
            broker: self,
            value: Arc::new(settings),
        })
    }

    fn read_address(&'static self, table: &mut ConfigTable<'_>) -> Option<RouteAddress> {
        Broker::address(self, table).map(|address| RouteAddress::new(self, address))
    }

    fn usual_address(&'static self, provider: &str, route: &str) -> RouteAddress {
        RouteAddress::new(self, Broker::usual_address(self, provider, route))
    }

    fn register_metrics(&'static self, registry: &Registry) -> prometheus::Result<BrokerMetrics> {
        Ok(BrokerMetrics {
            broker: self,
            value: Arc::new(Broker::metrics(self, registry)?),
        })
    }
}

impl SinkSettings {
    /// The broker's name, as a sink's `type` has it.
    pub fn broker(&self) -> &'static str {
        self.broker.name()
    }

    /// The settings as their broker knows them; `None`: they are another one's.
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        (&*self.value as &dyn Any).downcast_ref()
    }

    /// A sink in a few words.
    pub fn summary(&self) -> String {
        self.broker.erased_summary(&*self.value)
    }

    /// Whether messages for the same address come to the same place by both of these sinks.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.broker.name() == other.broker.name() && self.broker.erased_is_same_place(&*self.value, &*other.value)
    }

    /// The keys of the section that hold a secret as it is.
    pub fn inline_secrets(&self) -> Vec<String> {
        self.broker.erased_inline_secrets(&*self.value)
    }

    /// Whether what the sink is configured to take is as large as what the largest body can become.
    ///
    /// # Errors
    ///
    /// The key that is too small, and what is wrong with it.
    pub fn check_sizes(&self, body_bytes_max: u64) -> Result<(), (String, String)> {
        self.broker.erased_check_sizes(&*self.value, body_bytes_max)
    }

    /// The files of certificates that the section names.
    pub fn certificate_files(&self) -> Vec<CertificateFile> {
        self.broker.erased_certificate_files(&*self.value)
    }

    /// How many file descriptors a route's sink may have open, where a cluster has at least so many nodes.
    pub fn descriptors(&self, nodes_min: u64) -> u64 {
        self.broker.erased_descriptors(&*self.value, nodes_min)
    }

    /// Makes what the sink called `sink` declares at its broker, before anything is published.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub async fn prepare(&self, sink: &str) -> Result<(), PublishFailure> {
        self.broker.erased_prepare(sink, &*self.value).await
    }

    /// Asks the broker for what would keep the sink from publishing. The routes are those of the sink, by name.
    pub async fn check(&self, sink: &str, routes: &[(&str, &RouteAddress)], body_bytes_max: u64) -> Vec<CheckFinding> {
        self.broker
            .erased_check(sink, &*self.value, routes, body_bytes_max)
            .await
    }

    /// Follows what routes publish: of each its address, and the kinds that it publishes, none meaning all.
    ///
    /// # Errors
    ///
    /// Those of [`ReadError`].
    pub fn tail(
        &self,
        followed: &[(&RouteAddress, &[String])],
        options: TailOptions,
    ) -> Result<EventSource<dyn MessageTail>, ReadError> {
        self.broker.erased_tail(&*self.value, followed, options)
    }

    /// Reads what is at an address, to the end that is there when the reading begins.
    ///
    /// # Errors
    ///
    /// Those of [`ReadError`].
    pub fn read(
        &self,
        address: &RouteAddress,
        options: ReadOptions,
    ) -> Result<EventSource<dyn MessageReading>, ReadError> {
        self.broker.erased_read(&*self.value, &*address.value, options)
    }
}

impl PartialEq for SinkSettings {
    fn eq(&self, other: &Self) -> bool {
        self.broker.name() == other.broker.name() && self.broker.erased_same_settings(&*self.value, &*other.value)
    }
}

impl fmt::Debug for SinkSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl RouteAddress {
    pub fn new<B: Broker>(broker: &'static B, address: B::Address) -> Self {
        Self {
            broker,
            value: Arc::new(address),
        }
    }

    /// The address as its broker knows it; `None`: it is another one's.
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        (&*self.value as &dyn Any).downcast_ref()
    }

    /// What the place of a message is made from, where that is more than the event.
    pub fn template(&self) -> Option<&TopicTemplate> {
        self.broker.erased_template(&*self.value)
    }

    /// The same address, but for the topic.
    ///
    /// # Errors
    ///
    /// Why that is no topic, for people.
    pub fn with_topic(&self, topic: &str) -> Result<Self, String> {
        Ok(Self {
            broker: self.broker,
            value: self.broker.erased_with_topic(&*self.value, topic)?,
        })
    }

    /// The address of an event's message, in the broker's own form.
    pub fn address_of(&self, event: &Event, provider: &Provider) -> Arc<str> {
        self.broker.erased_address_of(&*self.value, event, provider)
    }
}

impl PartialEq for RouteAddress {
    fn eq(&self, other: &Self) -> bool {
        self.broker.name() == other.broker.name() && self.broker.erased_same_address(&*self.value, &*other.value)
    }
}

impl fmt::Debug for RouteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl BrokerMetrics {
    /// The broker's name, as a sink's `type` has it.
    pub fn broker(&self) -> &'static str {
        self.broker.name()
    }

    /// The sink of a route, without a session. The settings and the address are of the same broker as these metrics.
    ///
    /// # Errors
    ///
    /// The broker's client takes no such configuration.
    pub fn sink(
        &self,
        (sink, settings): (&str, &SinkSettings),
        (route, address): (&str, &RouteAddress),
        limits: SinkLimits,
    ) -> Result<BoxedSink, PublishFailure> {
        let setup = ErasedSetup {
            sink,
            route,
            settings: &*settings.value,
            address: &*address.value,
            limits,
        };
        self.broker.erased_sink(setup, self.value.clone())
    }
}

use private::{Erased, ErasedSetup};

/// What goes by values of which only their broker knows the types.
mod private {
    use super::*;

    pub struct ErasedSetup<'a> {
        pub sink: &'a str,
        pub route: &'a str,
        pub(super) settings: &'a dyn BrokerValue,
        pub(super) address: &'a dyn BrokerValue,
        pub limits: SinkLimits,
    }

    #[allow(
        private_interfaces,
        reason = "nobody outside this file has a value to call these with"
    )]
    pub trait Erased: Send + Sync + RefUnwindSafe {
        fn erased_same_settings(&self, one: &dyn BrokerValue, other: &dyn BrokerValue) -> bool;
        fn erased_same_address(&self, one: &dyn BrokerValue, other: &dyn BrokerValue) -> bool;
        fn erased_summary(&self, settings: &dyn BrokerValue) -> String;
        fn erased_is_same_place(&self, one: &dyn BrokerValue, other: &dyn BrokerValue) -> bool;
        fn erased_inline_secrets(&self, settings: &dyn BrokerValue) -> Vec<String>;
        fn erased_check_sizes(&self, settings: &dyn BrokerValue, body_bytes_max: u64) -> Result<(), (String, String)>;
        fn erased_certificate_files(&self, settings: &dyn BrokerValue) -> Vec<CertificateFile>;
        fn erased_descriptors(&self, settings: &dyn BrokerValue, nodes_min: u64) -> u64;
        fn erased_template<'a>(&self, address: &'a dyn BrokerValue) -> Option<&'a TopicTemplate>;
        fn erased_with_topic(&self, address: &dyn BrokerValue, topic: &str) -> Result<Arc<dyn BrokerValue>, String>;
        fn erased_address_of(&self, address: &dyn BrokerValue, event: &Event, provider: &Provider) -> Arc<str>;
        fn erased_sink(
            &self,
            setup: ErasedSetup<'_>,
            metrics: Arc<dyn Any + Send + Sync>,
        ) -> Result<BoxedSink, PublishFailure>;
        fn erased_prepare<'a>(
            &'a self,
            sink: &'a str,
            settings: &'a dyn BrokerValue,
        ) -> BoxedFuture<'a, Result<(), PublishFailure>>;
        fn erased_check<'a>(
            &'a self,
            sink: &'a str,
            settings: &'a dyn BrokerValue,
            routes: &'a [(&'a str, &'a RouteAddress)],
            body_bytes_max: u64,
        ) -> BoxedFuture<'a, Vec<CheckFinding>>;
        fn erased_tail(
            &self,
            settings: &dyn BrokerValue,
            followed: &[(&RouteAddress, &[String])],
            options: TailOptions,
        ) -> Result<EventSource<dyn MessageTail>, ReadError>;
        fn erased_read(
            &self,
            settings: &dyn BrokerValue,
            address: &dyn BrokerValue,
            options: ReadOptions,
        ) -> Result<EventSource<dyn MessageReading>, ReadError>;
    }

    /// A value as its broker knows it.
    fn typed<T: 'static>(value: &dyn BrokerValue) -> &T {
        let value: &dyn Any = value;
        value
            .downcast_ref()
            .expect("the settings and addresses of a broker are read by itself")
    }

    #[allow(
        private_interfaces,
        reason = "nobody outside this file has a value to call these with"
    )]
    impl<B: Broker> Erased for B {
        fn erased_same_settings(&self, one: &dyn BrokerValue, other: &dyn BrokerValue) -> bool {
            typed::<B::Settings>(one) == typed::<B::Settings>(other)
        }

        fn erased_same_address(&self, one: &dyn BrokerValue, other: &dyn BrokerValue) -> bool {
            typed::<B::Address>(one) == typed::<B::Address>(other)
        }

        fn erased_summary(&self, settings: &dyn BrokerValue) -> String {
            self.summary(typed(settings))
        }

        fn erased_is_same_place(&self, one: &dyn BrokerValue, other: &dyn BrokerValue) -> bool {
            self.is_same_place(typed(one), typed(other))
        }

        fn erased_inline_secrets(&self, settings: &dyn BrokerValue) -> Vec<String> {
            self.inline_secrets(typed(settings))
        }

        fn erased_check_sizes(&self, settings: &dyn BrokerValue, body_bytes_max: u64) -> Result<(), (String, String)> {
            self.check_sizes(typed(settings), body_bytes_max)
        }

        fn erased_certificate_files(&self, settings: &dyn BrokerValue) -> Vec<CertificateFile> {
            self.certificate_files(typed(settings))
        }

        fn erased_descriptors(&self, settings: &dyn BrokerValue, nodes_min: u64) -> u64 {
            self.descriptors(typed(settings), nodes_min)
        }

        fn erased_template<'a>(&self, address: &'a dyn BrokerValue) -> Option<&'a TopicTemplate> {
            self.template(typed(address))
        }

        fn erased_with_topic(&self, address: &dyn BrokerValue, topic: &str) -> Result<Arc<dyn BrokerValue>, String> {
            Ok(Arc::new(self.with_topic(typed(address), topic)?))
        }

        fn erased_address_of(&self, address: &dyn BrokerValue, event: &Event, provider: &Provider) -> Arc<str> {
            self.address_of(typed(address), event, provider)
        }

        fn erased_sink(
            &self,
            setup: ErasedSetup<'_>,
            metrics: Arc<dyn Any + Send + Sync>,
        ) -> Result<BoxedSink, PublishFailure> {
            let metrics = metrics
                .downcast()
                .expect("the metrics of a broker are registered by itself");
            let setup = SinkSetup::<B> {
                sink: setup.sink,
                route: setup.route,
                settings: typed(setup.settings),
                address: typed(setup.address),
                limits: setup.limits,
            };
            self.sink(setup, metrics).map(BoxedSink::new)
        }

        fn erased_prepare<'a>(
            &'a self,
            sink: &'a str,
            settings: &'a dyn BrokerValue,
        ) -> BoxedFuture<'a, Result<(), PublishFailure>> {
            Box::pin(self.prepare(sink, typed(settings)))
        }

        fn erased_check<'a>(
            &'a self,
            sink: &'a str,
            settings: &'a dyn BrokerValue,
            routes: &'a [(&'a str, &'a RouteAddress)],
            body_bytes_max: u64,
        ) -> BoxedFuture<'a, Vec<CheckFinding>> {
            let routes: Vec<_> = routes
                .iter()
                .map(|(name, address)| (*name, typed(&*address.value)))
                .collect();
            Box::pin(async move { self.check(sink, typed(settings), &routes, body_bytes_max).await })
        }

        fn erased_tail(
            &self,
            settings: &dyn BrokerValue,
            followed: &[(&RouteAddress, &[String])],
            options: TailOptions,
        ) -> Result<EventSource<dyn MessageTail>, ReadError> {
            let followed: Vec<_> = followed
                .iter()
                .map(|(address, kinds)| (typed(&*address.value), *kinds))
                .collect();
            self.tail(typed(settings), &followed, options)
        }

        fn erased_read(
            &self,
            settings: &dyn BrokerValue,
            address: &dyn BrokerValue,
            options: ReadOptions,
        ) -> Result<EventSource<dyn MessageReading>, ReadError> {
            self.read(typed(settings), typed(address), options)
        }
    }
}
