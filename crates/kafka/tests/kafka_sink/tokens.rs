//! SASL/OAUTHBEARER with an identity provider in the test.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine, prelude::*};
use forebay_broker::{FindingLevel, Remedy, Sink, TopicTemplate};
use forebay_kafka::{CreateTopics, KafkaConfig, KafkaTail, KafkaTailOptions, UnknownTopic, connect_check};
use forebay_test_support::kafka::{self as server, Cluster, Listener, Options};
use tokio::time::timeout;

use super::publisher::{DEADLINE, Publisher, assert_in_order, message, new_sink_for};

const ID: &str = "forebay";

/// Gives tokens to the client that knows its secret, and counts them.
#[derive(Clone)]
struct Provider {
    url: String,
    secret: Arc<Mutex<String>>,
    given: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Provider {
    fn start(secret: &str, lifetime: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let provider = Self {
            url: format!("http://{}/token", listener.local_addr().unwrap()),
            secret: Arc::new(Mutex::new(secret.into())),
            given: Arc::default(),
            refused: Arc::default(),
        };
        let serving = provider.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serving.serve(stream.unwrap(), lifetime);
            }
        });
        provider
    }

    fn serve(&self, mut stream: TcpStream, lifetime: Duration) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut authorization, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = value.into(),
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
                _ if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut form = vec![0; length];
        reader.read_exact(&mut form).unwrap();
        let expected = BASE64_STANDARD.encode(format!("{ID}:{}", self.secret.lock().unwrap()));
        let known = authorization == format!("Basic {expected}");
        let (status, body) = if known && form == b"grant_type=client_credentials&scope=kafka+publish" {
            self.given.fetch_add(1, Ordering::Relaxed);
            ("200 OK", token(lifetime))
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            ("401 Unauthorized", r#"{"error":"invalid_client"}"#.to_string())
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .unwrap();
    }

    fn given(&self) -> usize {
        self.given.load(Ordering::Relaxed)
    }
}

/// A JWT that nobody signed, as the test's broker takes it.
fn token(lifetime: Duration) -> String {
    let now = UNIX_EPOCH.elapsed().unwrap();
    let expires = (now + lifetime).as_secs_f64();
    let claims = format!(r#"{{"sub":"{ID}","iat":{},"exp":{expires}}}"#, now.as_secs());
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let token = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims));
    let seconds = lifetime.as_secs();
    format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{seconds}}}"#)
}

/// Brokers that end a connection whose token has expired.
async fn cluster() -> Cluster {
    let options = Options::default()
        .listener(Listener::OAuth)
        .property("listener.name.oauth.oauthbearer.connections.max.reauth.ms", "3600000");
    tokio::task::spawn_blocking(move || Cluster::start(&options))
        .await
        .unwrap()
}

fn config(cluster: &Cluster, provider: &Provider, secret: &str) -> KafkaConfig {
    let properties = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanisms", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.token.endpoint.url", &provider.url),
        ("sasl.oauthbearer.client.id", ID),
        ("sasl.oauthbearer.client.secret", secret),
        ("sasl.oauthbearer.scope", "kafka publish"),
        ("sasl.oauthbearer.extensions", "logicalCluster=lkc-1"),
    ];
    KafkaConfig {
        brokers: cluster.brokers(Listener::OAuth),
        properties: properties.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        create_topics: None,
    }
}

#[tokio::test]
async fn tokens_are_fetched_and_renewed_while_a_route_publishes() {
    let cluster = cluster().await;
    let topic = server::create_topic(&cluster.bootstrap(), "tokens", 1, &[]).await;
    let provider = Provider::start("s3cret", Duration::from_secs(5));
    let config = config(&cluster, &provider, "s3cret");
    let sink = new_sink_for(&config, &topic, UnknownTopic::Hold);
    let mut publisher =
        Publisher::new(sink, (1..=30).map(|n| message(&topic, n))).slowly(1, Duration::from_millis(500));
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.failures, [], "no token expired while it was used");
    assert!(
        (3..=8).contains(&provider.given()),
        "15 s of tokens of 5 s: {}",
        provider.given()
    );
    assert_in_order(&server::read(&cluster.bootstrap(), &topic, 30), 1..=30);
}

#[tokio::test]
async fn a_wrong_client_secret_is_named_and_the_route_goes_on_once_it_is_right() {
    let cluster = cluster().await;
    let topic = server::create_topic(&cluster.bootstrap(), "secret", 1, &[]).await;
    let provider = Provider::start("another-one", Duration::from_secs(300));
    let config = config(&cluster, &provider, "s3cret");
    let mut sink = new_sink_for(&config, &topic, UnknownTopic::Hold);
    let failure = timeout(Duration::from_secs(10), sink.reopen())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        (failure.label, failure.remedy),
        ("kafka_token", Remedy::Hold),
        "{failure}"
    );
    for part in [
        "sink 'main'",
        &provider.url,
        "HTTP 401 (invalid_client)",
        "client.secret",
    ] {
        assert!(failure.text.contains(part), "{part}: {failure}");
    }
    assert!(!failure.text.contains("s3cret"), "{failure}");
    assert_eq!(sink.trouble(), Some(failure));
    let findings = connect_check("main", &config, std::slice::from_ref(&topic), 1 << 20).await;
    assert!(
        matches!(&findings[..], [f] if f.level == FindingLevel::Problem && f.text.contains("HTTP 401")),
        "{findings:?}"
    );

    let mut publisher = Publisher::new(sink, [message(&topic, 1)]);
    *provider.secret.lock().unwrap() = "s3cret".into();
    publisher.drain(DEADLINE).await;
    assert_in_order(&server::read(&cluster.bootstrap(), &topic, 1), 1..=1);
    assert!(provider.refused.load(Ordering::Relaxed) >= 2);
}

#[tokio::test]
async fn the_check_topic_creation_and_the_tail_authenticate_by_tokens_too() {
    let cluster = cluster().await;
    let provider = Provider::start("s3cret", Duration::from_secs(4));
    let mut config = config(&cluster, &provider, "s3cret");
    config.create_topics = Some(CreateTopics {
        partitions: 3,
        replication: 1,
        topics_max: 200,
    });
    let topic = "made-with-a-token".to_string();
    let mut publisher = Publisher::new(new_sink_for(&config, &topic, UnknownTopic::Hold), [message(&topic, 0)]);
    publisher.drain(DEADLINE).await;
    assert_eq!(server::partitions(&cluster.bootstrap(), &topic), 3);

    let findings = connect_check("main", &config, std::slice::from_ref(&topic), 1 << 20).await;
    let has = |text: &str| findings.iter().any(|finding| finding.text.contains(text));
    assert!(
        has("a token from") && has("3 partitions") && has("min.insync.replicas"),
        "{findings:#?}"
    );
    assert!(
        findings.iter().all(|finding| finding.level != FindingLevel::Problem),
        "{findings:#?}"
    );

    let options = KafkaTailOptions {
        kafka: config.clone(),
        topics: vec![TopicTemplate::parse(&topic).unwrap()],
        from_start: true,
        deadline: DEADLINE,
    };
    let mut tail = KafkaTail::open(options).await.unwrap();
    // Longer than one token lives.
    let messages = (1..=12).map(|n| message(&topic, n));
    let mut publisher = Publisher::new(publisher.into_sink(), messages).slowly(1, Duration::from_millis(500));
    publisher.drain(DEADLINE).await;
    for _ in 0..=12 {
        timeout(DEADLINE, tail.next()).await.unwrap().unwrap();
    }
}
