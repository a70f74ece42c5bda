//! Two instances of a service, with one database: what one leaves the other takes over, and nothing is told twice.

use std::collections::HashSet;

use serde_json::Value;

use super::{CAUGHT_UP, DRAINED, queues_of, send};
use crate::support::{
    consumers::{self, Broker, Service, Source},
    forebay::{EXCHANGE, Setup, wait_until},
    kafka::{self, create_topic},
    oracle,
    rabbitmq::{self, QUORUM, Vhost, read_all},
    topic::read_to_end,
};

const PARTITIONS: usize = 4;

/// Of both instances together: what can happen once has been told once.
fn assert_told_once(services: &[Service], twins: &[Service]) {
    for (service, twin) in services.iter().zip(twins) {
        let mut told = HashSet::new();
        for transition in service.transitions().into_iter().chain(twin.transitions()) {
            let type_ = transition["type"].as_str().unwrap();
            if !["WentLive", "WentOffline", "TranscoderChanged", "ViewersChanged"].contains(&type_) {
                let again = format!("{}: told twice: {transition}", service.name);
                assert!(told.insert(transition.to_string()), "{again}");
            }
        }
        assert!(told.len() > 100, "{}: {} transitions", service.name, told.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_instances_of_a_group_one_goes_on_with_what_the_other_had() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "instances", PARTITIONS as i32, &[]).await;
    let setup = Setup::new(&brokers, &topic);
    let forebay = setup.start();
    let source = Source::Kafka {
        brokers: brokers.clone(),
        topic: topic.clone(),
    };
    let mut services: Vec<Service> = consumers::of(Broker::Kafka)
        .filter_map(|consumer| consumer.start(&source))
        .collect();
    let mut seeds = 1..;
    let mut send_more = || send(&setup.url(), seeds.next().unwrap());
    send_more();
    wait_until("every service tells something", CAUGHT_UP, || {
        services.iter().all(|service| !service.transitions().is_empty())
    });
    let twins: Vec<Service> = services.iter().map(Service::twin).collect();
    wait_until("partitions move to every twin", CAUGHT_UP, || {
        send_more();
        twins.iter().all(|twin| !twin.transitions().is_empty())
    });
    services.iter_mut().for_each(Service::kill);
    send_more();
    forebay.wait_until_drained(DRAINED);
    let expected = oracle::states(&read_to_end(&brokers, &topic));
    consumers::assert_states(&services, &expected, CAUGHT_UP);
    assert_told_once(&services, &twins);
}

/// Waits until every queue has so many consumers, of which one is active.
fn wait_for_consumers(vhost: &Vhost, queues: &[String], count: u64) {
    for queue in queues {
        wait_until(&format!("{count} consumers of {queue}"), CAUGHT_UP, || {
            let path = format!("/queues/{}/{queue}", vhost.name);
            vhost.broker.api("GET", &path, &Value::Null)["consumers"] == count
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_instances_at_a_queue_one_waits_until_the_other_is_gone() {
    let vhost = rabbitmq::shared().vhost("instances");
    let everything = vhost.topology(EXCHANGE, PARTITIONS, QUORUM);
    let setup = Setup::rabbitmq(&vhost.uris(), PARTITIONS);
    let forebay = setup.start();
    let start = |consumer: &consumers::Consumer| {
        let queues = queues_of(consumer.name, &vhost, PARTITIONS);
        let uri = vhost.uri();
        let source = Source::RabbitMq {
            uri,
            queues: queues.clone(),
        };
        Some((consumer.start(&source)?, queues))
    };
    let (mut services, queues): (Vec<Service>, Vec<Vec<String>>) =
        consumers::of(Broker::RabbitMq).filter_map(start).unzip();
    let queues = queues.concat();
    wait_for_consumers(&vhost, &queues, 1);
    let twins: Vec<Service> = services.iter().map(Service::twin).collect();
    wait_for_consumers(&vhost, &queues, 2);
    send(&setup.url(), 1);
    services
        .iter_mut()
        .for_each(|service| service.wait_for_transitions(100));
    for twin in &twins {
        assert!(twin.transitions().is_empty(), "{}: it is not the active one", twin.name);
    }
    // Both lose their connections, and come back.
    wait_until("connections are listed", CAUGHT_UP, || vhost.close_connections() > 0);
    send(&setup.url(), 2);
    wait_for_consumers(&vhost, &queues, 2);
    services.iter_mut().for_each(Service::kill);
    send(&setup.url(), 3);
    forebay.wait_until_drained(DRAINED);
    let expected = oracle::states(&read_all(&vhost.uri(), &everything).await);
    consumers::assert_states(&services, &expected, CAUGHT_UP);
    assert_told_once(&services, &twins);
    for twin in &twins {
        assert!(!twin.transitions().is_empty(), "{}: it took over", twin.name);
        assert!(twin.log().contains("again in"), "{}: it was cut off", twin.name);
    }
}
