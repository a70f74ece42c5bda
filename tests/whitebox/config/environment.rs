//! The environment, over the file.

use std::path::PathBuf;

use forebay::{config::IpNetwork, sink::kafka::KafkaConfig};

use super::{LEAST, SECRET, load, problems};

#[test]
fn the_environment_sets_every_key() {
    let config = load(
        LEAST,
        &[
            ("FOREBAY__SERVER__LISTEN", "127.0.0.1:0"),
            ("FOREBAY__SERVER__CONNECTIONS_MAX", "7"),
            ("FOREBAY__SERVER__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
            ("FOREBAY__SPOOL__BYTES_MAX", "3GiB"),
            ("FOREBAY__SPOOL__THUMBNAIL_SHARE_MAX", "0.25"),
            ("FOREBAY__SPOOL__DIR", ""),
            ("FOREBAY__ENDPOINTS__ACME__PATH", "/other"),
            ("FOREBAY__ENDPOINTS__B_C__PATH", "/b"),
            ("FOREBAY__ENDPOINTS__B_C__SECRETS", "env:A,env:A"),
            ("A", SECRET),
            ("FOREBAY__SINKS__MAIN__BROKERS", r#"["a:1", "b:2"]"#),
            ("FOREBAY__SINKS__MAIN__PROPERTIES__COMPRESSION__TYPE", "lz4"),
            ("FOREBAY__SINKS__MAIN__PROPERTIES__API__VERSION__REQUEST", "true"),
            (
                "FOREBAY__SINKS__MAIN__PROPERTIES__API__VERSION__REQUEST__TIMEOUT__MS",
                "5",
            ),
            ("FOREBAY__SINKS__MAIN__CREATE_TOPICS__PARTITIONS", "12"),
            ("FOREBAY__SINKS__MAIN__CREATE_TOPICS__REPLICATION", "3"),
            ("FOREBAY__ROUTES__ALL__TOPIC", "all"),
            ("FOREBAY__ROUTES__ALL__MATCH__KINDS", "feeds,Recording"),
            ("FOREBAY_SERVICE_HOST", "10.1.2.3"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:0");
    assert_eq!(config.server.connections_max, 7);
    let network = |address: &str, prefix_bits| IpNetwork {
        address: address.parse().unwrap(),
        prefix_bits,
    };
    assert_eq!(
        config.server.trusted_proxies,
        [network("10.0.0.0", 8), network("::1", 128)]
    );
    assert_eq!(config.spool.bytes_max, 3 << 30);
    assert_eq!(config.spool.thumbnail_share_max, 0.25);
    assert_eq!(
        config.spool.dir,
        PathBuf::from("/var/lib/forebay"),
        "an empty variable is an unset one"
    );
    let paths: Vec<_> = config
        .endpoints
        .iter()
        .map(|e| (e.name.as_str(), e.path.as_str()))
        .collect();
    assert_eq!(paths, [("acme", "/other"), ("b_c", "/b")]);
    assert_eq!(config.endpoints[1].secrets.len(), 2);
    let Some(kafka) = config.sinks[0].settings.downcast::<KafkaConfig>() else {
        panic!("a Kafka sink")
    };
    assert_eq!(kafka.brokers, ["a:1", "b:2"]);
    let properties: Vec<_> = kafka.properties.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        properties,
        [
            "api.version.request=true",
            "api.version.request.timeout.ms=5",
            "compression.type=lz4"
        ]
    );
    let topics = kafka.create_topics.unwrap();
    assert_eq!((topics.partitions, topics.replication, topics.topics_max), (12, 3, 200));
    assert_eq!(
        config.routes.len(),
        1,
        "a route of the environment replaces the default ones"
    );
    assert_eq!(config.routes[0].matches.kinds, ["feeds", "recordings"]);
}

#[test]
fn the_environment_meets_names_of_the_file_in_any_case() {
    let text = LEAST.replace("[endpoints.acme]", "[endpoints.Acme-Live]");
    let config = load(&text, &[("FOREBAY__ENDPOINTS__ACME_LIVE__ACCOUNT", "ZG6NWV")]).unwrap();
    assert_eq!(config.endpoints[0].name, "Acme-Live");
    assert_eq!(config.endpoints[0].account.as_deref(), Some("ZG6NWV"));
}

#[test]
fn mistakes_of_the_environment_name_the_variable() {
    let table = [
        (
            ("FOREBAY__SPOOL__BYTE_MAX", "1GiB"),
            "FOREBAY__SPOOL__BYTE_MAX: spool.byte_max: unknown key; did you mean bytes_max",
        ),
        (
            ("FOREBAY__SERVER__BODIES_BYTES_MAX", "1MiB"),
            "FOREBAY__SERVER__BODIES_BYTES_MAX: server.bodies_bytes_max: below server.body_bytes_max: a large body would never fit",
        ),
        (
            ("FOREBAY__SERVER__CONNECTIONS_MAX", "many"),
            "FOREBAY__SERVER__CONNECTIONS_MAX: server.connections_max: expected a whole number between 1 and 1000000",
        ),
        (
            ("FOREBAY__SPOOL", "x"),
            "FOREBAY__SPOOL: spool: expected a table, found a text",
        ),
        (
            ("FOREBAY__SPOOL____DIR", "x"),
            "FOREBAY__SPOOL____DIR: : not a key: two underscores stand between a table and its key, FOREBAY__SPOOL__DIR",
        ),
        (
            ("FOREBAY__ENDPOINTS__ACME__PATH__X", "x"),
            "FOREBAY__ENDPOINTS__ACME__PATH__X: endpoints.acme.path.x: endpoints.acme.path is not a table",
        ),
        (
            ("FOREBAY__SINKS__MAIN__BROKERS", "[1"),
            r#"FOREBAY__SINKS__MAIN__BROKERS: sinks.main.brokers: expected a,b or a JSON list of texts: ["a", "b"]"#,
        ),
    ];
    for (variable, expected) in table {
        assert_eq!(problems(LEAST, &[variable]), [expected], "{variable:?}");
    }
}
