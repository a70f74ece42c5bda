//! What goes wrong at RabbitMQ.

use std::thread::sleep;

use forebay_test_support::{forebay::EXCHANGE, rabbitmq::Version, sender::Load};

use super::brokers;
use crate::{
    broker::{BrokerKind, BrokerPlan, PARTITIONS},
    scenario::{AllowedLetters, Scenario, Stage},
};

const BASE: Scenario = Scenario::RABBITMQ;
const OLD: BrokerPlan = BrokerPlan {
    kind: BrokerKind::RabbitMq(Version::Usual),
    ..BASE.broker
};
const THREE: BrokerPlan = BrokerPlan { nodes: 3, ..OLD };

pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "none", ..BASE },
    Scenario {
        name: "the broker is killed, and is back after ten minutes",
        cause: brokers::down_for_minutes,
        ..BASE
    },
    Scenario {
        name: "the broker is killed and comes back",
        quick: true,
        broker: OLD,
        cause: brokers::killed,
        ..BASE
    },
    Scenario {
        name: "the broker hangs (SIGSTOP)",
        cause: brokers::hung,
        ..BASE
    },
    Scenario {
        name: "the broker hangs (SIGSTOP)",
        broker: OLD,
        cause: brokers::hung,
        ..BASE
    },
    Scenario {
        name: "the broker is away while the process is killed",
        goes_away: true,
        cause: brokers::away_while_the_process_is_killed,
        ..BASE
    },
    Scenario {
        name: "connections are reset in mid-batch",
        cause: brokers::reset,
        ..BASE
    },
    Scenario {
        name: "connections are reset in mid-batch",
        broker: OLD,
        cause: brokers::reset,
        ..BASE
    },
    Scenario {
        name: "a broker that answers a tenth of the time",
        cause: brokers::slow,
        ..BASE
    },
    Scenario {
        name: "three nodes are restarted one after the other",
        broker: THREE,
        cause: brokers::rolled,
        ..BASE
    },
    Scenario {
        name: "a memory alarm blocks whoever publishes",
        cause: alarm,
        ..BASE
    },
    Scenario {
        name: "the exchange is deleted and made again",
        cure: "the exchange and its bindings are made; dead letters of the moment between are redriven",
        dead_letters: AllowedLetters::Some,
        cause: exchange_deleted,
        ..BASE
    },
    Scenario {
        name: "the exchange is deleted and made again",
        broker: OLD,
        cure: "the exchange and its bindings are made; dead letters of the moment between are redriven",
        dead_letters: AllowedLetters::Some,
        cause: exchange_deleted,
        ..BASE
    },
    Scenario {
        name: "a queue is full for a while, and refuses",
        broker: OLD,
        cure: "the queue has room",
        cause: queue_full,
        ..BASE
    },
    Scenario {
        name: "rights are revoked and given back",
        cure: "the rights are given back",
        cause: brokers::rights_revoked,
        ..BASE
    },
    Scenario {
        name: "the password is changed",
        cure: "the new one is put into its file",
        cause: brokers::password_changed,
        ..BASE
    },
    Scenario {
        name: "messages too large among small ones",
        load: Load {
            large: brokers::LARGE,
            ..BASE.load
        },
        dead_letters: AllowedLetters::Large,
        cause: brokers::limited,
        ..BASE
    },
    Scenario {
        name: "messages too large among small ones",
        broker: OLD,
        load: Load {
            large: brokers::LARGE,
            ..BASE.load
        },
        dead_letters: AllowedLetters::Large,
        cause: brokers::limited,
        ..BASE
    },
];

fn alarm(stage: &mut Stage) {
    stage.broker.rabbitmq().0.alarm(0, true);
    brokers::assert_behind(stage);
    sleep(stage.scale.outage());
    stage.broker.rabbitmq().0.alarm(0, false);
}

/// Queues stay; what leads to them goes, and comes back.
fn exchange_deleted(stage: &mut Stage) {
    stage.broker.rabbitmq().1.delete_exchange(EXCHANGE);
    brokers::assert_blocked(stage);
    sleep(stage.scale.outage() / 2);
    let (_, vhost) = stage.broker.rabbitmq();
    vhost.declare_exchange(EXCHANGE);
    vhost.bind_partitions(EXCHANGE, PARTITIONS);
}

/// One of the queues takes no more than five.
fn queue_full(stage: &mut Stage) {
    stage.broker.rabbitmq().1.limit_queues("^forebay[.]00$", Some(5));
    brokers::assert_behind(stage);
    sleep(stage.scale.outage());
    stage.broker.rabbitmq().1.limit_queues("", None);
}
