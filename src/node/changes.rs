//! What a configuration changes of a running process, and what it cannot.

use std::{collections::BTreeMap, fmt, iter};

use crate::config::{Config, TracingConfig};

/// What was changed, by name.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ConfigChanges {
    pub routes: NamedChanges,
    pub endpoints: NamedChanges,
    /// Keys of the configuration that have another value.
    pub settings: Vec<&'static str>,
    /// Keys that have another value in the configuration than in the process, which only a restart can change.
    pub needs_restart: Vec<&'static str>,
}

/// What became of things that have a name.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NamedChanges {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
}

impl NamedChanges {
    /// Holds what is against what was.
    pub(super) fn between<'a, T: PartialEq + 'a>(
        before: impl IntoIterator<Item = (&'a str, &'a T)>,
        after: impl IntoIterator<Item = (&'a str, &'a T)>,
    ) -> Self {
        let mut before: BTreeMap<&str, &T> = before.into_iter().collect();
        let mut changes = Self::default();
        for (name, value) in after {
            match before.remove(name) {
                None => changes.added.push(name.to_owned()),
                Some(other) if other != value => changes.changed.push(name.to_owned()),
                Some(_) => {}
            }
        }
        changes.removed = before.into_keys().map(str::to_owned).collect();
        changes
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl fmt::Display for NamedChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signed = |sign: char, names: &[String]| -> Vec<String> {
            names.iter().map(|name| format!("{sign}{name}")).collect()
        };
        let all = [
            signed('+', &self.added),
            signed('~', &self.changed),
            signed('-', &self.removed),
        ];
        f.write_str(&all.concat().join(" "))
    }
}

impl ConfigChanges {
    /// Whether the process runs as it did.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.endpoints.is_empty() && self.settings.is_empty()
    }
}

/// `routes: +new ~other -old; endpoints: +acme; settings: server.body_bytes_max`.
impl fmt::Display for ConfigChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        let named = |what: &str, changes: &NamedChanges| (!changes.is_empty()).then(|| format!("{what}: {changes}"));
        let settings = (!self.settings.is_empty()).then(|| format!("settings: {}", self.settings.join(" ")));
        let parts = [
            named("routes", &self.routes),
            named("endpoints", &self.endpoints),
            settings,
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

/// A key of the configuration, and its value as text, to be compared.
type ComparedSetting = (&'static str, fn(&Config) -> String);

/// The settings that are not a route's, a sink's or an endpoint's, which a running process takes over.
const SETTINGS: &[ComparedSetting] = &[
    ("server.body_bytes_max", |config| shown(&config.server.body_bytes_max)),
    ("server.bodies_bytes_max", |config| {
        shown(&config.server.bodies_bytes_max)
    }),
    ("server.body_deadline", |config| shown(&config.server.body_deadline)),
    ("server.connections_max", |config| shown(&config.server.connections_max)),
    ("server.connections_per_client_max", |config| {
        shown(&config.server.connections_per_client_max)
    }),
    ("server.health_path", |config| shown(&config.server.health_path)),
    ("server.trusted_proxies", |config| shown(&config.server.trusted_proxies)),
    ("server.drain_delay", |config| shown(&config.server.drain_delay)),
];

/// Those that it does not.
const NEEDS_RESTART: &[ComparedSetting] = &[
    ("server.listen", |config| shown(&config.server.listen)),
    ("server.keep_alive", |config| shown(&config.server.keep_alive)),
    ("server.proxy_protocol", |config| shown(&config.server.proxy_protocol)),
    ("server.streams_max", |config| shown(&config.server.streams_max)),
    ("server.event_ids_max", |config| shown(&config.server.event_ids_max)),
    ("server.shutdown_deadline", |config| {
        shown(&config.server.shutdown_deadline)
    }),
    ("admin.listen", |config| shown(&config.admin.listen)),
    ("spool.dir", |config| shown(&config.spool.dir)),
    ("spool.bytes_max", |config| shown(&config.spool.bytes_max)),
    ("spool.thumbnail_share_max", |config| {
        shown(&config.spool.thumbnail_share_max)
    }),
    ("spool.replica", |config| shown(&config.spool.replica)),
    ("tracing.endpoint", |config| {
        shown(&tracing(config).map(|tracing| &tracing.endpoint))
    }),
    ("tracing.sample_ratio", |config| {
        shown(&tracing(config).map(|tracing| tracing.sample_ratio))
    }),
];

fn shown(value: &impl fmt::Debug) -> String {
    format!("{value:?}")
}

fn tracing(config: &Config) -> Option<&TracingConfig> {
    config.tracing.as_ref()
}

/// The settings that differ and are taken over.
pub(super) fn settings(before: &Config, after: &Config) -> Vec<&'static str> {
    differing(SETTINGS, before, after)
}

/// The settings that differ and need a restart. `started`: what the process was started with.
pub(super) fn needing_restart(started: &Config, after: &Config) -> Vec<&'static str> {
    differing(NEEDS_RESTART, started, after)
}

fn differing(keys: &[ComparedSetting], before: &Config, after: &Config) -> Vec<&'static str> {
    let differs = |(_, value): &&ComparedSetting| value(before) != value(after);
    keys.iter().filter(differs).map(|(key, _)| *key).collect()
}

/// Endpoints by name.
pub(super) fn endpoints(config: &Config) -> impl Iterator<Item = (&str, &crate::config::EndpointConfig)> {
    iter::zip(
        config.endpoints.iter().map(|endpoint| endpoint.name.as_str()),
        &config.endpoints,
    )
}
