//! TLS with a private CA, certificates in place of passwords, several nodes.

use forebay_broker::{Remedy, Sink};
use forebay_rabbitmq::RabbitMqTls;
use forebay_section::TextSource;
use forebay_test_support::rabbitmq::{CERTIFIED_USER, Cluster, Options, PASSWORD, QUORUM, USER, read_all};

use super::publisher::{DEADLINE, EXCHANGE, Publisher, assert_in_order, configuration, message, new_sink};

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_authenticate_works_and_a_wrong_one_is_named() {
    let cluster = Cluster::start(&Options {
        tls: true,
        ..Options::default()
    });
    let vhost = cluster.vhost("secured");
    let queues = vhost.topology(EXCHANGE, 1, QUORUM);
    vhost.admit(CERTIFIED_USER, "unused");
    let file = |name: &str| Some(cluster.certificates().path(name));
    let with_ca = RabbitMqTls {
        ca_file: file("ca.pem"),
        ..RabbitMqTls::default()
    };
    let with_certificate = RabbitMqTls {
        certificate_file: file("client.pem"),
        key_file: file("client.key"),
        ..with_ca.clone()
    };
    let tls = |user: &str, password: &str| vhost.uri_of("amqps", &cluster.tls_address(), user, password);
    let nobody = format!("amqps://{}/{}", cluster.tls_address(), vhost.name);
    let plain = |user: &str, password: &str| vhost.uri_of("amqp", &cluster.broker().nodes[0], user, password);
    let config = |uri: &str, tls: &RabbitMqTls| {
        let mut config = configuration(&[uri.to_owned()], 1);
        config.tls = tls.clone();
        config
    };
    let mut apart = config(&plain("nobody", "wrong-horse"), &RabbitMqTls::default());
    apart.username = Some(TextSource::Inline(USER.into()));
    apart.password = Some(TextSource::Inline(PASSWORD.into()));
    let mut several = configuration(&["amqp://127.0.0.1:1/x".to_owned(), plain(USER, PASSWORD)], 1);
    several.tls = RabbitMqTls::default();

    let good = [
        config(&plain(USER, PASSWORD), &RabbitMqTls::default()),
        apart,
        config(&tls(USER, PASSWORD), &with_ca),
        config(&tls(USER, PASSWORD), &with_certificate),
        config(&nobody, &with_certificate),
        several,
    ];
    let count = good.len() as u64;
    for (n, config) in (1..).zip(&good) {
        let mut publisher = Publisher::new(new_sink(config), [message(n)]);
        publisher.drain(DEADLINE).await;
        assert_eq!(publisher.failures, [], "{config:?}");
    }
    assert_in_order(&read_all(&vhost.uri(), &queues).await, 1..=count);

    let nowhere = plain(USER, PASSWORD).replace(&vhost.name, "nowhere");
    let bad = [
        (
            config(&plain(USER, "wrong-horse"), &RabbitMqTls::default()),
            "rabbitmq_authentication",
        ),
        (config(&tls(USER, "wrong-horse"), &with_ca), "rabbitmq_authentication"),
        (config(&tls(USER, PASSWORD), &RabbitMqTls::default()), "rabbitmq_tls"),
        (config(&nowhere, &RabbitMqTls::default()), "rabbitmq_vhost"),
        (
            configuration(&["amqp://127.0.0.1:1/x".to_owned()], 1),
            "rabbitmq_unreachable",
        ),
    ];
    for (config, label) in &bad {
        let failure = new_sink(config).reopen().await.expect_err(label);
        assert_eq!((failure.label, failure.remedy), (*label, Remedy::Hold), "{failure}");
        assert!(!failure.text.contains("wrong-horse"));
    }
}
