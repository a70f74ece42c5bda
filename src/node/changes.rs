//! What a configuration changes of a running process, and what it cannot.

use std::{collections::BTreeMap, fmt, iter};

use crate::config::Config;

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

/// A key of the configuration that is not a route's, a sink's or an endpoint's.
struct Setting {
    key: &'static str,
    /// Its value as text, to be compared.
    shown: fn(&Config) -> String,
    /// Of one that only a restart can change: keeps it as the process was started with it.
    keep: Option<fn(&mut Config, &Config)>,
}

macro_rules! taken_over {
    ($section:ident.$name:ident) => {
        Setting {
            key: concat!(stringify!($section), ".", stringify!($name)),
            shown: |config| format!("{:?}", config.$section.$name),
            keep: None,
        }
    };
}

macro_rules! needs_restart {
    ($section:ident.$name:ident) => {
        Setting {
            keep: Some(|next, started| next.$section.$name.clone_from(&started.$section.$name)),
            ..taken_over!($section.$name)
        }
    };
}

const SETTINGS: &[Setting] = &[
    taken_over!(server.body_bytes_max),
    taken_over!(server.bodies_bytes_max),
    taken_over!(server.body_deadline),
    taken_over!(server.connections_max),
    taken_over!(server.connections_per_client_max),
    taken_over!(server.health_path),
    taken_over!(server.trusted_proxies),
    taken_over!(server.drain_delay),
    taken_over!(spool.abandon_routes),
    taken_over!(spool.retain),
    taken_over!(spool.retain_bytes_max),
    needs_restart!(server.listen),
    needs_restart!(server.keep_alive),
    needs_restart!(server.proxy_protocol),
    needs_restart!(server.streams_max),
    needs_restart!(server.event_ids_max),
    needs_restart!(server.shutdown_deadline),
    needs_restart!(admin.listen),
    needs_restart!(spool.dir),
    needs_restart!(spool.bytes_max),
    needs_restart!(spool.thumbnail_share_max),
    needs_restart!(spool.replica),
    Setting {
        key: "tracing",
        shown: |config| format!("{:?}", config.tracing),
        keep: Some(|next, started| next.tracing.clone_from(&started.tracing)),
    },
];

/// The settings that differ and are taken over.
pub(super) fn settings(before: &Config, after: &Config) -> Vec<&'static str> {
    let taken_over = SETTINGS.iter().filter(|setting| setting.keep.is_none());
    let differing = taken_over.filter(|setting| (setting.shown)(before) != (setting.shown)(after));
    differing.map(|setting| setting.key).collect()
}

/// Keeps what only a restart can change as the process was `started` with it; returns what of it differed.
pub(super) fn keep_what_needs_a_restart(next: &mut Config, started: &Config) -> Vec<&'static str> {
    let mut kept = Vec::new();
    for Setting { key, shown, keep } in SETTINGS {
        if let Some(keep) = keep
            && shown(next) != shown(started)
        {
            keep(next, started);
            kept.push(*key);
        }
    }
    kept
}

/// Endpoints by name.
pub(super) fn endpoints(config: &Config) -> impl Iterator<Item = (&str, &crate::config::EndpointConfig)> {
    iter::zip(
        config.endpoints.iter().map(|endpoint| endpoint.name.as_str()),
        &config.endpoints,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("forebay.toml");
        let text = r#"
            [endpoints.acme]
            path = "/acme"
            secrets = ["base64:c2VjcmV0"]
            [sinks.main]
            type = "kafka"
            brokers = ["localhost"]
        "#;
        std::fs::write(&path, format!("{more}\n{text}")).unwrap();
        Config::load(&path, iter::empty()).unwrap()
    }

    /// The names of a section's fields, as it shows itself.
    fn fields(section: &impl fmt::Debug) -> Vec<String> {
        let text = format!("{section:#?}");
        let names = text
            .lines()
            .filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
        let names = names.filter(|(name, _)| !name.starts_with(' '));
        names.map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn every_setting_is_taken_over_or_needs_a_restart() {
        let config = config("");
        let server = fields(&config.server).into_iter().map(|name| format!("server.{name}"));
        let admin = fields(&config.admin).into_iter().map(|name| format!("admin.{name}"));
        let spool = fields(&config.spool).into_iter().map(|name| format!("spool.{name}"));
        let mut expected: Vec<String> = server.chain(admin).chain(spool).chain(["tracing".to_owned()]).collect();
        let mut found: Vec<String> = SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_needs_a_restart_stays_and_is_named() {
        let started = config("");
        let mut next = config(
            "server.listen = \"127.0.0.1:1\"\nserver.body_bytes_max = 5000\n\
             spool.replica = \"other\"\ntracing.endpoint = \"http://localhost:4318\"",
        );
        assert_eq!(settings(&started, &next), ["server.body_bytes_max"]);
        let kept = keep_what_needs_a_restart(&mut next, &started);
        assert_eq!(kept, ["server.listen", "spool.replica", "tracing"]);
        assert_eq!(keep_what_needs_a_restart(&mut next, &started), [""; 0]);
        assert_eq!(settings(&started, &next), ["server.body_bytes_max"], "that is applied");
    }
}
