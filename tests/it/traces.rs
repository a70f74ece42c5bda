//! Traces: from the sender's `traceparent` to the one that a consumer gets, and the spans in between, at a collector.

mod exporting;
mod replay;

use std::{collections::BTreeMap, time::Duration};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::Value;

use crate::support::{
    collector::{Collector, Span},
    forebay::{EXCHANGE, PATH, Setup, kafka_route, rabbitmq_route},
    http,
    kafka::{self, create_topic},
    rabbitmq::{self, QUORUM, read_all},
    sender::{sign, webhook},
    topic::read_to_end,
};

const DRAINED: Duration = Duration::from_secs(120);
const STOPPED: Duration = Duration::from_secs(30);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SENDER: &str = "00f067aa0ba902b7";

/// The sender's, sampled.
fn traceparent() -> String {
    format!("00-{TRACE}-{SENDER}-01")
}

/// Sends one signed webhook, with these lines in its head.
fn send(setup: &Setup, feed: &str, headers: &str) -> u16 {
    let body = webhook(1, feed);
    let signature = sign(body.as_bytes());
    let headers = format!("Content-Type: application/json\r\nX-Millicast-Signature: {signature}\r\n{headers}");
    http::request(setup.public, "POST", PATH, &headers, &body).unwrap().code
}

fn send_traced(setup: &Setup, feed: &str, traceparent: &str) -> u16 {
    send(setup, feed, &format!("traceparent: {traceparent}\r\n"))
}

fn tracing(endpoint: &str, sample_ratio: f64) -> String {
    format!("[tracing]\nendpoint = \"{endpoint}\"\nsample_ratio = {sample_ratio:?}\n")
}

/// A message as either broker gives it.
struct Message {
    /// RabbitMQ's.
    routing_key: String,
    headers: BTreeMap<String, String>,
    event: Value,
}

impl Message {
    fn new(routing_key: &str, headers: &BTreeMap<String, String>, body: &[u8]) -> Self {
        Self {
            routing_key: routing_key.to_owned(),
            headers: headers.clone(),
            event: serde_json::from_slice(body).unwrap(),
        }
    }

    fn header(&self) -> Option<&str> {
        self.headers.get("traceparent").map(String::as_str)
    }

    fn extension(&self) -> Option<&str> {
        self.event["traceparent"].as_str()
    }
}

/// The message about a feed.
fn about<'a>(messages: &'a [Message], feed: &str) -> &'a Message {
    let found: Vec<&Message> = messages
        .iter()
        .filter(|message| message.event["feedid"] == feed)
        .collect();
    assert_eq!(found.len(), 1, "one message about {feed}");
    found[0]
}

fn read_topic(brokers: &str, topic: &str) -> Vec<Message> {
    let records = read_to_end(brokers, topic);
    records
        .iter()
        .map(|record| Message::new("", &record.headers, &record.value))
        .collect()
}

async fn read_queues(uri: &str, queues: &[String]) -> Vec<Message> {
    let messages = read_all(uri, queues).await;
    messages
        .iter()
        .map(|message| Message::new(&message.routing_key, &message.headers, &message.body))
        .collect()
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

/// The attributes are these, and no more; `*` is any text.
fn assert_attributes(span: &Span, expected: &[(&str, &str)]) {
    let found: Vec<&str> = span.attributes.keys().map(String::as_str).collect();
    let mut names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(found, names, "{span:#?}");
    for (name, value) in expected {
        assert!(*value == "*" || span.attributes[*name] == *value, "{name}: {span:#?}");
    }
}

/// Both routes, and where their messages are read.
struct Both {
    setup: Setup,
    brokers: String,
    topic: String,
    vhost: rabbitmq::Vhost,
    queues: Vec<String>,
}

impl Both {
    async fn new(more: &str) -> Self {
        let brokers = kafka::shared();
        let topic = create_topic(&brokers, "traces", 2, &[]).await;
        let vhost = rabbitmq::shared().vhost("traces");
        let queues = vhost.topology(EXCHANGE, 2, QUORUM);
        let routes = [
            kafka_route("streams", &brokers, &topic),
            rabbitmq_route("queues", &vhost.uris(), 2),
            more.to_owned(),
        ];
        Self {
            setup: Setup::publishing(&routes.concat()),
            brokers,
            topic,
            vhost,
            queues,
        }
    }

    async fn read(&self) -> [Vec<Message>; 2] {
        [
            read_topic(&self.brokers, &self.topic),
            read_queues(&self.vhost.uri(), &self.queues).await,
        ]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_and_what_became_of_it_on_both_brokers_are_one_tree_of_spans() {
    let collector = Collector::start();
    let both = Both::new(&tracing(&collector.endpoint(), 0.0)).await;
    let mut forebay = both.setup.start();
    assert_eq!(send_traced(&both.setup, "traced", &traceparent()), 200);
    let unsampled = traceparent().replace("-01", "-00");
    assert_eq!(send_traced(&both.setup, "unsampled", &unsampled), 200);
    assert_eq!(send(&both.setup, "untraced", ""), 200);
    forebay.wait_until_drained(DRAINED);
    // What it still has of them it sends while it stops.
    assert!(forebay.terminate(STOPPED).success());

    let spans = collector.trace(TRACE, 4);
    assert_eq!(
        collector.spans().len(),
        4,
        "the share is 0, and only one sender samples"
    );
    let post = format!("POST {PATH}");
    let to_topic = format!("send {}", both.topic);
    let to_exchange = format!("send {EXCHANGE}");
    let [request, append, topic, exchange] =
        [&*post, "spool append", &to_topic, &to_exchange].map(|name| named(&spans, name));
    assert_eq!(request.parent_id, SENDER);
    for child in [append, topic, exchange] {
        assert_eq!(child.parent_id, request.span_id, "{child:#?}");
        assert!(
            request.start_ns <= child.start_ns && child.start_ns <= child.end_ns,
            "{spans:#?}"
        );
    }
    assert!(append.end_ns <= request.end_ns, "{spans:#?}");
    for (span, kind) in [
        (request, SpanKind::Server),
        (append, SpanKind::Internal),
        (topic, SpanKind::Producer),
        (exchange, SpanKind::Producer),
    ] {
        assert_eq!(span.kind, kind, "{span:#?}");
        assert!(!span.is_error, "{span:#?}");
        assert_eq!(span.resource["service.name"], "forebay");
        assert_eq!(span.resource["service.instance.id"], "replica-0");
        assert_eq!(span.resource["service.version"], env!("CARGO_PKG_VERSION"));
    }

    let read = both.read().await;
    let [from_topic, from_queue] = [&read[0], &read[1]].map(|messages| about(messages, "traced"));
    let named_by = |span: &Span| format!("00-{TRACE}-{}-01", span.span_id);
    assert_eq!(from_topic.header(), Some(&*named_by(topic)));
    assert_eq!(from_queue.header(), Some(&*named_by(exchange)));
    for message in [from_topic, from_queue] {
        assert_eq!(message.extension(), Some(&*named_by(request)));
    }
    for messages in &read {
        let trace = |feed| (about(messages, feed).extension(), about(messages, feed).header());
        assert_eq!(trace("unsampled"), (Some(&*unsampled), Some(&*unsampled)));
        assert_eq!(trace("untraced"), (None, None));
    }

    let event = &from_topic.event;
    let text = |name: &str| event[name].as_str().unwrap();
    let size = webhook(1, "traced").len().to_string();
    let sequence = text("replicasequence").trim_start_matches('0');
    let cloudevent = [
        ("cloudevents.event_id", text("id")),
        ("cloudevents.event_source", text("source")),
        ("cloudevents.event_type", "com.millicast.feeds.started"),
    ];
    let of_request = [
        ("client.address", "127.0.0.1"),
        ("forebay.endpoint", "acme"),
        ("http.request.body.size", &*size),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.route", PATH),
        ("url.path", PATH),
        ("url.scheme", "http"),
    ];
    assert_attributes(request, &[&cloudevent[..], &of_request].concat());
    let of_append = [("forebay.sequence", sequence), ("forebay.spool.record_bytes", "*")];
    assert_attributes(append, &of_append);
    let of_sending = [
        ("forebay.sequence", sequence),
        ("forebay.waited_ms", "*"),
        ("messaging.message.body.size", "*"),
        ("messaging.message.id", text("id")),
        ("messaging.operation.name", "send"),
        ("messaging.operation.type", "send"),
    ];
    let of_sending = [&cloudevent[..], &of_sending].concat();
    let of_topic = [
        ("forebay.route", "streams"),
        ("messaging.destination.name", &*both.topic),
        ("messaging.kafka.message.key", "ZG6NWV/stream-1"),
        ("messaging.system", "kafka"),
    ];
    assert_attributes(topic, &[&of_sending[..], &of_topic].concat());
    let destination = format!("{EXCHANGE}:{}", from_queue.routing_key);
    let of_exchange = [
        ("forebay.route", "queues"),
        ("messaging.destination.name", &*destination),
        ("messaging.rabbitmq.destination.routing_key", &*from_queue.routing_key),
        ("messaging.system", "rabbitmq"),
    ];
    assert_attributes(exchange, &[&of_sending[..], &of_exchange].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tracing_the_senders_trace_goes_on_as_it_came() {
    let both = Both::new("").await;
    let forebay = both.setup.start();
    let sound = traceparent();
    let future = sound.replace("00-4", "a7-4") + "-more";
    for (feed, traceparents) in [
        ("sound", vec![&*sound]),
        ("future", vec![&*future]),
        ("short", vec![&sound[..50]]),
        ("twice", vec![&*sound, &*sound]),
        ("none", vec![]),
    ] {
        let lines = traceparents.iter().map(|text| format!("traceparent: {text}\r\n"));
        assert_eq!(send(&both.setup, feed, &lines.collect::<String>()), 200);
    }
    forebay.wait_until_drained(DRAINED);
    for messages in both.read().await {
        for (feed, expected) in [
            ("sound", Some(&*sound)),
            ("future", Some(&*sound)),
            ("short", None),
            ("twice", None),
            ("none", None),
        ] {
            let message = about(&messages, feed);
            assert_eq!((message.extension(), message.header()), (expected, expected), "{feed}");
            if expected.is_some() {
                assert_eq!(crate::support::schemas::validate(&message.event), Ok(()));
            }
        }
    }
    let spans = forebay.metrics_sum("forebay_spans_total");
    assert!(spans == 0.0, "{spans} spans without a collector");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_carries_its_trace_in_headers() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "traced-pictures", 1, &[]).await;
    let route = kafka_route("events", &brokers, &topic).replace("not_kinds", "kinds");
    let setup = Setup::publishing(&route);
    let forebay = setup.start();
    let body = b"\xff\xd8\xff not really a picture";
    let headers = format!(
        "Content-Type: image/jpeg\r\nX-Millicast-Signature: {}\r\nX-Millicast-Stream-Id: ZG6NWV/s\r\ntraceparent: {}\r\n",
        sign(body),
        traceparent()
    );
    assert_eq!(
        http::request(setup.public, "POST", PATH, &headers, body).unwrap().code,
        200
    );
    forebay.wait_until_drained(DRAINED);
    let records = read_to_end(&brokers, &topic);
    assert_eq!(records[0].headers["ce_traceparent"], traceparent());
    assert_eq!(records[0].headers["traceparent"], traceparent());
}

#[test]
fn what_is_refused_gets_a_trace_of_its_own_for_its_traceparent_proves_nothing() {
    let collector = Collector::start();
    let refused = |sample_ratio: f64| {
        let route = kafka_route("events", "127.0.0.1:1", "none");
        let setup = Setup::publishing(&(route + &tracing(&collector.endpoint(), sample_ratio)));
        let mut forebay = setup.start();
        let headers = format!(
            "X-Millicast-Signature: sha1={}\r\ntraceparent: {}\r\n",
            "0".repeat(40),
            traceparent()
        );
        let code = |path: &str| http::request(setup.public, "POST", path, &headers, "{}").unwrap().code;
        assert_eq!((code(PATH), code("/elsewhere")), (400, 404));
        assert!(forebay.terminate(STOPPED).success());
        forebay.log()
    };
    let log = refused(0.0);
    assert_eq!(collector.spans(), [], "anybody could ask for spans");
    assert!(log.contains(&format!("trace_id=\"{TRACE}\"")), "{log}");

    let log = refused(1.0);
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    let (bad, elsewhere) = (named(&spans, &format!("POST {PATH}")), named(&spans, "POST"));
    for (span, code, reason) in [(bad, "400", "signature_wrong"), (elsewhere, "404", "not_found")] {
        assert_eq!(span.parent_id, "");
        assert!(span.trace_id != TRACE && !span.is_error, "{span:#?}");
        assert!(log.contains(&format!("trace_id=\"{}\"", span.trace_id)), "{log}");
        assert_eq!(span.attributes["http.response.status_code"], code);
        assert_eq!(span.attributes["error.type"], reason);
    }
    assert!(
        !elsewhere.attributes.contains_key("url.path"),
        "paths come from the wire"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_refused_has_a_span_that_says_why() {
    let collector = Collector::start();
    let vhost = rabbitmq::shared().vhost("refused");
    // Without a queue it is taken by nobody.
    vhost.declare_exchange(EXCHANGE);
    let route = rabbitmq_route("queues", &vhost.uris(), 1);
    let setup = Setup::publishing(&(route + &tracing(&collector.endpoint(), 0.0)));
    let forebay = setup.start();
    assert_eq!(send_traced(&setup, "feed", &traceparent()), 200);
    let spans = collector.trace(TRACE, 3);
    let sent = named(&spans, &format!("send {EXCHANGE}"));
    assert!(sent.is_error, "{sent:#?}");
    assert_eq!(sent.attributes["error.type"], "rabbitmq_unroutable");
    let log = forebay.log();
    let line = log.lines().find(|line| line.contains("dead letter")).expect(&log);
    assert!(line.contains(&format!("trace_id=\"{TRACE}\"")), "{line}");
}
