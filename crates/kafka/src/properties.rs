//! librdkafka's properties: what Forebay sets, what it refuses, and what passes through.

use std::{collections::BTreeMap, path::Path};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel, error::KafkaError};

use super::oauth;
use crate::settings::{self, TextSource};
use forebay_broker::{CertificateFile, CertificateUse};

/// librdkafka's own limit on `message.max.bytes`.
const MESSAGE_BYTES_LIMIT: u64 = 1_000_000_000;

/// The largest message that a body of `body_bytes_max` can become, within what librdkafka takes.
pub fn message_bytes_max(body_bytes_max: u64) -> u64 {
    forebay_broker::message_bytes_max(body_bytes_max).min(MESSAGE_BYTES_LIMIT)
}

/// What users may change.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "forebay"),
    // Larger batches cost broker and client much less, and nobody waits for one: the sender has its answer already.
    ("linger.ms", "50"),
    ("statistics.interval.ms", "10000"),
    // A topic that is not there is named within seconds, not after half a minute.
    ("topic.metadata.propagation.max.ms", "5000"),
    ("reconnect.backoff.max.ms", "5000"),
];

/// What the promises rest on.
const FIXED: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("enable.gapless.guarantee", "true"),
    ("acks", "all"),
    ("message.timeout.ms", "0"),
    ("allow.auto.create.topics", "false"),
];

/// A property that users may not set freely.
struct PropertyRule {
    /// Its name and its aliases.
    names: &'static [&'static str],
    allowed: fn(&str) -> bool,
    reason: &'static str,
}

const NEVER: fn(&str) -> bool = |_| false;

const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];

const RULES: &[PropertyRule] = &[
    PropertyRule {
        names: &["bootstrap.servers", "metadata.broker.list"],
        allowed: NEVER,
        reason: "is the sink's own key `brokers`",
    },
    PropertyRule {
        names: &["enable.idempotence"],
        allowed: |v| is_true(v),
        reason: "without idempotence a retry can write twice and out of order; it is always true",
    },
    PropertyRule {
        names: &["acks", "request.required.acks"],
        allowed: |v| v == "all" || v == "-1",
        reason: "a confirmation by fewer than all in-sync replicas can be lost with one broker; it is always all",
    },
    PropertyRule {
        names: &["max.in.flight.requests.per.connection", "max.in.flight"],
        allowed: |v| v.parse().is_ok_and(|n: u32| (1..=5).contains(&n)),
        reason: "a broker keeps the order of at most 5 requests in flight; set 1 to 5",
    },
    PropertyRule {
        names: &["retries", "message.send.max.retries"],
        allowed: |v| v.parse().is_ok_and(|n: u32| n > 0),
        reason: "without retries every hiccup of a broker ends the session; set 1 or more",
    },
    PropertyRule {
        names: &["message.timeout.ms", "delivery.timeout.ms"],
        allowed: |v| v == "0",
        reason: "a message that times out may have been written and leaves a gap in the order; it is always 0, for ever",
    },
    PropertyRule {
        names: &["delivery.report.only.error"],
        allowed: |v| is_false(v),
        reason: "success would never be reported, and nothing would leave the spool",
    },
    PropertyRule {
        names: &["transactional.id"],
        allowed: NEVER,
        reason: "a transaction left open hides messages that were confirmed",
    },
    PropertyRule {
        names: &["enable.gapless.guarantee"],
        allowed: |v| is_true(v),
        reason: "without it librdkafka sends what comes after a message that failed; it is always true",
    },
    PropertyRule {
        names: &["queuing.strategy"],
        allowed: |v| v == "fifo",
        reason: "any other strategy sends out of order; it is always fifo",
    },
    PropertyRule {
        names: &["partitioner"],
        allowed: |v| v == "murmur2_random" || v == "murmur2",
        reason: "a key's partition is murmur2, as the Java clients and the other sinks choose it",
    },
    PropertyRule {
        names: &["allow.auto.create.topics"],
        allowed: |v| is_false(v),
        reason: "a mistyped topic would come to life with the broker's defaults; set create_topics on the sink",
    },
    PropertyRule {
        names: &["message.max.bytes"],
        allowed: NEVER,
        reason: "follows from server.body_bytes_max, so that whatever was accepted fits",
    },
    PropertyRule {
        names: &["statistics.interval.ms"],
        allowed: |v| v.parse().is_ok_and(|n: u32| n > 0),
        reason: "the metrics, and the end of an outage, are read from the statistics; set 1 or more",
    },
    PropertyRule {
        names: &["test.mock.num.brokers", "test.mock.broker.rtt"],
        allowed: NEVER,
        reason: "would replace the brokers by a mock that keeps nothing",
    },
    PropertyRule {
        names: &["sasl.mechanisms", "sasl.mechanism"],
        allowed: |v| MECHANISMS.contains(&v.to_ascii_uppercase().as_str()),
        reason: "only PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER are built in",
    },
    PropertyRule {
        names: &["enable.sasl.oauthbearer.unsecure.jwt", "sasl.oauthbearer.config"],
        allowed: NEVER,
        reason: "makes tokens that nobody signed; set sasl.oauthbearer.token.endpoint.url",
    },
    PropertyRule {
        names: &["log.queue", "enabled_events"],
        allowed: NEVER,
        reason: "is how Forebay hears of librdkafka's events",
    },
];

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "t" | "1")
}

fn is_false(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "false" | "f" | "0")
}

/// The properties that cannot be used, each with the reason. Without any network.
pub fn check_properties(properties: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let each = properties
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), problem(key, value)?)));
    each.chain(oauth::missing(properties)).collect()
}

/// The property that has no room for what a body of `body_bytes_max` can become, with the reason.
pub fn check_sizes(properties: &BTreeMap<String, String>, body_bytes_max: u64) -> Result<(), (&'static str, String)> {
    const BUFFER: &str = "queue.buffering.max.kbytes";
    let needed = message_bytes_max(body_bytes_max).div_ceil(1024);
    let given = properties.get(BUFFER).and_then(|kbytes| kbytes.parse::<u64>().ok());
    match given {
        Some(kbytes) if kbytes < needed => Err((
            BUFFER,
            format!(
                "below one message: a body of server.body_bytes_max can become {needed} kB, which would never be sent"
            ),
        )),
        _ => Ok(()),
    }
}

fn problem(key: &str, value: &str) -> Option<String> {
    let name = key.trim().to_ascii_lowercase();
    if let Some(rule) = RULES.iter().find(|rule| rule.names.contains(&name.as_str()))
        && !(rule.allowed)(value.trim())
    {
        return Some(rule.reason.to_string());
    }
    if oauth::is_own(&name) {
        return match name == key {
            true => oauth::problem(key, value),
            false => Some(format!("is written '{name}'")),
        };
    }
    let error = ClientConfig::new().set(key, value).create_native_config().err()?;
    let known = |name: &str| {
        ClientConfig::new()
            .create_native_config()
            .is_ok_and(|c| c.get(name).is_ok())
    };
    Some(match error {
        KafkaError::ClientConfig(..) if name != key && known(&name) => {
            format!("is written '{name}'")
        }
        KafkaError::ClientConfig(rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..) => {
            "is not a property of librdkafka".to_string()
        }
        KafkaError::ClientConfig(_, reason, ..) => without_value(&reason),
        other => other.to_string(),
    })
}

/// What librdkafka says of a value, without the value, which may be a password in the wrong place.
fn without_value(reason: &str) -> String {
    let quoted = reason.split_once("Invalid value \"").and_then(|(before, rest)| {
        let (_, after) = rest.rsplit_once("\" for configuration property")?;
        Some(format!("{before}Invalid value for configuration property{after}"))
    });
    quoted.unwrap_or_else(|| reason.to_owned())
}

/// What a producer of `config`, whose properties [`check_properties`] lets pass, is created with.
pub(super) fn client_config(
    config: &settings::KafkaConfig,
    message_bytes_max: u64,
    queue_records: usize,
) -> ClientConfig {
    let mut client = ClientConfig::new();
    // `debug` asks librdkafka for lines that another level would drop.
    client.set_log_level(match config.properties.contains_key("debug") {
        true => RDKafkaLogLevel::Debug,
        false => RDKafkaLogLevel::Info,
    });
    for (key, value) in DEFAULTS {
        client.set(*key, *value);
    }
    if !config.properties.keys().any(|key| key.starts_with("ssl.ca.")) {
        client.set("ssl.ca.location", "probe");
    }
    client.set("queue.buffering.max.messages", queue_records.max(100_000).to_string());
    let given = config.properties.iter().filter(|(key, _)| !oauth::is_own(key));
    client.extend(given.map(|(key, value)| (key.clone(), value.clone())));
    for (key, value) in FIXED {
        client.set(*key, *value);
    }
    client.set("message.max.bytes", message_bytes_max.to_string());
    client.set("bootstrap.servers", config.brokers.join(","));
    client
}

/// Properties whose values may be sources, `env:NAME` and `file:/path`, beside the text itself.
pub const SECRETS: [&str; 6] = [
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.client.secret",
    "sasl.password",
    "sasl.username",
    "ssl.key.password",
    "ssl.keystore.password",
];

/// `client` with what its secrets' sources hold now. Reads files, so not for an async task. `Err` names the property.
pub(super) fn with_secrets(client: &ClientConfig) -> Result<ClientConfig, String> {
    let mut client = client.clone();
    for property in SECRETS {
        let Some(source) = client.get(property).map(TextSource::parse) else {
            continue;
        };
        if matches!(source, TextSource::Inline(_)) {
            continue;
        }
        let text = source.read().map_err(|error| format!("property {property}: {error}"))?;
        client.set(property, text);
    }
    Ok(client)
}

/// What the producer of messages that may be refused is created with: each is a batch, and the refusal of one ends
/// nothing.
pub(super) fn alone(client: &ClientConfig) -> ClientConfig {
    let mut client = client.clone();
    for (key, value) in [
        ("enable.gapless.guarantee", "false"),
        ("linger.ms", "0"),
        ("batch.num.messages", "1"),
        // Its state would be taken for that of the other producer.
        ("statistics.interval.ms", "0"),
    ] {
        client.set(key, value);
    }
    client
}

/// The files of certificates that the properties name: not a directory, nor what librdkafka looks for itself.
pub(crate) fn certificate_files(config: &settings::KafkaConfig) -> Vec<CertificateFile> {
    let property = |name: &str| config.properties.get(name).cloned();
    let password = property("ssl.keystore.password").unwrap_or_default();
    let named = [
        ("ssl.certificate.location", CertificateUse::Own),
        ("ssl.keystore.location", CertificateUse::OwnWithKey { password }),
        ("ssl.ca.location", CertificateUse::Authorities),
        (oauth::CA, CertificateUse::Authorities),
    ];
    let files = named
        .into_iter()
        .filter_map(|(name, holds)| Some((property(name)?, holds)));
    files
        .filter(|(path, _)| path != "probe" && !Path::new(path).is_dir())
        .map(|(path, holds)| CertificateFile::new(path, holds))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, value: &str) -> Option<String> {
        let properties = BTreeMap::from([(key.to_string(), value.to_string())]);
        check_properties(&properties).into_iter().next().map(|(found, reason)| {
            assert_eq!(found, key);
            reason
        })
    }

    #[test]
    fn a_property_that_breaks_a_promise_is_refused_under_each_of_its_names() {
        for (key, value) in [
            ("acks", "1"),
            ("acks", "0"),
            ("request.required.acks", "1"),
            ("Request.Required.Acks", "1"),
            (" acks ", "1"),
            ("enable.idempotence", "false"),
            ("enable.gapless.guarantee", "false"),
            ("max.in.flight", "6"),
            ("max.in.flight.requests.per.connection", "6"),
            ("retries", "0"),
            ("message.send.max.retries", "0"),
            ("message.timeout.ms", "300000"),
            ("delivery.timeout.ms", "1"),
            ("delivery.report.only.error", "true"),
            ("transactional.id", "a"),
            ("queuing.strategy", "lifo"),
            ("partitioner", "consistent_random"),
            ("allow.auto.create.topics", "true"),
            ("bootstrap.servers", "a:1"),
            ("metadata.broker.list", "a:1"),
            ("message.max.bytes", "1000"),
            ("statistics.interval.ms", "0"),
            ("test.mock.num.brokers", "3"),
            ("sasl.mechanisms", "GSSAPI"),
            ("sasl.mechanism", "gssapi"),
            ("sasl.mechanisms", "OAUTHBEARER"),
            ("sasl.oauthbearer.config", "principal=a"),
            ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
            ("sasl.oauthbearer.assertion.file", "a.jwt"),
            ("SASL.oauthbearer.method", "oidc"),
        ] {
            assert!(check(key, value).is_some(), "{key}={value}");
        }
    }

    #[test]
    fn a_property_that_keeps_the_promises_passes() {
        for (key, value) in [
            ("acks", "all"),
            ("request.required.acks", "-1"),
            ("enable.idempotence", "true"),
            ("max.in.flight", "1"),
            ("retries", "10"),
            ("message.timeout.ms", "0"),
            ("partitioner", "murmur2_random"),
            ("compression.type", "zstd"),
            ("linger.ms", "50"),
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanisms", "SCRAM-SHA-512"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "a"),
            ("ssl.ca.location", "/nowhere/ca.pem"),
            ("client.id", "other"),
            ("statistics.interval.ms", "1000"),
        ] {
            assert_eq!(check(key, value), None, "{key}={value}");
        }
    }

    #[test]
    fn a_secret_is_read_from_its_source_for_each_client() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = format!("file:{}", file.path().display());
        let mut client = ClientConfig::new();
        client.set("sasl.password", &source).set("client.id", &source);
        for password in ["first", "second"] {
            std::fs::write(file.path(), format!("{password}\n")).unwrap();
            let read = with_secrets(&client).unwrap();
            assert_eq!(
                (read.get("sasl.password"), read.get("client.id")),
                (Some(password), Some(source.as_str()))
            );
        }
        drop(file);
        let error = with_secrets(&client).unwrap_err();
        assert!(error.starts_with("property sasl.password: file:"), "{error}");
    }

    #[test]
    fn a_buffer_that_holds_less_than_one_message_is_refused() {
        let check = |kbytes: &str| {
            let properties = BTreeMap::from([("queue.buffering.max.kbytes".to_string(), kbytes.to_string())]);
            check_sizes(&properties, 3 << 20)
        };
        assert_eq!(check("4160"), Ok(()), "4 MiB in base64, and 64 KiB beside it");
        assert_eq!(check("4159").unwrap_err().0, "queue.buffering.max.kbytes");
        assert_eq!(check_sizes(&BTreeMap::new(), 1 << 30), Ok(()));
    }

    #[test]
    fn librdkafka_never_sees_where_tokens_come_from() {
        let config = settings::KafkaConfig {
            brokers: vec!["a:1".into()],
            properties: [
                ("security.protocol", "sasl_ssl"),
                ("sasl.mechanisms", "OAUTHBEARER"),
                ("sasl.oauthbearer.method", "oidc"),
                ("sasl.oauthbearer.token.endpoint.url", "https://id.example.com/token"),
                ("sasl.oauthbearer.client.id", "forebay"),
                ("sasl.oauthbearer.client.secret", "s3cret"),
                ("https.ca.location", "/etc/forebay/id-ca.pem"),
            ]
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .into(),
            create_topics: None,
        };
        assert_eq!(check_properties(&config.properties), []);
        let client = client_config(&config, 1_000_000, 1);
        assert_eq!(client.get("sasl.mechanisms"), Some("OAUTHBEARER"));
        assert!(!format!("{:?}", client.config_map()).contains("s3cret"));
        assert!(client.create_native_config().is_ok());
    }

    #[test]
    fn what_librdkafka_does_not_know_is_named() {
        assert_eq!(
            check("compresion.type", "zstd").unwrap(),
            "is not a property of librdkafka"
        );
        assert_eq!(
            check("Compression.Type", "zstd").unwrap(),
            "is written 'compression.type'"
        );
        // The value may be a password in the wrong place.
        assert_eq!(
            check("compression.type", "brotli").unwrap(),
            r#"Invalid value for configuration property "compression.codec""#
        );
        assert!(check("linger.ms", "soon").is_some());
    }

    #[test]
    fn what_the_promises_rest_on_is_what_librdkafka_gets() {
        let config = settings::KafkaConfig {
            brokers: vec!["a:1".into(), "b:2".into()],
            properties: BTreeMap::from([("request.required.acks".to_string(), "-1".to_string())]),
            create_topics: None,
        };
        let native = client_config(&config, 1_234_567, 1).create_native_config().unwrap();
        for (key, value) in [
            ("bootstrap.servers", "a:1,b:2"),
            ("acks", "-1"),
            ("enable.idempotence", "true"),
            ("enable.gapless.guarantee", "true"),
            ("message.timeout.ms", "0"),
            ("allow.auto.create.topics", "false"),
            ("statistics.interval.ms", "10000"),
            ("ssl.ca.location", "probe"),
            ("message.max.bytes", "1234567"),
            ("queue.buffering.max.messages", "100000"),
        ] {
            assert_eq!(native.get(key).unwrap(), value, "{key}");
        }
    }

    #[test]
    fn the_files_that_hold_certificates_are_found() {
        let files = |properties: &[(&str, &str)]| {
            certificate_files(&settings::KafkaConfig {
                brokers: Vec::new(),
                properties: properties
                    .iter()
                    .map(|(key, value)| (key.to_string(), value.to_string()))
                    .collect(),
                create_topics: None,
            })
        };
        let password = "s3cret".to_owned();
        assert_eq!(
            files(&[
                ("https.ca.location", "/id-ca.pem"),
                ("ssl.ca.location", "/ca.pem"),
                ("ssl.certificate.location", "/client.pem"),
                ("ssl.key.location", "/client.key"),
                ("ssl.keystore.location", "/client.p12"),
                ("ssl.keystore.password", "s3cret"),
            ]),
            [
                CertificateFile::new("/client.pem", CertificateUse::Own),
                CertificateFile::new("/client.p12", CertificateUse::OwnWithKey { password }),
                CertificateFile::new("/ca.pem", CertificateUse::Authorities),
                CertificateFile::new("/id-ca.pem", CertificateUse::Authorities),
            ]
        );
        assert_eq!(files(&[("ssl.ca.location", "probe"), ("https.ca.location", "/")]), []);
    }

    #[test]
    fn whatever_is_accepted_fits_even_in_base64() {
        let body = 16 << 20;
        assert!(message_bytes_max(body) > body / 3 * 4 + 2048);
        assert_eq!(message_bytes_max(u64::MAX / 4), MESSAGE_BYTES_LIMIT);
    }
}
