//! Routes to Kafka and to RabbitMQ side by side: what is down holds back nothing of the other.

use super::DRAINED;
use crate::support::{
    census::assert_delivered,
    forebay::{EXCHANGE, Forebay, Setup, kafka_route, rabbitmq_route, wait_until},
    kafka::{self, create_topic},
    rabbitmq::{self, QUORUM, read_all},
    sender::Sender,
    topic::read_to_end,
};

fn backlog(forebay: &Forebay, route: &str) -> u64 {
    let status = forebay.status();
    let mut routes = status["routes"].as_array().expect("/status lists the routes").iter();
    let found = routes.find(|one| one["name"] == route).expect("the route is listed");
    found["backlog_records"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down_holds_back_nothing_of_the_other() {
    let (kafka_broker, rabbitmq_broker) =
        tokio::task::spawn_blocking(|| (kafka::Cluster::single(), rabbitmq::Cluster::single()))
            .await
            .unwrap();
    let (mut kafka_broker, mut rabbitmq_broker) = (kafka_broker, rabbitmq_broker);
    let topic = create_topic(&kafka_broker.bootstrap(), "both", 4, &[]).await;
    let vhost = rabbitmq_broker.vhost("both");
    let queues = vhost.topology(EXCHANGE, 4, QUORUM);
    let routes = [
        kafka_route("streams", &kafka_broker.bootstrap(), &topic),
        rabbitmq_route("queues", &vhost.uris(), 4),
    ];
    let setup = Setup::publishing(&routes.concat());
    let forebay = setup.start();
    let sender = Sender::start(setup.public, 8, 500, 200);
    sender.wait_until_acknowledged(500);

    for (down, other) in [("streams", "queues"), ("queues", "streams")] {
        match down {
            "streams" => kafka_broker.kill(0),
            _ => rabbitmq_broker.kill(0),
        }
        wait_until(&format!("{down} piles up"), DRAINED, || backlog(&forebay, down) > 2_000);
        let behind = backlog(&forebay, other);
        assert!(behind < 1_000, "{other} is held back: {behind} records");
        match down {
            "streams" => kafka_broker.restart(0),
            _ => rabbitmq_broker.restart(&[0]),
        }
        wait_until(&format!("{down} catches up"), DRAINED, || backlog(&forebay, down) < 500);
    }
    let outcome = sender.stop();
    assert_eq!(outcome.unanswered, 0);
    forebay.wait_until_drained(DRAINED);
    assert_delivered(&read_to_end(&kafka_broker.bootstrap(), &topic), &outcome);
    assert_delivered(&read_all(&vhost.uri(), &queues).await, &outcome);
}
