//! Mistakes: where each is, and what it is told as.

use forebay::config::Config;

use super::{LEAST, load, load_named, problems, with};

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
            "forebay.toml: zzz: unknown key; known here: server, admin, spool, tracing, endpoints, sinks, routes",
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
            "[tracing]\nendpoint = \"collector:4318\"",
            r#"forebay.toml: tracing.endpoint: expected a URL such as "http://collector.example:4318", found "collector:4318""#,
        ),
        (
            "[tracing]\nendpoint = \"http://collector:4318/v1/traces\"",
            "forebay.toml: tracing.endpoint: has the path of the traces, which is added: leave http://collector:4318",
        ),
        (
            "[tracing]\nendpoint = \"http://user:s3cret@collector:4318\"",
            "forebay.toml: tracing.endpoint: has a user: put it into the environment, OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20…",
        ),
        (
            "[tracing]\nendpoint = \"http://collector:4318\"\nsample_ratio = 2",
            "forebay.toml: tracing.sample_ratio: expected a number from 0.0 to 1.0",
        ),
        (
            "[tracing]\nsample_rate = 0.1",
            "forebay.toml: tracing.sample_rate: unknown key; did you mean sample_ratio",
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
            r#"forebay.toml: endpoints.b.path: "/b?…" has '?', which a URL's path cannot have as it is"#,
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
            "[endpoints.b]\npath = \"/b\"\nsecrets = [\"env:A base64:AAAA\"]",
            "forebay.toml: endpoints.b.secrets: number 1: more than one source: each is an entry of its own in the list",
        ),
        (
            "[endpoints.b]\npath = \"/b\"\nsecrets = [\"file:/a,base64:AAAA\"]",
            "forebay.toml: endpoints.b.secrets: number 1: more than one source: each is an entry of its own in the list",
        ),
        (
            "[endpoints.b]\npath = \"/b\"\nsecrets = [\"env:A AAAA\"]",
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
            "[endpoints.b]\npath = \"/b\"\naccounts = [\"a\", \"b c\"]\nsecrets = [\"base64:AAAA\"]",
            r#"forebay.toml: endpoints.b.accounts: "b c" is not an account: up to 128 letters, digits and signs, no /"#,
        ),
        (
            "[endpoints.b]\npath = \"/b\"\naccount = \"c\"\naccounts = [\"a\", \"b\"]\nsecrets = [\"base64:AAAA\"]",
            r#"forebay.toml: endpoints.b.account: "c" is not among the endpoint's accounts"#,
        ),
        (
            "[endpoints.b]\npath = \"/b\"\nreplay_window = \"8d\"\nsecrets = [\"base64:AAAA\"]",
            "forebay.toml: endpoints.b.replay_window: 8d is not between 0s and 7days",
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
            "[sinks.b]\ntype = \"rabitmq\"\nuri = \"x\"\n[routes.a]\nsink = \"main\"\ntopic = \"t\"",
            r#"forebay.toml: sinks.b.type: expected "kafka" or "rabbitmq", found "rabitmq"; did you mean "rabbitmq""#,
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
            "[routes.a]\ntopic = \"t.{kind}\"\nunknown_topic = \"drop\"",
            r#"forebay.toml: routes.a.unknown_topic: expected "dead_letter" or "hold", found "drop""#,
        ),
        (
            "[routes.a]\ntopic = \"t.{kind}\"\ntopic_fallback = \"other.{kind}\"",
            "forebay.toml: routes.a.topic_fallback: a topic without placeholders: it is for events whose own topic is not there",
        ),
        (
            "[routes.a]\ntopic = \"t.{kind}\"\ntopic_fallback = \"other\"\nunknown_topic = \"hold\"",
            "forebay.toml: routes.a.topic_fallback: says what becomes of such an event, and so does unknown_topic: remove one",
        ),
        (
            "[sinks.b]\ntype = \"rabbitmq\"\nuri = \"amqp://b\"\n[routes.a]\nsink = \"b\"\nunknown_topic = \"hold\"",
            "forebay.toml: routes.a.unknown_topic: a route to a RabbitMQ sink has no topic; see `unroutable` of the sink; remove it",
        ),
        (
            "[sinks.b]\ntype = \"kafka\"\nbrokers = [\"b\"]\nproperties = { \"queue.buffering.max.kbytes\" = 1024 }\n[routes.a]\nsink = \"b\"\ntopic = \"t\"",
            "forebay.toml: sinks.b.properties.queue.buffering.max.kbytes: below one message: a body of server.body_bytes_max can become 21910 kB, which would never be sent",
        ),
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
            r#"forebay.toml: routes.a.mode: expected "structured" or "binary", found "structred"; did you mean "structured""#,
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
            "[routes.a]\ntopic = \"t\"\nreorder_window = \"2m\"",
            "forebay.toml: routes.a.reorder_window: 2m is not between 0s and 1m",
        ),
        (
            "[routes.a]\ntopic = \"t\"\nreorder_records_max = 0",
            "forebay.toml: routes.a.reorder_records_max: expected a whole number between 1 and 1000000",
        ),
        (
            "[routes.a]\ntopic = \"t\"\nbacklog_bytes_max = \"1KiB\"",
            "forebay.toml: routes.a.backlog_bytes_max: 1KiB is not between 1.0 MiB and 1.0 TiB",
        ),
        (
            "[routes.a]\ntopic = \"t\"\nbacklog_bytes_max = \"1GiB\"\nwhen_full = \"drop\"",
            r#"forebay.toml: routes.a.when_full: expected "refuse" or "dead_letter" or "drop_oldest", found "drop"; did you mean "drop_oldest""#,
        ),
        (
            "[routes.a]\ntopic = \"t\"\nwhen_full = \"drop_oldest\"",
            "forebay.toml: routes.a.when_full: says what happens at backlog_bytes_max, which this route does not have: set it",
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
            "forebay.toml: sinks: missing: at least one sink, [sinks.<name>] with type and brokers (Kafka) or uri (RabbitMQ)",
        ]
    );
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
fn what_is_allowed_and_probably_not_meant_is_a_warning() {
    let text = with(
        "[sinks.spare]\ntype = \"kafka\"\nbrokers = [\"b\"]\n[routes.a]\nsink = \"main\"\ntopic = \"t\"\nmatch = { kinds = [\"party\"] }\n[routes.b]\nsink = \"main\"\ntopic = \"t\"\nmatch = { not_kinds = [\"party\", \"media\"] }",
    );
    let config = load(&text, &[]).unwrap();
    assert_eq!(
        config.warnings,
        [
            r#"routes.a.match.kinds: "party" is no kind that a provider is known to send"#,
            r#"routes.b.match.not_kinds: "party" is no kind that a provider is known to send"#,
            "no route wants these of endpoint acme: media. They are kept among the dead letters of \"unrouted\": add them to a route, or say that it is \
             meant by a route with `discard = true`",
            "sinks.spare: no route uses it",
        ]
    );
    let unrouted = config.unrouted.unwrap();
    assert!(unrouted.matches.accepts("media", "acme"));
    assert!(!unrouted.matches.accepts("party", "acme") && !unrouted.matches.accepts("feeds", "acme"));
}

#[test]
fn what_is_discarded_on_purpose_is_no_gap_and_an_own_route_takes_the_rest() {
    let with_routes = |routes: &str| load(&with(routes), &[]).unwrap();
    let config = with_routes(
        "[routes.a]\ntopic = \"t\"\nmatch = { kinds = [\"feeds\"] }\n[routes.b]\ndiscard = true\ntopic = \"t\"\nmatch = { not_kinds = [\"feeds\"] }",
    );
    assert_eq!(
        (config.warnings.len(), config.unrouted.is_none(), config.routes.len()),
        (0, true, 1)
    );

    let config =
        with_routes("[routes.a]\ntopic = \"t\"\nmatch = { kinds = [\"feeds\"] }\n[routes.unrouted]\ntopic = \"u\"");
    assert_eq!((config.warnings.len(), config.unrouted.is_none()), (0, true));
    let rest = config.routes.iter().find(|route| route.name == "unrouted").unwrap();
    assert!(rest.matches.accepts("media", "acme") && !rest.matches.accepts("feeds", "acme"));

    let problem = |routes: &str| load(&with(routes), &[]).unwrap_err().to_string();
    let text = problem("[routes.a]\ntopic = \"t\"\nmatch = { kinds = [\"feed\"] }");
    assert!(
        text.contains(
            r#"routes.a.match.kinds: "feed" is no kind that a provider is known to send; did you mean "feeds""#
        ),
        "{text}"
    );
    let text = problem("[routes.unrouted]\ntopic = \"u\"\nmatch = { kinds = [\"feeds\"] }");
    assert!(
        text.contains("routes.unrouted.match: this route is for what no other wants"),
        "{text}"
    );
    let text = problem("[routes.a]\ndiscard = true\ntopik = \"t\"");
    assert!(
        text.contains("routes.a.topik: unknown key; did you mean topic"),
        "{text}"
    );
}
