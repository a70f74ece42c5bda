//! A password in whatever key, by file or environment: no mistake and no warning has it in it.

use super::{LEAST, load};
use crate::support::secrets::MISPLACED;

/// Every key that takes a value, but those whose values are names: of a variable, a file, a route.
const KEYS: &[&str] = &[
    "server.listen",
    "server.body_bytes_max",
    "server.bodies_bytes_max",
    "server.body_deadline",
    "server.connections_max",
    "server.streams_max",
    "server.drain_delay",
    "server.shutdown_deadline",
    "server.trusted_proxies",
    "admin.listen",
    "spool.bytes_max",
    "spool.thumbnail_share_max",
    "spool.retain",
    "spool.retain_bytes_max",
    "spool.replica",
    "tracing.endpoint",
    "tracing.sample_ratio",
    "endpoints.acme.path",
    "endpoints.acme.provider",
    "endpoints.acme.account",
    "endpoints.acme.accounts",
    "endpoints.acme.replay_window",
    "endpoints.acme.secrets",
    "endpoints.acme.secrets_grace",
    "sinks.main.type",
    "sinks.main.brokers",
    "sinks.main.create_topics",
    "sinks.main.create_topics.partitions",
    "sinks.main.properties.security.protocol",
    "sinks.main.properties.sasl.mechanisms",
    "sinks.main.properties.sasl.oauthbearer.token.endpoint.url",
    "sinks.main.properties.debug",
    "sinks.main.properties.linger.ms",
    "sinks.main.properties.acks",
    "sinks.rabbit.uri",
    "sinks.rabbit.username",
    "sinks.rabbit.password",
    "sinks.rabbit.exchange",
    "sinks.rabbit.partitions",
    "sinks.rabbit.declare",
    "sinks.rabbit.unroutable",
    "sinks.rabbit.management",
    "routes.events.sink",
    "routes.events.match.kinds",
    "routes.events.match.endpoints",
    "routes.events.topic",
    "routes.events.unknown_topic",
    "routes.events.topic_fallback",
    "routes.events.mode",
    "routes.events.payload",
    "routes.events.start",
    "routes.events.in_flight_records_max",
    "routes.events.in_flight_bytes_max",
    "routes.events.reorder_window",
];

/// A value with the password in it, in each form that it may come in.
fn values() -> Vec<String> {
    [
        "user:PASSWORD@host",
        "user:PASSWORD@host:1",
        "amqp://user:PASSWORD@host:port/a/b",
        "SASL_SSL://user:PASSWORD@host",
        "http://user:PASSWORD@host",
        "http://host/?token=PASSWORD",
        "http://host/#PASSWORD",
        "key=PASSWORD",
        "Basic PASSWORD",
    ]
    .map(|value| value.replace("PASSWORD", MISPLACED))
    .into()
}

#[test]
fn a_password_in_a_wrong_key_is_in_no_mistake_and_no_warning() {
    let rabbit = "[sinks.rabbit]\ntype = \"rabbitmq\"\nuri = \"amqp://h\"\n[routes.events]\nsink = \"main\"\ntopic = \"t\"\n\
                  [routes.rabbit]\nsink = \"rabbit\"\n";
    let whole = format!("{LEAST}{rabbit}");
    let mut mistakes = 0;
    for key in KEYS {
        let variable = format!("FOREBAY__{}", key.to_uppercase().replace('.', "__"));
        for value in values() {
            for text in [value.clone(), format!("[{value:?}]"), format!("[{value:?}")] {
                let told = match load(&whole, &[(&variable, &text)]) {
                    Ok(config) => config.warnings.join("\n"),
                    Err(problems) => {
                        mistakes += 1;
                        problems.to_string()
                    }
                };
                assert!(!told.contains(MISPLACED), "{key} = {text}: {told}");
            }
        }
    }
    assert!(mistakes > KEYS.len() * 10, "{mistakes} mistakes of {} keys", KEYS.len());
}
