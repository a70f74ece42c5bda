//! The faults, and how each is felt.

use std::{
    collections::{HashMap, HashSet},
    thread::sleep,
    time::{Duration, Instant},
};

use forebay_test_support::{
    kafka::{Cluster, Read, create_topic_named, read_all, wait_for_brokers},
    sender::{Outcome, Sender},
};
use serde_json::Value;

use super::{
    report::MatrixRow,
    subject::{Subject, SubjectKind},
};

const TOPIC: &str = "chaos";
const CONNECTIONS: usize = 4;
const RATE: usize = 200;
const STREAMS: usize = 40;
/// Before the fault, and after it.
const AROUND: Duration = Duration::from_secs(2);
const ARRIVED: Duration = Duration::from_secs(60);

/// How long faults last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Quick,
    Full,
}

impl Scale {
    /// How long the broker is away.
    fn outage(self) -> Duration {
        match self {
            Self::Quick => Duration::from_secs(8),
            Self::Full => Duration::from_secs(30),
        }
    }

    fn times(self) -> usize {
        match self {
            Self::Quick => 3,
            Self::Full => 10,
        }
    }
}

/// A fault.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    cause: fn(&mut Stage, Scale),
}

/// What a fault is done to.
struct Stage {
    cluster: Cluster,
    subject: Subject,
}

impl Stage {
    /// The fault is there: nobody answers for the broker.
    fn assert_broker_away(&self) {
        let found = wait_for_brokers(&self.cluster.bootstrap(), 1, Duration::from_secs(1));
        assert!(found.is_err(), "the broker answers");
    }
}

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "none",
        cause: |_, _| sleep(AROUND),
    },
    Scenario {
        name: "the process is killed, again and again",
        cause: |stage, scale| {
            for _ in 0..scale.times() {
                stage.subject.restart(false);
                sleep(AROUND);
            }
        },
    },
    Scenario {
        name: "the process is stopped in order, again and again",
        cause: |stage, scale| {
            for _ in 0..scale.times() {
                stage.subject.restart(true);
                sleep(AROUND);
            }
        },
    },
    Scenario {
        name: "the broker hangs (SIGSTOP)",
        cause: |stage, scale| {
            stage.cluster.freeze(0);
            stage.assert_broker_away();
            sleep(scale.outage());
            stage.cluster.thaw(0);
        },
    },
    Scenario {
        name: "the broker is killed and comes back",
        cause: |stage, scale| {
            stage.cluster.kill(0);
            stage.assert_broker_away();
            sleep(scale.outage());
            stage.cluster.restart(0);
        },
    },
    Scenario {
        name: "the broker is away while the process is killed",
        cause: |stage, scale| {
            stage.cluster.kill(0);
            stage.assert_broker_away();
            sleep(scale.outage() / 2);
            stage.subject.restart(false);
            sleep(scale.outage() / 2);
            stage.cluster.restart(0);
        },
    },
];

/// Runs one scenario.
pub async fn run(scenario: &Scenario, kind: SubjectKind, scale: Scale) -> MatrixRow {
    let cluster = Cluster::single();
    create_topic_named(&cluster.bootstrap(), TOPIC, 3, &[]).await;
    let brokers = cluster.bootstrap();
    let subject = Subject::start(kind, &brokers, TOPIC);
    let mut stage = Stage { cluster, subject };
    let began = Instant::now();
    let sender = Sender::start_reconnecting(stage.subject.address(), CONNECTIONS, RATE, STREAMS);
    sleep(AROUND);
    let before = sender.so_far();
    assert!(
        before.count(200) > 0 && before.unanswered == 0,
        "it is well before: {before:?}"
    );
    (scenario.cause)(&mut stage, scale);
    let passed = Instant::now();
    sleep(AROUND);
    let due = (began.elapsed().as_secs_f64() * RATE as f64) as usize;
    let outcome = sender.stop();
    let mut last_change = passed;
    let mut read = Vec::new();
    // Until all that was answered 200 is there, and nothing comes any more.
    while passed.elapsed() < ARRIVED {
        let now = read_all(&brokers, TOPIC);
        if now.len() != read.len() {
            last_change = Instant::now();
        }
        read = now;
        let is_there = lost(&outcome, &feeds(&read)) == 0;
        if is_there && last_change.elapsed() > Duration::from_secs(3) {
            break;
        }
        sleep(Duration::from_millis(500));
    }
    judge(scenario, kind, (due, &outcome), &read, last_change - passed)
}

/// Each message's stream and feed.
fn feeds(read: &[Read]) -> Vec<(String, String)> {
    let feed = |read: &Read| {
        let event: Value = serde_json::from_slice(&read.value).unwrap();
        let feed = event["data"]["feedId"].as_str().unwrap().to_owned();
        (read.key.clone(), feed)
    };
    read.iter().map(feed).collect()
}

fn lost(outcome: &Outcome, feeds: &[(String, String)]) -> usize {
    let there: HashSet<&String> = feeds.iter().map(|(_, feed)| feed).collect();
    outcome.acknowledged.iter().filter(|feed| !there.contains(feed)).count()
}

fn judge(
    scenario: &Scenario,
    kind: SubjectKind,
    (due, outcome): (usize, &Outcome),
    read: &[Read],
    back: Duration,
) -> MatrixRow {
    let feeds = feeds(read);
    let mut seen = HashSet::new();
    let mut newest: HashMap<&str, &str> = HashMap::new();
    let mut in_order = true;
    for (stream, feed) in &feeds {
        if !seen.insert(feed.as_str()) {
            continue;
        }
        // A sender's feeds of a stream have numbers that rise.
        let before = newest.insert(stream, feed);
        in_order &= before.is_none_or(|before| before < feed.as_str());
    }
    let sent = outcome.answers.values().sum::<usize>() + outcome.unanswered;
    let due = due.max(sent);
    MatrixRow {
        fault: scenario.name,
        subject: kind,
        due,
        answered: outcome.count(200),
        arrived: seen.len(),
        lost: lost(outcome, &feeds),
        gone: due - seen.len() - lost(outcome, &feeds),
        twice: feeds.len() - seen.len(),
        in_order,
        back,
        saw: saw(outcome),
    }
}

/// What the sender saw but 200.
fn saw(outcome: &Outcome) -> String {
    let codes = outcome.answers.iter().filter(|(code, _)| **code != 200);
    let mut saw: Vec<String> = codes.map(|(code, count)| format!("{count} × {code}")).collect();
    if outcome.unanswered > 0 {
        saw.push(format!("{} without an answer", outcome.unanswered));
    }
    saw.join(", ")
}
