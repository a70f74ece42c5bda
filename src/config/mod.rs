//! Configuration: a file, then the environment, read into one tree of values and checked into [`Config`], which
//! cannot be wrong.
//!
//! [`Config::load`] is the only way in. It reports every problem at once, each with the file or environment variable
//! and the key.

mod exposure;
mod load;
mod near_keys;
mod overlap;
mod problems;
mod routes;
mod sinks;
mod source;
mod table;
mod values;

pub use problems::{ConfigProblem, ConfigProblems};
pub(crate) use values::{broker, management_url};

pub use crate::settings::{
    AdminConfig, AllowList, BacklogFull, BacklogLimit, Config, CreateTopics, EndpointConfig, EventMatch, IpNetwork,
    KafkaConfig, KeepDeadLetters, RabbitMqConfig, RabbitMqTls, RouteConfig, SecretSource, SecretSourceError,
    ServerConfig, SinkConfig, SinkKind, SpoolConfig, TemplatePart, TextSource, TopicTemplate, TracingConfig, UNROUTED,
    UnknownTopic, Unroutable, WhenFull,
};
pub(crate) use crate::settings::{Shown, host_of};

/// The environment of this process, without the variables that are not Unicode.
pub fn process_env() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
