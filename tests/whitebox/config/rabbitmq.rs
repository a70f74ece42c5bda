//! A sink of `type = "rabbitmq"`, and the routes to it.

use forebay::{
    config::{Config, TextSource},
    event::render::RenderMode,
    sink::rabbitmq::{RabbitMqConfig, Unroutable},
};

use super::{Dir, load, load_named, problems, with_sink};

const URI: &str = "amqp://forebay:s3cret@rabbit.example:5672/live";

/// A configuration whose only sink is `rabbit`, with these lines more.
fn rabbit(more: &str) -> String {
    with_sink("rabbit", &format!("type = \"rabbitmq\"\n{more}"))
}

fn with_uri(more: &str) -> String {
    rabbit(&format!("uri = \"{URI}\"\n{more}"))
}

fn sink_of(config: &Config) -> &RabbitMqConfig {
    config.sinks[0].settings.downcast().expect("a RabbitMQ sink")
}

#[test]
fn a_uri_is_enough_and_the_rest_has_its_defaults() {
    let config = load(&with_uri(""), &[]).unwrap();
    let sink = sink_of(&config);
    assert_eq!(sink.uris, [TextSource::Inline(URI.to_owned())]);
    assert_eq!(
        (&sink.username, &sink.password, &sink.management),
        (&None, &None, &None)
    );
    assert_eq!(
        (sink.exchange.as_str(), sink.partitions, sink.declare),
        ("forebay", 8, false)
    );
    assert_eq!(sink.unroutable, Unroutable::DeadLetter);
    assert_eq!(
        (&sink.tls.ca_file, &sink.tls.certificate_file, &sink.tls.key_file),
        (&None, &None, &None)
    );
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_default_routes_to_rabbitmq_have_no_topic() {
    let config = load(&with_uri(""), &[]).unwrap();
    let routes: Vec<_> = config
        .routes
        .iter()
        .map(|route| {
            (
                route.name.as_str(),
                route.sink.as_str(),
                route.template().is_none(),
                route.mode,
            )
        })
        .collect();
    assert_eq!(
        routes,
        [
            ("events", "rabbit", true, RenderMode::Structured),
            ("thumbnails", "rabbit", true, RenderMode::Binary)
        ]
    );
}

#[test]
fn everything_can_be_set() {
    let dir = Dir::new();
    let pem = dir.file("some.pem", "").display().to_string();
    let config = load(
        &rabbit(&format!(
            r#"
            uri = ["env:NODE_A", "file:{}", "amqps://c.example"]
            username = "env:USER_A"
            password = "text"
            exchange = "live.events"
            partitions = 1000
            declare = true
            unroutable = "hold"
            management = "https://rabbit.example:15671/"
            tls = {{ ca_file = "{pem}", certificate_file = "{pem}", key_file = "{pem}" }}
            "#,
            dir.file("uri", "amqps://b.example/%2f\n").display()
        )),
        &[("NODE_A", "amqps://a.example:5671"), ("USER_A", "forebay")],
    )
    .unwrap();
    let sink = sink_of(&config);
    assert_eq!(sink.uris.len(), 3);
    assert_eq!(sink.username, Some(TextSource::Env("USER_A".to_owned())));
    assert_eq!(sink.password, Some(TextSource::Inline("text".to_owned())));
    assert_eq!(
        (sink.exchange.as_str(), sink.partitions, sink.declare),
        ("live.events", 1000, true)
    );
    assert_eq!(sink.unroutable, Unroutable::Hold);
    assert_eq!(sink.management.as_deref(), Some("https://rabbit.example:15671"));
    let files = [&sink.tls.ca_file, &sink.tls.certificate_file, &sink.tls.key_file];
    for file in files {
        assert_eq!(file.as_ref().unwrap().display().to_string(), pem);
    }
}

#[test]
fn the_environment_sets_every_key_of_it() {
    let (one, two) = ("amqp://u:p,q@a.example", "amqp://b.example:5673/v");
    let config = load(
        &with_uri("declare = true"),
        &[
            ("FOREBAY__SINKS__RABBIT__URI", &format!("{one},{two}, env:THIRD")),
            ("THIRD", "amqp://c.example"),
            ("FOREBAY__SINKS__RABBIT__USERNAME", "someone"),
            ("FOREBAY__SINKS__RABBIT__PASSWORD", "env:PASSWORD"),
            ("PASSWORD", "x"),
            ("FOREBAY__SINKS__RABBIT__EXCHANGE", "other"),
            ("FOREBAY__SINKS__RABBIT__PARTITIONS", "16"),
            ("FOREBAY__SINKS__RABBIT__DECLARE", "false"),
            ("FOREBAY__SINKS__RABBIT__UNROUTABLE", "hold"),
        ],
    )
    .unwrap();
    let sink = sink_of(&config);
    let inline = |text: &str| TextSource::Inline(text.to_owned());
    assert_eq!(
        sink.uris,
        [inline(one), inline(two), TextSource::Env("THIRD".to_owned())]
    );
    assert_eq!(sink.username, Some(inline("someone")));
    assert_eq!(sink.password, Some(TextSource::Env("PASSWORD".to_owned())));
    assert_eq!(
        (sink.exchange.as_str(), sink.partitions, sink.declare),
        ("other", 16, false)
    );
    assert_eq!(sink.unroutable, Unroutable::Hold);

    let list = [(
        "FOREBAY__SINKS__RABBIT__URI",
        r#"["amqp://a.example", "amqp://b.example"]"#,
    )];
    assert_eq!(sink_of(&load(&with_uri(""), &list).unwrap()).uris.len(), 2);
}

#[test]
fn each_mistake_is_told_with_its_key() {
    let table = [
        ("declare = true", "forebay.toml: sinks.rabbit.uri: missing"),
        ("uri = []", "forebay.toml: sinks.rabbit.uri: empty"),
        (
            "uri = 1",
            "forebay.toml: sinks.rabbit.uri: expected a URI or a list of them, found a number",
        ),
        (
            "uri = \"env:NOT_THERE\"",
            "forebay.toml: sinks.rabbit.uri: env:NOT_THERE: the environment variable is not set",
        ),
        (
            "uri = [\"amqp://a.example\", \"file:/not/there\"]",
            "forebay.toml: sinks.rabbit.uri: number 2: file:/not/there: cannot be read: No such file or directory (os error 2)",
        ),
    ];
    for (more, expected) in table {
        assert_eq!(problems(&rabbit(more), &[]), [expected], "{more}");
    }
    let table = [
        (
            "exchnage = \"x\"",
            "forebay.toml: sinks.rabbit.exchnage: unknown key; did you mean exchange",
        ),
        (
            "brokers = [\"a\"]",
            "forebay.toml: sinks.rabbit.brokers: unknown key; known here: type, uri, username, password, exchange, partitions, declare, unroutable, management, tls",
        ),
        ("exchange = \"\"", "forebay.toml: sinks.rabbit.exchange: empty"),
        (
            "exchange = \"a\\tb\"",
            r#"forebay.toml: sinks.rabbit.exchange: "a\tb" has white space at an end, or a control character"#,
        ),
        (
            "exchange = \"amq.topic\"\ndeclare = true",
            r#"forebay.toml: sinks.rabbit.exchange: "amq.topic" cannot be declared: RabbitMQ keeps names that begin with amq. to itself"#,
        ),
        (
            "partitions = 0",
            "forebay.toml: sinks.rabbit.partitions: expected a whole number between 1 and 1000",
        ),
        (
            "partitions = 1001",
            "forebay.toml: sinks.rabbit.partitions: expected a whole number between 1 and 1000",
        ),
        (
            "declare = \"yes\"",
            "forebay.toml: sinks.rabbit.declare: expected true or false, found a text",
        ),
        (
            "unroutable = \"drop\"",
            r#"forebay.toml: sinks.rabbit.unroutable: expected "dead_letter" or "hold", found "drop""#,
        ),
        (
            "management = \"rabbit.example:15672\"",
            r#"forebay.toml: sinks.rabbit.management: expected a URL such as "http://rabbitmq.example:15672", found "rabbit.example:15672""#,
        ),
        (
            "management = \"http://u:s3cret@h\"",
            "forebay.toml: sinks.rabbit.management: has a user: the sink's own is used, leave it out",
        ),
        (
            "username = \"env:NOT_THERE\"",
            "forebay.toml: sinks.rabbit.username: env:NOT_THERE: the environment variable is not set",
        ),
        ("password = \"\"", "forebay.toml: sinks.rabbit.password: empty"),
        (
            "tls = { ca_file = \"/not/there\" }\nuri = \"amqps://h\"",
            "forebay.toml: sinks.rabbit.tls.ca_file: /not/there cannot be read: No such file or directory (os error 2)",
        ),
        (
            "tls = { certificate_file = \"/dev/null\" }\nuri = \"amqps://h\"",
            "forebay.toml: sinks.rabbit.tls: certificate_file and key_file go together: one is missing",
        ),
        (
            "tls = { ca_file = \"/dev/null\" }",
            "forebay.toml: sinks.rabbit.tls: of no use with an amqp:// URI, which has no TLS: amqps:// has",
        ),
        (
            "[routes.a]\ntopic = \"t\"",
            "forebay.toml: routes.a.topic: a route to a RabbitMQ sink has none: the routing key is made from each event \
             (<partition>.<kind>.<event>.<account>.<stream>), and queues choose by their bindings; remove it",
        ),
    ];
    for (more, expected) in table {
        let text = match more.contains("uri =") {
            true => rabbit(more),
            false => with_uri(more),
        };
        assert_eq!(problems(&text, &[]), [expected], "{more}");
    }
}

#[test]
fn a_password_is_in_no_message_and_no_debug_text() {
    let broken = [
        "uri = \"amqp://u:s3cret@h:notaport\"",
        "uri = \"ampq://u:s3cret@h\"",
        "uri = [\"amqp://u:s3cret@h/a/b\", 1]",
        "uri = \"amqp://u:s3cret@h\"\npassword = [\"s3cret\"]",
        "uri = \"u:s3cret@h\"",
    ];
    for more in broken {
        let told = load(&rabbit(more), &[]).expect_err(more).to_string();
        assert!(!told.contains("s3cret"), "{told}");
    }
    let environment = [("FOREBAY__SINKS__RABBIT__URI", r#"["amqp://u:s3cret@h""#)];
    let told = load(&rabbit(""), &environment).unwrap_err().to_string();
    assert!(!told.contains("s3cret") && told.contains("sinks.rabbit.uri"), "{told}");
    let debug = format!("{:?}", load(&with_uri("password = \"s3cret\""), &[]).unwrap());
    assert!(debug.contains("rabbit") && !debug.contains("s3cret"), "{debug}");
}

#[test]
fn both_brokers_stand_side_by_side() {
    let both = with_uri(
        "[sinks.main]\ntype = \"kafka\"\nbrokers = [\"b\"]\n\
         [routes.a]\nsink = \"rabbit\"\n[routes.b]\nsink = \"main\"\ntopic = \"t\"",
    );
    let config = load(&both, &[]).unwrap();
    let topics: Vec<_> = config
        .routes
        .iter()
        .map(|route| route.template().map(ToString::to_string))
        .collect();
    assert_eq!(topics, [None, Some("t".to_owned())]);

    let missing = both.replace("topic = \"t\"", "");
    assert_eq!(problems(&missing, &[]), ["forebay.toml: routes.b.topic: missing"]);
    let broken_sink = missing.replace("brokers = [\"b\"]", "");
    assert_eq!(
        problems(&broken_sink, &[]),
        [
            "forebay.toml: routes.b.topic: missing",
            "forebay.toml: sinks.main.brokers: missing"
        ]
    );
}

#[test]
fn yaml_says_the_same() {
    let yaml = format!(
        "endpoints:\n  acme:\n    path: /a\n    secrets: [\"base64:{}\"]\nsinks:\n  rabbit:\n    type: rabbitmq\n    \
         uri: {URI}\n    declare: true\n    partitions: 3\n",
        super::SECRET
    );
    let config = load_named("forebay.yaml", &yaml, &[]).unwrap();
    assert!(sink_of(&config).declare);
    assert_eq!(sink_of(&config).partitions, 3);
}
