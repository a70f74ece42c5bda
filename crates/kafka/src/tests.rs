//! The sink against librdkafka's mock cluster, which fails as it is told to.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use prometheus::Registry;
use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{DefaultProducerContext, Producer},
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::time::timeout;
use uuid::Uuid;

use forebay_broker::TopicTemplate;
use forebay_test_support::time::observe_for;

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

type Mock = MockCluster<'static, DefaultProducerContext>;

fn mock(partitions: i32) -> Mock {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("events", partitions, 1).unwrap();
    cluster
}

fn sink(cluster: &Mock, properties: &[(&str, &str)]) -> (KafkaSink, Registry) {
    let config = settings::KafkaConfig {
        brokers: vec![cluster.bootstrap_servers()],
        properties: properties.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        create_topics: None,
    };
    let names = KafkaNames::new("main", "events");
    let limits = SinkLimits {
        body_bytes_max: 1 << 20,
        in_flight_records_max: 1000,
    };
    let registry = Registry::new();
    let metrics = KafkaMetrics::register(&registry).unwrap();
    (
        KafkaSink::new(&config, names, topics(), limits, Arc::new(metrics)).unwrap(),
        registry,
    )
}

fn topics() -> RouteTopics {
    RouteTopics::new(TopicTemplate::parse("events").unwrap(), UnknownTopic::Hold)
}

fn message(sequence: u64) -> Message {
    Message {
        sequence,
        replica: "forebay-0".into(),
        id: Uuid::nil(),
        address: "events".into(),
        time_ms: 0,
        trace: None,
        again: None,
        key: "ZG6NWV/a".into(),
        content_type: "application/json".into(),
        attributes: Vec::new(),
        body: Bytes::from_static(b"{}"),
    }
}

/// Settles until so many are confirmed, or something fails.
async fn confirmed(sink: &mut KafkaSink, count: usize) -> Result<Vec<u64>, (Vec<u64>, PublishFailure)> {
    let mut sequences = Vec::new();
    let mut settled = Vec::new();
    while sequences.len() < count {
        let result = timeout(DEADLINE, sink.settle(&mut settled))
            .await
            .expect("within the deadline");
        for SettledMessage { sequence, result } in settled.drain(..) {
            match result {
                Ok(()) => sequences.push(sequence),
                Err(failure) => return Err((sequences, failure)),
            }
        }
        if let Err(failure) = result {
            return Err((sequences, failure));
        }
    }
    Ok(sequences)
}

#[tokio::test]
async fn after_a_fatal_error_the_session_is_over_and_the_next_one_works() {
    let cluster = mock(1);
    let (mut sink, registry) = sink(&cluster, &[]);
    sink.reopen().await.unwrap();
    sink.enqueue(message(1)).unwrap();
    assert_eq!(confirmed(&mut sink, 1).await.unwrap(), [1]);

    let producer = sink.session.producers().unwrap().main.producer.client().native_ptr();
    #[allow(
        unsafe_code,
        reason = "librdkafka's own switch for this test; the pointer is that of a live producer"
    )]
    unsafe {
        rdkafka_sys::rd_kafka_test_fatal_error(
            producer,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
            c"tested".as_ptr(),
        );
    }
    let (_, failure) = confirmed(&mut sink, 1).await.unwrap_err();
    assert_eq!(
        (failure.label, failure.remedy),
        ("kafka_fatal", Remedy::Retry),
        "{failure}"
    );
    assert!(matches!(sink.enqueue(message(2)), Err(EnqueueError::Failed(again)) if again == failure));
    let mut settled = Vec::new();
    assert_eq!(sink.settle(&mut settled).await.unwrap_err(), failure, "and stays over");

    sink.reopen().await.unwrap();
    sink.enqueue(message(2)).unwrap();
    assert_eq!(confirmed(&mut sink, 1).await.unwrap(), [2]);
    assert_eq!(metric(&registry, "forebay_kafka_sessions_total"), Some(2.0));
}

#[tokio::test]
async fn each_error_of_a_broker_has_its_remedy() {
    use RDKafkaRespErr::*;
    let table = [
        (
            RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
            Remedy::SetAside,
            "kafka_too_large",
        ),
        (
            RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,
            Remedy::SetAside,
            "kafka_too_large",
        ),
        (
            RD_KAFKA_RESP_ERR_INVALID_RECORD,
            Remedy::SetAside,
            "kafka_invalid_message",
        ),
        (RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, Remedy::Hold, "kafka_timestamp"),
        (
            RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            Remedy::Hold,
            "kafka_authorisation",
        ),
        (
            RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
            Remedy::Hold,
            "kafka_authorisation",
        ),
        (RD_KAFKA_RESP_ERR_POLICY_VIOLATION, Remedy::Hold, "kafka_configuration"),
        (RD_KAFKA_RESP_ERR_UNKNOWN, Remedy::Retry, "kafka_other"),
    ];
    for (code, remedy, label) in table {
        let cluster = mock(1);
        cluster.request_errors(RDKafkaApiKey::Produce, &[code]);
        let (mut sink, _) = sink(&cluster, &[]);
        sink.reopen().await.unwrap();
        sink.enqueue(message(1)).unwrap();
        let (_, failure) = confirmed(&mut sink, 1).await.unwrap_err();
        assert_eq!((failure.remedy, failure.label), (remedy, label), "{code:?}: {failure}");
        let labels = sink.labels();
        assert!(labels.failures.contains(&failure.label));
        // Alone in its lane, it was the message and not its batch.
        let of_a_message = labels.dead_letters.contains(&failure.label);
        assert_eq!(of_a_message, remedy == Remedy::SetAside, "{failure}");
        assert!(failure.text.contains("events"), "{failure}");
    }
}

#[tokio::test]
async fn a_broker_that_asks_for_patience_gets_it() {
    use RDKafkaRespErr::*;
    for code in [
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        RD_KAFKA_RESP_ERR__TRANSPORT,
    ] {
        let cluster = mock(1);
        cluster.request_errors(RDKafkaApiKey::Produce, &[code]);
        let (mut sink, _) = sink(&cluster, &[]);
        sink.reopen().await.unwrap();
        sink.enqueue(message(1)).unwrap();
        assert_eq!(confirmed(&mut sink, 1).await.unwrap(), [1], "{code:?}");
    }
}

#[tokio::test]
async fn nothing_is_sent_past_a_message_that_failed() {
    let cluster = mock(1);
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        ],
    );
    const BATCH: usize = 10;
    let (mut sink, _) = sink(
        &cluster,
        &[
            ("batch.num.messages", &BATCH.to_string()),
            ("linger.ms", "0"),
            ("max.in.flight", "1"),
        ],
    );
    sink.reopen().await.unwrap();
    for sequence in 1..=500 {
        sink.enqueue(message(sequence)).unwrap();
    }
    let (before, failure) = confirmed(&mut sink, 500).await.unwrap_err();
    assert_eq!(failure.label, "kafka_too_large", "{failure}");
    // Long enough for whatever might still be on its way.
    observe_for(Duration::from_secs(1)).await;
    let shared = sink.session.producers().unwrap().main.shared.clone();
    let after = std::mem::take(&mut *shared.outcome.lock()).confirmed;
    let written: Vec<u64> = before
        .into_iter()
        .chain(after.into_iter().map(|sent| sent.sequence))
        .collect();
    let beginning = (1..)
        .zip(&written)
        .take_while(|(expected, sequence)| expected == *sequence)
        .count();
    assert!(beginning > 0, "{written:?}");
    // One request may be ready to be sent when the answer comes. A broker, which knows the producer by now, refuses
    // what follows a refused one, and the mock takes it.
    assert!(written.len() - beginning <= BATCH, "{written:?}");
}

#[tokio::test]
async fn a_partition_that_confirms_nothing_is_named_and_stays_so_through_a_new_session() {
    let cluster = mock(1);
    let refusals = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 1000];
    cluster.request_errors(RDKafkaApiKey::Produce, &refusals);
    let (mut sink, _) = sink(
        &cluster,
        &[("statistics.interval.ms", "50"), ("retry.backoff.ms", "50")],
    );
    sink.reopen().await.unwrap();
    sink.enqueue(message(1)).unwrap();
    let mut settled = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let _ = timeout(Duration::from_millis(100), sink.settle(&mut settled)).await;
    }
    assert_eq!(sink.trouble(), None, "not yet");
    let long_ago = |seconds: u64| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
    sink.lanes.quiet_since(0, long_ago(21));
    let trouble = sink.trouble().unwrap();
    assert_eq!((trouble.label, trouble.remedy), ("kafka_stalled", Remedy::Hold));
    assert!(trouble.text.contains("partition 0 of topic 'events'"), "{trouble}");

    sink.progress = long_ago(121);
    let over = timeout(DEADLINE, sink.settle(&mut settled)).await.unwrap().unwrap_err();
    assert_eq!(over.label, "kafka_stalled");
    cluster.clear_request_errors(RDKafkaApiKey::Produce);
    sink.reopen().await.unwrap();
    assert_eq!(sink.trouble(), Some(over), "nothing was confirmed yet");
    sink.enqueue(message(1)).unwrap();
    assert_eq!(confirmed(&mut sink, 1).await.unwrap(), [1]);
    assert_eq!(sink.trouble(), None);
}

#[tokio::test]
async fn statistics_become_metrics() {
    let cluster = mock(3);
    let (mut sink, registry) = sink(&cluster, &[("statistics.interval.ms", "100")]);
    sink.reopen().await.unwrap();
    sink.enqueue(message(1)).unwrap();
    confirmed(&mut sink, 1).await.unwrap();
    let seen = async {
        while metric(&registry, "forebay_kafka_topic_partitions") != Some(3.0)
            || metric(&registry, "forebay_kafka_broker_up") != Some(1.0)
            || metric(&registry, "forebay_kafka_queue_records") != Some(0.0)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, seen).await.expect("statistics within the deadline");
}

fn metric(registry: &Registry, name: &str) -> Option<f64> {
    let families = registry.gather();
    let metric = families
        .iter()
        .find(|family| family.name() == name)?
        .get_metric()
        .first()?
        .clone();
    Some(metric.get_gauge().get_value() + metric.get_counter().get_value())
}

#[test]
fn a_sink_whose_properties_break_a_promise_is_not_built() {
    let config = settings::KafkaConfig {
        brokers: vec!["localhost:9092".into()],
        properties: BTreeMap::from([("acks".to_string(), "1".to_string())]),
        create_topics: None,
    };
    let names = KafkaNames::new("main", "events");
    let limits = SinkLimits {
        body_bytes_max: 1,
        in_flight_records_max: 1,
    };
    let metrics = Arc::new(KafkaMetrics::register(&Registry::new()).unwrap());
    let failure = KafkaSink::new(&config, names, topics(), limits, metrics).err().unwrap();
    assert_eq!(failure.cause, KafkaCause::Configuration);
    assert!(failure.text.contains("acks"), "{failure}");
}

#[test]
fn a_keys_partition_is_also_that_of_librdkafkas_murmur2_random() {
    for key in [
        "a",
        "ZG6NWV/sample_stream",
        "ZG6NWV/straße",
        "ZG6NWV/配信",
        &"x".repeat(5000),
    ] {
        for partitions in [1, 3, 12, 1000] {
            #[allow(unsafe_code, reason = "a pure function of the key's bytes, which outlive the call")]
            let theirs = unsafe {
                rdkafka_sys::rd_kafka_msg_partitioner_murmur2_random(
                    std::ptr::null(),
                    key.as_ptr().cast(),
                    key.len(),
                    partitions,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                )
            };
            let ours = forebay_broker::partition::partition_of(key.as_bytes(), partitions.unsigned_abs());
            assert_eq!(ours, theirs.unsigned_abs(), "{key}");
        }
    }
}

#[test]
fn librdkafka_was_built_with_what_the_documentation_promises() {
    let features = ClientConfig::new()
        .create_native_config()
        .unwrap()
        .get("builtin.features")
        .unwrap();
    let features: Vec<&str> = features.split(',').collect();
    // Tokens are fetched by `oauth`, so neither curl nor its OIDC is needed.
    assert!(!features.contains(&"oidc"), "{features:?}");
    for wanted in [
        "ssl",
        "sasl",
        "sasl_plain",
        "sasl_scram",
        "sasl_oauthbearer",
        "zstd",
        "gzip",
        "lz4",
        "snappy",
    ] {
        assert!(features.contains(&wanted), "{wanted} is not in {features:?}");
    }
}
