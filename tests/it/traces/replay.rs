//! A trace outlasts the process: its context is on disk with the event.

use std::time::Duration;

use super::{
    DRAINED, PATH, SENDER, TRACE, about, named, read_queues, read_topic, send, send_traced, traceparent, tracing,
};
use crate::support::{
    collector::Collector,
    forebay::{EXCHANGE, Setup, kafka_route, rabbitmq_route, wait_until},
    kafka::{self, create_topic},
    rabbitmq::{self, QUORUM},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_published_after_a_restart_is_still_of_its_trace() {
    let (kafka_broker, rabbitmq_broker) =
        tokio::task::spawn_blocking(|| (kafka::Cluster::single(), rabbitmq::Cluster::single()))
            .await
            .unwrap();
    let mut kafka_broker = kafka_broker;
    let brokers = kafka_broker.bootstrap();
    let topic = create_topic(&brokers, "replay", 1, &[]).await;
    let vhost = rabbitmq_broker.vhost("replay");
    let queues = vhost.topology(EXCHANGE, 1, QUORUM);
    let collector = Collector::start();
    let routes = [
        kafka_route("streams", &brokers, &topic),
        rabbitmq_route("queues", &vhost.uris(), 1),
        tracing(&collector.endpoint(), 0.0),
    ];
    let setup = Setup::publishing(&routes.concat());
    let mut forebay = setup.start();
    assert_eq!(send(&setup, "early", ""), 200);
    forebay.wait_until_drained(DRAINED);
    kafka_broker.kill(0);
    // In order: a quorum queue that is as young as this one does not always survive a kill of its only node.
    rabbitmq_broker.stop_app(0);
    assert_eq!(send_traced(&setup, "late", &traceparent()), 200);
    let before = collector.trace(TRACE, 2);
    let request = named(&before, &format!("POST {PATH}"));
    assert_eq!(request.parent_id, SENDER);
    forebay.kill();

    kafka_broker.restart(0);
    rabbitmq_broker.start_app(0);
    let forebay = setup.start();
    forebay.wait_until_drained(DRAINED);
    for (destination, messages) in [
        (&*topic, read_topic(&brokers, &topic)),
        (EXCHANGE, read_queues(&vhost.uri(), &queues).await),
    ] {
        let name = format!("send {destination}");
        // A broker that has only just come back may refuse a message at first.
        let confirmed = || {
            collector
                .spans()
                .into_iter()
                .find(|span| span.name == name && !span.is_error)
        };
        wait_until(&name, Duration::from_secs(30), || confirmed().is_some());
        let sent = confirmed().unwrap();
        assert_eq!((&*sent.trace_id, &sent.parent_id), (TRACE, &request.span_id));
        let waited_ms: u64 = sent.attributes["forebay.waited_ms"].parse().unwrap();
        assert!(waited_ms > 1_000, "{sent:#?}");
        let message = about(&messages, "late");
        assert_eq!(message.header(), Some(&*format!("00-{TRACE}-{}-01", sent.span_id)));
        assert_eq!(
            message.extension(),
            Some(&*format!("00-{TRACE}-{}-01", request.span_id))
        );
    }
}
