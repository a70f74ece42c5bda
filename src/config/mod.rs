//! Configuration: a file, then the environment, read into one tree of values and checked into [`Config`], which
//! cannot be wrong.
//!
//! [`Config::load`] is the only way in. It reports every problem at once, each with the file or environment variable
//! and the key.

mod exposure;
mod load;
mod near_keys;
mod overlap;
mod routes;
mod sinks;
mod source;
mod values;

pub use forebay_section::{ConfigProblem, ConfigProblems};

pub use crate::settings::{
    AdminConfig, AllowList, BacklogFull, BacklogLimit, Config, EndpointConfig, EventMatch, IpNetwork, KeepDeadLetters,
    RouteConfig, SecretSource, SecretSourceError, ServerConfig, Shown, SinkConfig, SpoolConfig, TextSource,
    TracingConfig, UNROUTED, WhenFull, host_of,
};

/// The environment of this process, without the variables that are not Unicode.
pub fn process_env() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
