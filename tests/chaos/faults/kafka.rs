//! What goes wrong at Kafka.

use std::{thread::sleep, time::Duration};

use forebay_test_support::{
    forebay::wait_until,
    kafka::{self, Version},
    sender::Load,
};

use super::brokers;
use crate::{
    broker::{BrokerKind, BrokerPlan, PARTITIONS},
    scenario::{AROUND, AllowedLetters, LANDED, Scenario, Stage},
    subject::SubjectKind::{Forebay, Naive},
};

const MADE: Duration = Duration::from_secs(30);

const BASE: Scenario = Scenario::KAFKA;
const THREE: BrokerPlan = BrokerPlan {
    nodes: 3,
    ..BASE.broker
};
const LOGIN: BrokerPlan = BrokerPlan {
    login: true,
    ..BASE.broker
};
const OLD: BrokerPlan = BrokerPlan {
    kind: BrokerKind::Kafka(Version::V3),
    ..BASE.broker
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "none",
        subjects: &[Forebay, Naive],
        ..BASE
    },
    Scenario {
        name: "the broker is killed, and is back after ten minutes",
        subjects: &[Forebay, Naive],
        cause: brokers::down_for_minutes,
        ..BASE
    },
    Scenario {
        name: "the broker is killed and comes back",
        subjects: &[Forebay, Naive],
        broker: OLD,
        cause: brokers::killed,
        ..BASE
    },
    Scenario {
        name: "the broker hangs (SIGSTOP)",
        quick: true,
        subjects: &[Forebay, Naive],
        cause: brokers::hung,
        ..BASE
    },
    Scenario {
        name: "the broker hangs (SIGSTOP)",
        subjects: &[Forebay, Naive],
        broker: OLD,
        cause: brokers::hung,
        ..BASE
    },
    Scenario {
        name: "the broker is away while the process is killed",
        quick: true,
        subjects: &[Forebay, Naive],
        goes_away: true,
        cause: brokers::away_while_the_process_is_killed,
        ..BASE
    },
    Scenario {
        name: "connections are reset in mid-batch",
        subjects: &[Forebay, Naive],
        cause: brokers::reset,
        ..BASE
    },
    Scenario {
        name: "connections are reset in mid-batch",
        subjects: &[Forebay, Naive],
        broker: BrokerPlan {
            kind: OLD.kind,
            ..THREE
        },
        cause: brokers::reset,
        ..BASE
    },
    Scenario {
        name: "a broker that answers a tenth of the time",
        subjects: &[Forebay, Naive],
        cause: brokers::slow,
        ..BASE
    },
    Scenario {
        name: "three brokers are restarted one after the other",
        subjects: &[Forebay, Naive],
        broker: THREE,
        cause: brokers::rolled,
        ..BASE
    },
    Scenario {
        name: "three brokers are restarted one after the other",
        subjects: &[Forebay, Naive],
        broker: BrokerPlan {
            kind: OLD.kind,
            ..THREE
        },
        cause: brokers::rolled,
        ..BASE
    },
    Scenario {
        name: "of three brokers the leader is killed, again and again",
        subjects: &[Forebay, Naive],
        broker: THREE,
        cause: leader_killed,
        ..BASE
    },
    Scenario {
        name: "the topic is deleted and made again",
        cure: "the topic is made",
        // The process is held for the moment in which the oracle reads.
        allowed: &[503],
        cause: topic_deleted,
        ..BASE
    },
    Scenario {
        name: "partitions are added",
        streams_move: true,
        cause: partitions_added,
        ..BASE
    },
    Scenario {
        name: "rights are revoked and given back",
        broker: LOGIN,
        cure: "the rights are given back",
        cause: brokers::rights_revoked,
        ..BASE
    },
    Scenario {
        name: "the password is changed",
        broker: LOGIN,
        cure: "the new one is put into its file",
        cause: brokers::password_changed,
        ..BASE
    },
    Scenario {
        name: "messages too large among small ones",
        quick: true,
        load: Load {
            large: brokers::LARGE,
            ..BASE.load
        },
        dead_letters: AllowedLetters::Large,
        cause: brokers::limited,
        ..BASE
    },
];

fn leader_killed(stage: &mut Stage) {
    let topic = stage.forebay().kind.topic();
    for _ in 0..stage.scale.pick(2, 5) {
        let bootstrap = stage.broker.bootstrap();
        let leader = kafka::leader(&bootstrap, topic).expect("somebody leads");
        stage.broker.kill(leader);
        wait_until("another one leads", MADE, || {
            kafka::leader(&bootstrap, topic).is_some_and(|next| next != leader)
        });
        sleep(AROUND);
        stage.broker.restart(leader);
        kafka::wait_for_replicas_in_sync(&bootstrap, topic, 3, MADE);
    }
}

/// What was in the topic is gone with it, by its operator's hand: the oracle reads it before, while nothing comes.
fn topic_deleted(stage: &mut Stage) {
    let topic = stage.forebay().kind.topic();
    let bootstrap = stage.broker.bootstrap();
    stage.forebay().signal("STOP");
    sleep(LANDED);
    stage.take_what_there_is();
    stage.runtime.block_on(kafka::delete_topic(&bootstrap, topic));
    stage.forebay().signal("CONT");
    brokers::assert_blocked(stage);
    sleep(stage.scale.outage() / 2);
    stage.broker.make_topic(stage.runtime, topic);
}

fn partitions_added(stage: &mut Stage) {
    let topic = stage.forebay().kind.topic();
    let bootstrap = stage.broker.bootstrap();
    stage
        .runtime
        .block_on(kafka::add_partitions(&bootstrap, topic, PARTITIONS * 2));
    wait_until("the partitions are there", MADE, || {
        kafka::partitions(&bootstrap, topic) == PARTITIONS * 2
    });
    sleep(stage.scale.outage() / 2);
}
