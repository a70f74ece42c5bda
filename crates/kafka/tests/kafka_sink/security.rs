//! TLS and SASL, right and wrong.

use std::time::Duration;

use forebay_broker::{Remedy, Sink};
use forebay_test_support::{
    kafka::{self as server, Cluster, Listener, Options},
    tls::self_signed,
};
use tokio::time::timeout;

use super::publisher::{DEADLINE, Publisher, assert_goes_on, assert_in_order, message, sink_with, trouble_with};

#[tokio::test]
async fn every_way_to_authenticate_works_and_a_wrong_one_is_named() {
    let options = Options::default()
        .listener(Listener::Plain)
        .listener(Listener::Scram)
        .listener(Listener::MutualTls);
    let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options))
        .await
        .unwrap();
    let topic = server::create_topic(&cluster.bootstrap(), "secured", 1, &[]).await;
    let file = |name: &str| cluster.certificates().path(name).display().to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let plain = [("security.protocol", "sasl_plaintext"), ("sasl.mechanisms", "PLAIN")];
    let scram = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanisms", "SCRAM-SHA-512"),
    ];
    let right = [("sasl.username", server::USER), ("sasl.password", server::PASSWORD)];
    let wrong = [("sasl.username", server::USER), ("sasl.password", "wrong-horse")];
    let tls = [
        ("security.protocol", "ssl"),
        ("ssl.certificate.location", certificate.as_str()),
        ("ssl.key.location", key.as_str()),
    ];
    let our_ca = [("ssl.ca.location", ca.as_str())];

    let good = [
        (Listener::Plain, [&plain[..], &right].concat()),
        (Listener::Scram, [&scram[..], &right].concat()),
        (Listener::MutualTls, [&tls[..], &our_ca].concat()),
    ];
    for (n, (listener, properties)) in (1..).zip(&good) {
        let sink = sink_with(&cluster.brokers(*listener), properties);
        let mut publisher = Publisher::new(sink, [message(&topic, n)]);
        publisher.drain(DEADLINE).await;
        assert_eq!(publisher.failures, [], "{listener:?}");
    }
    assert_in_order(&server::read(&cluster.bootstrap(), &topic, 3), 1..=3);

    let other = tempfile::tempdir().unwrap();
    let stranger = self_signed(other.path(), "stranger", 2).display().to_string();
    let its_key = stranger.replace(".pem", ".key");
    let strangers = [
        ("security.protocol", "ssl"),
        ("ssl.certificate.location", stranger.as_str()),
        ("ssl.key.location", its_key.as_str()),
    ];
    let bad = [
        (Listener::Plain, [&plain[..], &wrong].concat(), "kafka_authentication"),
        (Listener::Scram, [&scram[..], &wrong].concat(), "kafka_authentication"),
        (Listener::MutualTls, tls.to_vec(), "kafka_tls"),
        (Listener::MutualTls, [&strangers[..], &our_ca].concat(), "kafka_tls"),
    ];
    for (listener, properties, label) in &bad {
        let mut sink = sink_with(&cluster.brokers(*listener), properties);
        let trouble = trouble_with(&mut sink, message(&topic, 9)).await;
        assert_eq!(
            (trouble.label, trouble.remedy),
            (*label, Remedy::Hold),
            "{listener:?}: {trouble}"
        );
        assert!(!trouble.text.contains("wrong-horse"));
    }
}

#[tokio::test]
async fn a_password_from_a_file_is_read_again_for_each_session() {
    let options = Options::default().listener(Listener::Plain);
    let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options))
        .await
        .unwrap();
    let topic = server::create_topic(&cluster.bootstrap(), "file", 1, &[]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "wrong-horse").unwrap();
    let source = format!("file:{}", file.path().display());
    let plain = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanisms", "PLAIN"),
        ("sasl.username", server::USER),
        ("sasl.password", source.as_str()),
    ];
    let mut sink = sink_with(&cluster.brokers(Listener::Plain), &plain);
    let trouble = trouble_with(&mut sink, message(&topic, 1)).await;
    assert_eq!(trouble.label, "kafka_authentication", "{trouble}");
    std::fs::write(file.path(), format!("{}\n", server::PASSWORD)).unwrap();
    let mut publisher = Publisher::new(sink, [message(&topic, 1)]);
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.failures, []);

    std::fs::remove_file(file.path()).unwrap();
    let mut sink = publisher.into_sink();
    let failure = sink.reopen().await.unwrap_err();
    assert_eq!((failure.label, failure.remedy), ("kafka_configuration", Remedy::Hold));
    assert!(failure.text.contains("sasl.password: file:"), "{failure}");
}

#[tokio::test]
async fn a_secret_that_changes_ends_the_session_in_order_and_the_next_one_has_it() {
    let options = Options::default().listener(Listener::Scram);
    let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options))
        .await
        .unwrap();
    let topic = server::create_topic(&cluster.bootstrap(), "changed", 1, &[]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), server::PASSWORD).unwrap();
    let source = format!("file:{}", file.path().display());
    let properties = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanisms", "SCRAM-SHA-512"),
        ("sasl.username", server::USER),
        ("sasl.password", source.as_str()),
    ];
    let mut sink = sink_with(&cluster.brokers(Listener::Scram), &properties);
    sink.reopen().await.unwrap();
    sink.enqueue(message(&topic, 1)).unwrap();
    assert_goes_on(&mut sink).await;

    // The connection that there is goes on with the old one; the next would not.
    cluster.set_scram_password("a-new-one");
    std::fs::write(file.path(), "a-new-one\n").unwrap();
    let mut settled = Vec::new();
    let over = timeout(DEADLINE, sink.settle(&mut settled)).await.unwrap().unwrap_err();
    assert_eq!((over.label, over.remedy), ("kafka_certificates_changed", Remedy::Retry));
    let mut publisher = Publisher::new(sink, [message(&topic, 2)]);
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.failures, []);
    assert_in_order(&server::read_all(&cluster.bootstrap(), &topic), 1..=2);
}

#[tokio::test]
async fn a_renewed_certificate_ends_the_session_in_order_and_the_next_one_has_it() {
    let options = Options::default().listener(Listener::MutualTls);
    let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options))
        .await
        .unwrap();
    let topic = server::create_topic(&cluster.bootstrap(), "renewed", 1, &[]).await;
    let file = |name: &str| cluster.certificates().path(name).display().to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let tls = [
        ("security.protocol", "ssl"),
        ("ssl.ca.location", ca.as_str()),
        ("ssl.certificate.location", certificate.as_str()),
        ("ssl.key.location", key.as_str()),
    ];
    let mut sink = sink_with(&cluster.brokers(Listener::MutualTls), &tls);
    sink.reopen().await.unwrap();
    sink.enqueue(message(&topic, 1)).unwrap();
    assert_goes_on(&mut sink).await;

    // Half of a pair is of no use, and costs nothing.
    let old = std::fs::read(&certificate).unwrap();
    cluster.certificates().renew_client();
    let new = std::fs::read(&certificate).unwrap();
    std::fs::write(&certificate, &old).unwrap();
    let mut settled = Vec::new();
    let over = timeout(Duration::from_secs(8), sink.settle(&mut settled)).await;
    assert!(over.is_err(), "{over:?}");
    sink.enqueue(message(&topic, 2)).unwrap();
    assert_goes_on(&mut sink).await;

    std::fs::write(&certificate, new).unwrap();
    let over = timeout(DEADLINE, sink.settle(&mut settled)).await.unwrap().unwrap_err();
    assert_eq!((over.label, over.remedy), ("kafka_certificates_changed", Remedy::Retry));
    let mut publisher = Publisher::new(sink, [message(&topic, 3)]);
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.failures, []);
    assert_in_order(&server::read_all(&cluster.bootstrap(), &topic), 1..=3);
}

#[tokio::test]
async fn a_password_that_is_put_right_at_the_broker_lets_the_route_go_on() {
    let options = Options::default().listener(Listener::Scram);
    let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options))
        .await
        .unwrap();
    let topic = server::create_topic(&cluster.bootstrap(), "password", 1, &[]).await;
    let properties = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanisms", "SCRAM-SHA-512"),
        ("sasl.username", server::USER),
        ("sasl.password", "a-new-one"),
    ];
    let mut sink = sink_with(&cluster.brokers(Listener::Scram), &properties);
    let trouble = trouble_with(&mut sink, message(&topic, 1)).await;
    assert_eq!(trouble.label, "kafka_authentication", "{trouble}");

    cluster.set_scram_password("a-new-one");
    assert_goes_on(&mut sink).await;
}
