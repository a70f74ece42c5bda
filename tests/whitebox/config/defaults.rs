//! The defaults, and what the documents say of them.

use std::{path::PathBuf, time::Duration};

use forebay::{
    config::{BacklogFull, BacklogLimit, EventMatch, RouteConfig, TracingConfig},
    event::{ProviderNumber, render::RenderMode},
    senders::RoutePayload,
    sink::{
        TopicTemplate,
        kafka::{KafkaConfig, RouteTopics, UnknownTopic},
    },
    spool::CursorStart,
};

use super::{CONTRACT, Dir, LEAST, SECRET, load, load_named};

fn unknown_topic(route: &RouteConfig) -> UnknownTopic {
    let address = route.address.as_ref().unwrap();
    address.downcast::<RouteTopics>().unwrap().unknown.clone()
}

#[test]
fn the_least_configuration_has_the_contracts_defaults() {
    let least = load(LEAST, &[]).unwrap();
    let contract = load(CONTRACT, &[("ACME_SECRET", SECRET)]).unwrap();
    assert_eq!(format!("{:?}", least.server), format!("{:?}", contract.server));
    assert_eq!(format!("{:?}", least.admin), format!("{:?}", contract.admin));
    assert_eq!(least.tracing, contract.tracing);
    assert_eq!(format!("{:?}", least.routes), format!("{:?}", contract.routes));
    assert_eq!(least.spool.dir, contract.spool.dir);
    assert_eq!(least.spool.bytes_max, contract.spool.bytes_max);
    assert_eq!(least.spool.thumbnail_share_max, contract.spool.thumbnail_share_max);
    assert_eq!(least.warnings, Vec::<String>::new());
}

#[test]
fn the_defaults_are_what_the_documentation_says() {
    let config = load(LEAST, &[]).unwrap();
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.server.body_bytes_max, 16 << 20);
    assert_eq!(config.server.bodies_bytes_max, 256 << 20);
    assert_eq!(config.server.body_deadline, Duration::from_secs(10));
    assert_eq!(config.server.connections_max, 10_000);
    assert_eq!(config.server.streams_max, 200_000);
    assert_eq!(config.server.event_ids_max, 200_000);
    assert_eq!(config.server.drain_delay, Duration::from_secs(5));
    assert_eq!(config.server.shutdown_deadline, Duration::from_secs(30));
    assert_eq!(config.server.trusted_proxies, []);
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.spool.dir, PathBuf::from("/var/lib/forebay"));
    assert_eq!(config.spool.bytes_max, 10 << 30);
    assert_eq!(config.spool.replica, None);
    assert_eq!(config.tracing, None);
    assert_eq!(config.endpoints[0].provider, ProviderNumber(0));
    assert_eq!(config.endpoints[0].account, None);
    assert_eq!(config.endpoints[0].accounts, Vec::<String>::new());
    assert_eq!(config.endpoints[0].replay_window, Duration::from_secs(600));

    let [events, thumbnails] = config.routes.as_slice() else {
        panic!("two routes, not {:?}", config.routes)
    };
    assert_eq!(
        (events.name.as_str(), events.template().unwrap().to_string().as_str()),
        ("events", "millicast.events")
    );
    assert_eq!(
        unknown_topic(events),
        UnknownTopic::Hold,
        "the configuration names the topic"
    );
    let by_event = load(&format!("{LEAST}\n[routes.a]\ntopic = \"t.{{account}}\""), &[]).unwrap();
    assert_eq!(unknown_topic(&by_event.routes[0]), UnknownTopic::DeadLetter);
    assert_eq!(
        events.matches,
        EventMatch {
            not_kinds: vec!["thumbnail".into()],
            ..EventMatch::default()
        }
    );
    assert_eq!(
        (events.mode, events.payload, events.start),
        (RenderMode::Structured, RoutePayload::Normalized, CursorStart::Head)
    );
    assert_eq!(
        (events.in_flight_records_max, events.in_flight_bytes_max),
        (10_000, 64 << 20)
    );
    assert_eq!(
        (
            events.reorder_window,
            events.reorder_records_max,
            events.reorder_bytes_max
        ),
        (None, 10_000, 64 << 20)
    );
    assert_eq!(thumbnails.template().unwrap().to_string(), "millicast.thumbnails");
    assert_eq!(
        thumbnails.matches,
        EventMatch {
            kinds: vec!["thumbnail".into()],
            ..EventMatch::default()
        }
    );
    assert_eq!(thumbnails.mode, RenderMode::Binary);
    assert_eq!(events.backlog, BacklogLimit::default());
    assert_eq!(
        thumbnails.backlog,
        BacklogLimit {
            bytes_max: Some(2560 << 20),
            when_full: BacklogFull::Refuse
        }
    );
}

#[test]
fn a_route_for_pictures_alone_may_pin_a_quarter_of_the_spool_and_one_that_events_need_has_no_limit() {
    for (lines, bytes_max, when_full) in [
        ("kinds = [\"thumbnail\"] }", Some(1 << 30), BacklogFull::Refuse),
        (
            "kinds = [\"Thumbnail\"], endpoints = [\"acme\"] }\nwhen_full = \"drop_oldest\"",
            Some(1 << 30),
            BacklogFull::DropOldest,
        ),
        ("kinds = [\"thumbnail\", \"feeds\"] }", None, BacklogFull::Refuse),
        ("}", None, BacklogFull::Refuse),
        (
            "kinds = [\"feeds\"] }\nbacklog_bytes_max = \"2MiB\"\nwhen_full = \"dead_letter\"",
            Some(2 << 20),
            BacklogFull::DeadLetter,
        ),
        (
            "kinds = [\"thumbnail\"] }\nbacklog_bytes_max = \"4GiB\"",
            Some(4 << 30),
            BacklogFull::Refuse,
        ),
    ] {
        let text = format!("{LEAST}\n[routes.a]\ntopic = \"t\"\nmatch = {{ {lines}");
        let spool = [("FOREBAY__SPOOL__BYTES_MAX", "4GiB")];
        let route = &load(&text, &spool).unwrap().routes[0];
        assert_eq!(route.backlog, BacklogLimit { bytes_max, when_full }, "{lines}");
    }
}

#[test]
fn an_account_is_the_only_one_of_its_endpoint_unless_the_accounts_say_otherwise() {
    for (lines, account, accounts) in [
        ("", None, vec![]),
        ("account = \"A\"", Some("A"), vec!["A"]),
        ("accounts = [\"A\"]", Some("A"), vec!["A"]),
        ("accounts = [\"A\", \"B\"]", None, vec!["A", "B"]),
        ("account = \"B\"\naccounts = [\"A\", \"B\"]", Some("B"), vec!["A", "B"]),
        ("account = \"A\"\naccounts = []", Some("A"), vec![]),
    ] {
        let endpoint = format!("[endpoints.b]\npath = \"/b\"\nsecrets = [\"base64:AAAA\"]\n{lines}");
        let config = load(&super::with(&endpoint), &[]).unwrap();
        let endpoint = config.endpoints.iter().find(|endpoint| endpoint.name == "b").unwrap();
        assert_eq!(endpoint.account.as_deref(), account, "{lines}");
        assert_eq!(endpoint.accounts, accounts, "{lines}");
    }
}

#[test]
fn an_endpoint_turns_tracing_on_and_a_share_alone_is_a_warning() {
    let tracing = |lines: &str, env: &[(&str, &str)]| load(&super::with(&format!("[tracing]\n{lines}")), env).unwrap();
    let on = tracing("endpoint = \"https://collector.example:4318/otlp/\"", &[]);
    let expected = TracingConfig {
        endpoint: "https://collector.example:4318/otlp".to_owned(),
        sample_ratio: 0.01,
    };
    assert_eq!((on.tracing.as_ref(), on.warnings.len()), (Some(&expected), 0));
    let env = [
        ("FOREBAY__TRACING__ENDPOINT", "http://collector:4318"),
        ("FOREBAY__TRACING__SAMPLE_RATIO", "0.5"),
    ];
    let of_env = tracing("", &env);
    assert_eq!(of_env.warnings, Vec::<String>::new());
    let of_env = of_env.tracing.unwrap();
    assert_eq!(
        (of_env.endpoint.as_str(), of_env.sample_ratio),
        ("http://collector:4318", 0.5)
    );
    let off = tracing("sample_ratio = 1", &[]);
    assert_eq!(off.tracing, None);
    assert_eq!(
        off.warnings,
        ["tracing.sample_ratio: nothing is traced without tracing.endpoint"]
    );
}

#[test]
fn every_example_loads() {
    let dir = Dir::new();
    let secret = dir.file("secret", SECRET);
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let mut count = 0;
    for file in std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path()) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let mut text = std::fs::read_to_string(&file).unwrap();
        for path in ["acme-next", "acme", "globex", "rabbitmq-password"] {
            let there = format!("file:{}\"", secret.display());
            text = text.replace(&format!("file:/run/secrets/{path}\""), &there);
        }
        for path in ["ssl/rabbitmq-ca.pem", "forebay/client.pem", "forebay/client.key"] {
            text = text.replace(&format!("/etc/{path}"), &secret.display().to_string());
        }
        let env = [
            ("ACME_SECRET", SECRET),
            ("RABBITMQ_URI", "amqp://forebay:forebay@localhost/%2f"),
        ];
        let config = load_named(&name, &text, &env);
        assert_eq!(
            config.map(|config| config.warnings).map_err(|p| p.to_string()),
            Ok(Vec::new()),
            "{name}"
        );
        count += 1;
    }
    assert!(count >= 5);
}

#[test]
fn yaml_says_the_same_as_toml() {
    let yaml = r#"
endpoints:
  acme:
    path: /millicast/acme
    secrets: ["base64:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="]
sinks:
  main:
    type: kafka
    brokers: ["localhost:9092"]
    properties:
      compression.type: zstd
      linger: { ms: 5 }
"#;
    let toml = LEAST.to_owned() + "properties = { \"compression.type\" = \"zstd\", linger.ms = 5 }";
    let of_yaml = load_named("forebay.yaml", yaml, &[]).unwrap();
    let of_toml = load(&toml, &[]).unwrap();
    assert_eq!(format!("{of_yaml:?}"), format!("{of_toml:?}"));
    let Some(kafka) = of_yaml.sinks[0].settings.downcast::<KafkaConfig>() else {
        panic!("a Kafka sink")
    };
    assert_eq!(kafka.properties["linger.ms"], "5");
    assert_eq!(kafka.properties["compression.type"], "zstd");
}

#[test]
fn a_template_fits_the_topics_that_can_be_made_of_it() {
    let table = [
        ("events", "events", true),
        ("events", "events2", false),
        ("events.{account}", "events.a", true),
        ("events.{account}", "events.", false),
        ("{account}.{kind}.x", "a.b.feeds.x", true),
        ("{account}.{kind}.x", "a.x", false),
        ("{account}{kind}", "a", false),
    ];
    for (template, topic, expected) in table {
        assert_eq!(
            TopicTemplate::parse(template).unwrap().fits(topic),
            expected,
            "{template} {topic}"
        );
    }
}
