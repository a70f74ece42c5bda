//! The order of a stream where a session begins: the broker knows nothing of its producer yet, and takes any first
//! sequence number.

use std::time::Duration;

use bytes::Bytes;
use forebay_broker::{Message, Sink};
use forebay_kafka::KafkaSink;
use forebay_test_support::kafka::{self as server, Cluster, Listener, Options, Version};
use tokio::time::{Instant, timeout, timeout_at};

use super::publisher::{Publisher, assert_in_order, message, sink_with};

const DEADLINE: Duration = Duration::from_secs(120);
const LAST: u64 = 12;

/// Messages of one stream, of which the first three are large.
fn messages(topic: &str) -> Vec<Message> {
    let of_one_stream = |sequence| Message {
        key: "ZG6NWV/one".into(),
        body: Bytes::from(vec![b'x'; if sequence <= 3 { 60_000 } else { 2_000 }]),
        ..message(topic, sequence)
    };
    (1..=LAST).map(of_one_stream).collect()
}

/// A sink whose producer has its id, and that sends two messages in a request. It has published to the topic `first`.
async fn sink(cluster: &Cluster, first: &str, listener: Listener, properties: &[(&str, &str)]) -> KafkaSink {
    let properties = [&[("linger.ms", "0"), ("batch.num.messages", "2")], properties].concat();
    let mut sink = sink_with(&cluster.brokers(listener), &properties);
    sink.reopen().await.unwrap();
    sink.enqueue(message(first, 0)).unwrap();
    let mut settled = Vec::new();
    timeout(DEADLINE, sink.settle(&mut settled)).await.unwrap().unwrap();
    assert!(settled[0].result.is_ok(), "{:?}", settled[0].result);
    sink
}

/// Publishes through a session that begins with the broker held, so that all that may be on its way is on its way
/// before anything is answered; then through as many more as it takes.
async fn assert_order_is_kept(
    what: &str,
    cluster: &Cluster,
    topic: &str,
    mut sink: KafkaSink,
    helped: impl Future<Output = ()>,
) {
    cluster.freeze(0);
    let mut waiting = messages(topic);
    for message in &waiting {
        sink.enqueue(message.clone()).unwrap();
    }
    let began = Instant::now();
    let mut thawed = false;
    let mut helped = std::pin::pin!(helped);
    let mut settled = Vec::new();
    let mut over = Ok(());
    while !waiting.is_empty() && over.is_ok() {
        assert!(
            began.elapsed() < DEADLINE,
            "{what}: {} left; {:?}",
            waiting.len(),
            sink.trouble()
        );
        let answered = timeout_at(Instant::now() + Duration::from_millis(100), sink.settle(&mut settled)).await;
        over = answered.unwrap_or(Ok(()));
        for settled in settled.drain(..) {
            match settled.result {
                Ok(()) => waiting.retain(|message| message.sequence != settled.sequence),
                Err(failure) => over = Err(failure),
            }
        }
        if !thawed && began.elapsed() >= Duration::from_secs(1) {
            thawed = true;
            cluster.thaw(0);
            (&mut helped).await;
        }
    }
    let mut publisher = Publisher::new(sink, waiting);
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.dead, [0; 0], "{what}: {:?}", publisher.failures);
    let records = server::read_all(&cluster.bootstrap(), topic);
    assert_in_order(&records, 1..=LAST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_batch_that_is_refused_is_not_overtaken() {
    for version in Version::ALL {
        let options = Options::default()
            .version(version)
            .listener(Listener::Plain)
            .authorized();
        let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options))
            .await
            .unwrap();
        let brokers = cluster.bootstrap();
        let first = server::create_topic(&brokers, "first", 1, &[]).await;

        // One large message fits, two of them do not.
        let topic = server::create_topic(&brokers, "size", 1, &[("max.message.bytes", "80000")]).await;
        let found = sink(&cluster, &first, Listener::Plaintext, &[]).await;
        assert_order_is_kept("too large", &cluster, &topic, found, async {}).await;

        let topic = format!("later-{}-{version:?}", std::process::id());
        let made = server::create_topic_named(&brokers, &topic, 1, &[]);
        let found = sink(&cluster, &first, Listener::Plaintext, &[]).await;
        assert_order_is_kept("not there yet", &cluster, &topic, found, made).await;

        // May be seen, and not be written to.
        let topic = server::create_topic(&brokers, "rights", 1, &[]).await;
        server::java(
            "Grant.java",
            &[
                &brokers,
                server::USER,
                "IDEMPOTENT_WRITE",
                &format!("DESCRIBE:{topic}"),
                &format!("WRITE:{first}"),
            ],
        );
        let plain = [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanisms", "PLAIN"),
            ("sasl.username", server::USER),
            ("sasl.password", server::PASSWORD),
        ];
        let found = sink(&cluster, &first, Listener::Plain, &plain).await;
        let (grant, right) = (brokers.clone(), format!("WRITE:{topic}"));
        let granted = async move {
            let grant = move || server::java("Grant.java", &[&grant, server::USER, &right]);
            tokio::task::spawn_blocking(grant).await.unwrap();
        };
        assert_order_is_kept("rights", &cluster, &topic, found, granted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_batch_that_too_few_replicas_would_have_is_not_overtaken() {
    let options = Options::default().nodes(3);
    let mut cluster = tokio::task::spawn_blocking(move || Cluster::start(&options))
        .await
        .unwrap();
    let brokers = cluster.bootstrap();
    let topic = server::create_topic(&brokers, "replicas", 1, &[("min.insync.replicas", "3")]).await;
    let killed = (server::leader(&brokers, &topic).expect("a leader") + 1) % 3;
    cluster.kill(killed);
    let properties = [("linger.ms", "0"), ("batch.num.messages", "2")];
    let sink = sink_with(&cluster.brokers(Listener::Plaintext), &properties);
    let mut publisher = Publisher::new(sink, messages(&topic));
    let restarted = async {
        let (brokers, topic) = (brokers.clone(), topic.clone());
        let restarted = tokio::task::spawn_blocking(move || {
            // From when the cluster finds that one is missing it refuses.
            server::wait_for_replicas_in_sync(&brokers, &topic, 2, DEADLINE);
            assert_eq!(
                server::read_all(&brokers, &topic),
                [],
                "nothing is confirmed by two of three"
            );
            cluster.restart(killed);
            cluster
        });
        restarted.await.unwrap()
    };
    let ((), cluster) = tokio::join!(publisher.drain(DEADLINE), restarted);
    assert_in_order(&server::read_all(&cluster.bootstrap(), &topic), 1..=LAST);
}
