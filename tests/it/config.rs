//! What a configuration file and the environment make of each other, and how mistakes are told.

use std::{path::PathBuf, time::Duration};

use forebay::{
    config::{Config, Match, Network, Problems, SinkKind, Template},
    event::{Provider, render::Mode},
    provider::Payload,
    spool::Start,
};

const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// The least that starts.
const LEAST: &str = r#"
[endpoints.acme]
path = "/millicast/acme"
secrets = ["base64:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="]

[sinks.main]
type = "kafka"
brokers = ["localhost:9092"]
"#;

/// The block of the contract: every value that is not the user's own is the default.
const CONTRACT: &str = include_str!("../../docs/examples/defaults.toml");

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn load_named(name: &str, text: &str, env: &[(&str, &str)]) -> Result<Config, Problems> {
    let dir = Dir::new();
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(&dir.file(name, text), env)
}

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, Problems> {
    load_named("forebay.toml", text, env)
}

/// The problems as `origin: key: text`, the file without its directory.
fn problems(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    let problems = load(text, env).expect_err(text);
    let short = |origin: &str| origin.rsplit('/').next().unwrap().to_owned();
    problems
        .iter()
        .map(|p| format!("{}: {}: {}", short(&p.origin), p.key, p.text))
        .collect()
}

/// `LEAST`, and `more` in front of it.
fn with(more: &str) -> String {
    format!("{more}\n{LEAST}")
}

#[test]
fn the_least_configuration_has_the_contracts_defaults() {
    let least = load(LEAST, &[]).unwrap();
    let contract = load(CONTRACT, &[("ACME_SECRET", SECRET)]).unwrap();
    assert_eq!(format!("{:?}", least.server), format!("{:?}", contract.server));
    assert_eq!(format!("{:?}", least.admin), format!("{:?}", contract.admin));
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
    assert_eq!(config.server.drain_delay, Duration::from_secs(5));
    assert_eq!(config.server.shutdown_deadline, Duration::from_secs(30));
    assert_eq!(config.server.trusted_proxies, []);
    assert_eq!(config.admin.listen.to_string(), "0.0.0.0:9464");
    assert_eq!(config.spool.dir, PathBuf::from("/var/lib/forebay"));
    assert_eq!(config.spool.bytes_max, 10 << 30);
    assert_eq!(config.spool.replica, None);
    assert_eq!(config.endpoints[0].provider, Provider::Millicast);
    assert_eq!(config.endpoints[0].account, None);

    let [events, thumbnails] = config.routes.as_slice() else {
        panic!("two routes, not {:?}", config.routes)
    };
    assert_eq!(
        (events.name.as_str(), events.topic.to_string().as_str()),
        ("events", "millicast.events")
    );
    assert_eq!(
        events.matches,
        Match {
            not_kinds: vec!["thumbnail".into()],
            ..Match::default()
        }
    );
    assert_eq!(
        (events.mode, events.payload, events.start),
        (Mode::Structured, Payload::Normalized, Start::Head)
    );
    assert_eq!(
        (events.in_flight_records_max, events.in_flight_bytes_max),
        (10_000, 64 << 20)
    );
    assert_eq!(thumbnails.topic.to_string(), "millicast.thumbnails");
    assert_eq!(
        thumbnails.matches,
        Match {
            kinds: vec!["thumbnail".into()],
            ..Match::default()
        }
    );
    assert_eq!(thumbnails.mode, Mode::Binary);
}

#[test]
fn each_mistake_is_reported_with_its_file_and_key() {
    // What stands in front of the least configuration, and the one problem that it makes.
    let table = [
        (
            "[server]\nlisten = \"nowhere\"",
            r#"forebay.toml: server.listen: expected an IP address and a port such as "0.0.0.0:8080" or "[::]:8080", found "nowhere""#,
        ),
        (
            "[server]\nlisten = 8080",
            "forebay.toml: server.listen: expected a text, found a number",
        ),
        (
            "[server]\nbody_byte_max = 1",
            "forebay.toml: server.body_byte_max: unknown key; did you mean body_bytes_max",
        ),
        (
            "[server]\nbody_bytes_max = \"much\"",
            r#"forebay.toml: server.body_bytes_max: expected a size such as "64KiB", "10GiB" or a number of bytes, found "much""#,
        ),
        (
            "[server]\nbody_bytes_max = -1",
            r#"forebay.toml: server.body_bytes_max: expected a size such as "64KiB", "10GiB" or a number of bytes, found "-1""#,
        ),
        (
            "[server]\nbody_bytes_max = 1",
            "forebay.toml: server.body_bytes_max: 1 is not between 1.0 KiB and 1.0 GiB",
        ),
        (
            "[server]\nbody_bytes_max = true",
            r#"forebay.toml: server.body_bytes_max: expected a size such as "64KiB", "10GiB" or a number of bytes, found true or false"#,
        ),
        (
            "[server]\nbody_deadline = 10",
            r#"forebay.toml: server.body_deadline: expected a duration with its unit, such as "500ms", "30s" or "5m", found "10""#,
        ),
        (
            "[server]\nbody_deadline = \"1ms\"",
            "forebay.toml: server.body_deadline: 1ms is not between 1s and 10m",
        ),
        (
            "[server]\nconnections_max = 0",
            "forebay.toml: server.connections_max: expected a whole number between 1 and 1000000",
        ),
        (
            "[server]\nconnections_max = 1.5",
            "forebay.toml: server.connections_max: expected a whole number, found a number with a fraction",
        ),
        (
            "[server]\ntrusted_proxies = [\"10.0.0.0/33\"]",
            r#"forebay.toml: server.trusted_proxies: "10.0.0.0/33" is not a network such as "10.0.0.0/8" or "2001:db8::1""#,
        ),
        (
            "[server]\ntrusted_proxies = \"10.0.0.0/8\"",
            r#"forebay.toml: server.trusted_proxies: expected a list of texts such as ["a", "b"], found a text"#,
        ),
        (
            "[server]\nbodies_bytes_max = \"1MiB\"",
            "forebay.toml: server.bodies_bytes_max: below server.body_bytes_max: a large body would never fit",
        ),
        (
            "[server]\nbody_bytes_max = \"64MiB\"\n[routes.a]\ntopic = \"t\"\nin_flight_bytes_max = \"128MiB\"",
            "forebay.toml: server.body_bytes_max: 64.0 MiB does not fit into a segment (64.0 MiB) of a spool of 10.0 GiB: lower it, or raise spool.bytes_max",
        ),
        ("server = 1", "forebay.toml: server: expected a table, found a number"),
        (
            "[sever]\nlisten = \"0.0.0.0:1\"",
            "forebay.toml: sever: unknown key; did you mean server",
        ),
        (
            "[zzz]\nx = 1",
            "forebay.toml: zzz: unknown key; known here: server, admin, spool, endpoints, sinks, routes",
        ),
        (
            "[admin]\nlisten = \"0.0.0.0:8080\"",
            "forebay.toml: admin.listen: 0.0.0.0:8080 is server.listen already",
        ),
        (
            "[spool]\nthumbnail_share_max = 1.5",
            "forebay.toml: spool.thumbnail_share_max: expected a number from 0.0 to 1.0",
        ),
        (
            "[spool]\nreplica = \"a b\"",
            r#"forebay.toml: spool.replica: "a b" is not a name of 1 to 253 of the characters a-z A-Z 0-9 - _ ."#,
        ),
        (
            "[spool]\nbytes_max = \"32MiB\"",
            "forebay.toml: server.body_bytes_max: 16.0 MiB does not fit into a segment (8.0 MiB) of a spool of 32.0 MiB: lower it, or raise spool.bytes_max",
        ),
        (
            "[spool]\nabandon_routes = [\"events\"]",
            "forebay.toml: spool.abandon_routes: the route events is configured, so it cannot be abandoned as well",
        ),
        (
            "[endpoints.b]\nsecrets = [\"base64:AAAA\"]",
            "forebay.toml: endpoints.b.path: missing",
        ),
        (
            "[endpoints.b]\npath = \"/b\"",
            "forebay.toml: endpoints.b.secrets: missing",
        ),
        (
            "[endpoints.b]\npath = \"b\"\nsecrets = [\"base64:AAAA\"]",
            r#"forebay.toml: endpoints.b.path: "b" must start with /"#,
        ),
        (
            "[endpoints.b]\npath = \"/b?c\"\nsecrets = [\"base64:AAAA\"]",
            r#"forebay.toml: endpoints.b.path: "/b?c" has '?', which a URL's path cannot have as it is"#,
        ),
        (
            "[endpoints.b]\npath = \"/millicast/acme\"\nsecrets = [\"base64:AAAA\"]",
            r#"forebay.toml: endpoints.b.path: "/millicast/acme" is the path of endpoints.acme already"#,
        ),
        (
            "[endpoints.b]\npath = \"/b\"\nsecrets = []",
            "forebay.toml: endpoints.b.secrets: empty: without a secret no webhook can be verified",
        ),
        (
            "[endpoints.b]\npath = \"/b\"\nsecrets = [\"AAAA\"]",
            "forebay.toml: endpoints.b.secrets: number 1: expected env:NAME, file:/path or base64:TEXT",
        ),
        (
            "[endpoints.b]\npath = \"/b\"\nsecrets = [\"env:NOT_THERE\"]",
            "forebay.toml: endpoints.b.secrets: number 1: env:NOT_THERE: the environment variable is not set",
        ),
        (
            "[endpoints.b]\npath = \"/b\"\nsecrets = [\"file:/not/there\"]",
            "forebay.toml: endpoints.b.secrets: number 1: file:/not/there: cannot be read: No such file or directory (os error 2)",
        ),
        (
            "[endpoints.b]\npath = \"/b\"\nprovider = \"mux\"\nsecrets = [\"base64:AAAA\"]",
            r#"forebay.toml: endpoints.b.provider: expected "millicast", found "mux""#,
        ),
        (
            "[endpoints.b]\npath = \"/b\"\naccount = \"a/b\"\nsecrets = [\"base64:AAAA\"]",
            r#"forebay.toml: endpoints.b.account: "a/b" is not an account: up to 128 letters, digits and signs, no /"#,
        ),
        (
            "[endpoints.\"b c\"]\npath = \"/b\"\nsecrets = [\"base64:AAAA\"]",
            "forebay.toml: endpoints.b c: a name has 1 to 64 of the characters a-z A-Z 0-9 - _",
        ),
        (
            "[endpoints.ACME]\npath = \"/b\"\nsecrets = [\"base64:AAAA\"]",
            "forebay.toml: endpoints.acme: too close to endpoints.ACME: names must differ in more than case, - and _",
        ),
        (
            "[sinks.b]\nbrokers = [\"b:1\"]\n[routes.a]\nsink = \"main\"\ntopic = \"t\"",
            "forebay.toml: sinks.b.type: missing",
        ),
        (
            "[sinks.b]\ntype = \"rabbitmq\"\nuri = \"x\"\n[routes.a]\nsink = \"main\"\ntopic = \"t\"",
            r#"forebay.toml: sinks.b.type: only "kafka" is built in, found "rabbitmq""#,
        ),
        (
            "[sinks.b]\ntype = \"kafka\"\n[routes.a]\nsink = \"main\"\ntopic = \"t\"",
            "forebay.toml: sinks.b.brokers: missing",
        ),
        (
            "[sinks.b]\ntype = \"kafka\"\nbrokers = [\"SSL://b:1\"]\n[routes.a]\nsink = \"main\"\ntopic = \"t\"",
            r#"forebay.toml: sinks.b.brokers: "SSL://b:1" has a protocol; it goes under properties, as security.protocol"#,
        ),
        (
            "[sinks.b]\ntype = \"kafka\"\nbrokers = [\"b:0\"]\n[routes.a]\nsink = \"main\"\ntopic = \"t\"",
            r#"forebay.toml: sinks.b.brokers: "b:0" is not a broker such as "kafka-1.example:9092""#,
        ),
        (
            "[sinks.b]\ntype = \"kafka\"\nbrokers = [\"b\"]\ncreate_topics = { partitions = 0, replication = 1 }\n[routes.a]\nsink = \"main\"\ntopic = \"t\"",
            "forebay.toml: sinks.b.create_topics.partitions: expected a whole number between 1 and 10000",
        ),
        (
            "[sinks.b]\ntype = \"kafka\"\nbrokers = [\"b\"]",
            "forebay.toml: routes: missing: with more than one sink, [routes.<name>] must say which events go where",
        ),
        (
            "[sinks.b]\ntype = \"kafka\"\nbrokers = [\"b\"]\n[routes.a]\ntopic = \"t\"",
            "forebay.toml: routes.a.sink: missing",
        ),
        (
            "[routes.a]\nsink = \"mian\"\ntopic = \"t\"",
            r#"forebay.toml: routes.a.sink: there is no sink "mian"; did you mean "main""#,
        ),
        ("[routes.a]\nsink = \"main\"", "forebay.toml: routes.a.topic: missing"),
        (
            "[routes.a]\ntopic = \"a b\"",
            "forebay.toml: routes.a.topic: ' ' cannot be in a topic's name; a-z A-Z 0-9 . _ - can",
        ),
        (
            "[routes.a]\ntopic = \"a.{accuont}\"",
            "forebay.toml: routes.a.topic: unknown placeholder {accuont}; did you mean {account}",
        ),
        (
            "[routes.a]\ntopic = \"a.{kind\"",
            r#"forebay.toml: routes.a.topic: "a.{kind" has a { without a }"#,
        ),
        (
            "[routes.a]\ntopic = \"..\"",
            r#"forebay.toml: routes.a.topic: a topic cannot be called "..""#,
        ),
        ("[routes.a]\ntopic = \"\"", "forebay.toml: routes.a.topic: empty"),
        (
            "[routes.a]\ntopic = \"t\"\nmode = \"structred\"",
            r#"forebay.toml: routes.a.mode: expected "structured" or "binary", found "structred""#,
        ),
        (
            "[routes.a]\ntopic = \"t\"\npayload = \"raw\"",
            r#"forebay.toml: routes.a.payload: expected "normalized" or "original", found "raw""#,
        ),
        (
            "[routes.a]\ntopic = \"t\"\nstart = \"tail\"",
            r#"forebay.toml: routes.a.start: expected "head" or "oldest", found "tail""#,
        ),
        (
            "[routes.a]\ntopic = \"t\"\nin_flight_records_max = 0",
            "forebay.toml: routes.a.in_flight_records_max: expected a whole number between 1 and 100000",
        ),
        (
            "[routes.a]\ntopic = \"t\"\nin_flight_bytes_max = \"1MiB\"",
            "forebay.toml: routes.a.in_flight_bytes_max: below server.body_bytes_max: a large body would never fit",
        ),
        (
            "[routes.a]\ntopic = \"t\"\nmatch = { endpoints = [\"amce\"] }",
            r#"forebay.toml: routes.a.match.endpoints: there is no endpoint "amce"; did you mean "acme""#,
        ),
        (
            "[routes.a]\ntopic = \"t\"\nmatch = { kind = [\"feeds\"] }",
            "forebay.toml: routes.a.match.kind: unknown key; did you mean kinds",
        ),
        (
            "[routes.a]\ntopic = \"t\"\nmatch = { kinds = [\"feeds\"], not_kinds = [\"Feeds\"] }",
            "forebay.toml: routes.a.match: no event can match: what is wanted is excluded as well",
        ),
    ];
    for (more, expected) in table {
        assert_eq!(problems(&with(more), &[]), [expected], "{more}");
    }
}

#[test]
fn properties_that_break_a_promise_are_refused_where_they_stand() {
    let text = LEAST.to_owned() + "properties = { acks = 1, \"compresion.type\" = \"zstd\" }";
    let told = problems(
        &text,
        &[("FOREBAY__SINKS__MAIN__PROPERTIES__QUEUING__STRATEGY", "lifo")],
    );
    let keys: Vec<_> = told
        .iter()
        .map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        keys,
        [
            "forebay.toml sinks.main.properties.acks",
            "forebay.toml sinks.main.properties.compresion.type",
            "FOREBAY__SINKS__MAIN__PROPERTIES__QUEUING__STRATEGY sinks.main.properties.queuing.strategy",
        ],
        "{told:?}"
    );
}

#[test]
fn all_mistakes_are_reported_at_once_sorted_and_counted() {
    let text = with("[server]\nlisten = 1\nbody_deadline = \"x\"\n[spool]\nbytes_mx = 1");
    let told = load(&text, &[("FOREBAY__ADMIN__LISTEN", "here")])
        .unwrap_err()
        .to_string();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 5, "{told}");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("FOREBAY__ADMIN__LISTEN: admin.listen: expected an IP")),
        "{told}"
    );
    assert!(lines[..4].is_sorted(), "{told}");
    assert_eq!(lines[4], "4 problems");
}

#[test]
fn an_empty_file_misses_an_endpoint_and_a_sink() {
    assert_eq!(
        problems("", &[]),
        [
            "forebay.toml: endpoints: missing: at least one endpoint, [endpoints.<name>] with path and secrets",
            "forebay.toml: sinks: missing: at least one sink, [sinks.<name>] with type and brokers",
        ]
    );
}

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
    let network = |address: &str, prefix_bits| Network {
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
    let SinkKind::Kafka(kafka) = &config.sinks[0].kind;
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
    assert_eq!((topics.partitions, topics.replication), (12, 3));
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
    let SinkKind::Kafka(kafka) = &of_yaml.sinks[0].kind;
    assert_eq!(kafka.properties["linger.ms"], "5");
    assert_eq!(kafka.properties["compression.type"], "zstd");
}

#[test]
fn files_that_cannot_be_read_are_one_problem() {
    let told = |name: &str, text: &str| load_named(name, text, &[]).unwrap_err().to_string();
    assert!(told("forebay.ini", "").contains("its name must end in .toml, .yaml or .yml"));
    assert!(told("forebay.toml", "a = [").contains("line 1"));
    assert!(told("forebay.yaml", "a: [").ends_with("1 problem"));
    let missing = Config::load("/not/there.toml".as_ref(), std::iter::empty())
        .unwrap_err()
        .to_string();
    assert!(
        missing.starts_with("/not/there.toml: cannot be read: No such file"),
        "{missing}"
    );
}

#[test]
fn a_secret_is_in_no_message_and_no_debug_text() {
    let broken = [
        (
            "forebay.toml",
            format!("[endpoints.a]\nsecrets = [\"base64:{SECRET}\" oops\n"),
        ),
        (
            "forebay.yaml",
            format!("endpoints:\n  a:\n    secrets: [\"base64:{SECRET}\" \"oops\"\n  b: }}"),
        ),
        (
            "forebay.toml",
            with(&format!(
                "[endpoints.b]\npath = \"/b\"\nsecrets = [\"base64:{SECRET}!\"]"
            )),
        ),
        (
            "forebay.toml",
            with(&format!("[endpoints.b]\npath = \"/b\"\nsecrets = [\"{SECRET}\"]")),
        ),
        (
            "forebay.toml",
            with(&format!("[endpoints.b]\npath = \"/b\"\nsecrets = \"base64:{SECRET}\"")),
        ),
        (
            "forebay.toml",
            LEAST.to_owned() + &format!("properties = {{ \"sasl.password\" = [\"{SECRET}\"] }}"),
        ),
    ];
    for (name, text) in broken {
        let told = load_named(name, &text, &[]).expect_err(&text).to_string();
        assert!(!told.contains("MDEyMzQ1"), "{told}");
    }
    let fine = LEAST.to_owned() + &format!("properties = {{ \"sasl.password\" = \"{SECRET}\" }}");
    let debug = format!("{:?}", load(&fine, &[]).unwrap());
    assert!(
        debug.contains("sasl.password") && !debug.contains("MDEyMzQ1"),
        "{debug}"
    );
}

#[test]
fn secrets_come_from_the_environment_a_file_or_the_text() {
    let dir = Dir::new();
    let secret = dir.file("secret", &format!("{SECRET}\n"));
    let text = format!(
        "[endpoints.b]\npath = \"/b\"\nsecrets = [\"env:B\", \"file:{}\", \"base64:{SECRET}\"]\n{LEAST}",
        secret.display()
    );
    let config = load(&text, &[("B", SECRET)]).unwrap();
    assert_eq!(config.endpoints[1].secrets.len(), 3);
    assert!(config.endpoints[1].secrets[1].read().is_ok());
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
            Template::parse(template).unwrap().fits(topic),
            expected,
            "{template} {topic}"
        );
    }
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
        for secrets in ["/run/secrets/acme-next", "/run/secrets/acme", "/run/secrets/globex"] {
            text = text.replace(&format!("file:{secrets}\""), &format!("file:{}\"", secret.display()));
        }
        let config = load_named(&name, &text, &[("ACME_SECRET", SECRET)]);
        assert_eq!(
            config.map(|config| config.warnings).map_err(|p| p.to_string()),
            Ok(Vec::new()),
            "{name}"
        );
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn what_is_allowed_and_probably_not_meant_is_a_warning() {
    let text = with(
        "[sinks.spare]\ntype = \"kafka\"\nbrokers = [\"b\"]\n[routes.a]\nsink = \"main\"\ntopic = \"t\"\nmatch = { kinds = [\"feed\"] }",
    );
    assert_eq!(
        load(&text, &[]).unwrap().warnings,
        [
            r#"routes.a.match.kinds: "feed" is no kind that a provider is known to send; did you mean "feeds""#,
            "sinks.spare: no route uses it",
        ]
    );
}
