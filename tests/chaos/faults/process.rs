//! What goes wrong with Forebay's own process.

use std::{
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    thread::sleep,
    time::{Duration, Instant},
};

use forebay_test_support::{
    cgroup::MemoryGroup,
    disk::run,
    forebay::wait_until,
    sender::Load,
    siege::{NOBODY, Siege, Strength},
};

use crate::{
    scenario::{AROUND, Group, Scenario, Stage},
    subject::SubjectKind::{Forebay, Naive, TwoReplicas},
};

const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

const BASE: Scenario = Scenario {
    group: Group::Process,
    ..Scenario::KAFKA
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the process is killed, again and again",
        quick: true,
        subjects: &[Forebay, Naive],
        goes_away: true,
        cause: killed,
        ..BASE
    },
    Scenario {
        name: "the process is stopped in order, again and again",
        subjects: &[Forebay, Naive],
        goes_away: true,
        cause: stopped,
        ..BASE
    },
    Scenario {
        name: "the same, and its socket is handed over (systemd)",
        configure: |setup| setup.handing_over(),
        cause: stopped,
        ..BASE
    },
    Scenario {
        name: "two replicas are rolled",
        quick: true,
        subjects: &[TwoReplicas],
        cause: rolled,
        ..BASE
    },
    Scenario {
        name: "the configuration is changed while it runs, again and again",
        cause: reloaded,
        ..BASE
    },
    Scenario {
        name: "its memory limit kills it",
        goes_away: true,
        cause: out_of_memory,
        ..BASE
    },
    Scenario {
        name: "it is out of file descriptors",
        // Kept connections have theirs; new ones wait, or are refused.
        load: Load {
            keeps: true,
            ..BASE.load
        },
        goes_away: true,
        cause: out_of_descriptors,
        ..BASE
    },
];

fn killed(stage: &mut Stage) {
    for _ in 0..stage.scale.pick(4, 20) {
        stage.sleep_up_to(AROUND);
        stage.subjects.iter_mut().for_each(|subject| subject.restart(false));
    }
}

fn stopped(stage: &mut Stage) {
    for _ in 0..stage.scale.pick(3, 10) {
        stage.sleep_up_to(AROUND);
        stage.subjects.iter_mut().for_each(|subject| subject.restart(true));
    }
}

fn rolled(stage: &mut Stage) {
    for _ in 0..stage.scale.pick(2, 5) {
        stage.forebay().roll();
        sleep(Duration::from_millis(300));
    }
}

/// A route more, a route less, each time with another secret beside the one that is used.
fn reloaded(stage: &mut Stage) {
    const MORE: &str = "\n[routes.nothing]\ndiscard = true\nmatch = { kinds = [\"media\"] }\n";
    let times = stage.scale.pick(4, 20);
    let dir = stage.forebay().dir.path().to_owned();
    let route = stage.broker.route(stage.subjects[0].kind.topic(), &dir);
    let replica = &mut stage.subjects[0].replicas()[0];
    for time in 0..times {
        let applied =
            |replica: &crate::subject::Replica| replica.running.log().matches("the configuration was applied").count();
        let before = applied(replica);
        replica.setup.change(&match time % 2 {
            0 => format!("{route}{MORE}"),
            _ => route.clone(),
        });
        replica.setup.secrets.truncate(1);
        replica
            .setup
            .secrets
            .push(format!("base64:{}", "QUFB".repeat(8 + time)));
        replica.setup.config();
        replica.running.signal("HUP");
        wait_until("the configuration is applied", SOON, || applied(replica) > before);
        sleep(Duration::from_millis(300));
    }
}

/// A limit below what its bodies may take, and strangers who send large ones; then one that it can keep to.
fn out_of_memory(stage: &mut Stage) {
    let Some(group) = MemoryGroup::new("chaos", 40 * MIB) else {
        return;
    };
    let address = stage.forebay().address();
    let replica = &mut stage.subjects[0].replicas()[0];
    replica.running.kill();
    replica.setup.wrapper = group.wrapper();
    replica.start();
    sleep(AROUND);
    let strangers = Strength { large: 6, ..NOBODY };
    let siege = Siege::begin(address, replica.setup.admin, strangers, None);
    let status = replica.running.wait(Duration::from_secs(60));
    drop(siege);
    assert_eq!(status.signal(), Some(9), "the kernel kills it: {status}");
    replica.setup.wrapper.clear();
    replica.start();
}

/// It may open hardly a file more than it has; others take those.
fn out_of_descriptors(stage: &mut Stage) {
    let period = stage.scale.outage() / 2;
    let address = stage.forebay().address();
    let replica = &mut stage.subjects[0].replicas()[0];
    let pid = replica.running.pid();
    let files = format!("/proc/{pid}/fd");
    let open = std::fs::read_dir(&files).unwrap().count();
    run(
        "prlimit",
        &["--pid", &pid.to_string(), &format!("--nofile={}:", open + 4)],
    );
    let began = Instant::now();
    let (mut taken, mut most) = (Vec::new(), 0);
    while began.elapsed() < period {
        taken.extend(TcpStream::connect(address).ok());
        most = most.max(std::fs::read_dir(&files).unwrap().count());
        sleep(Duration::from_millis(20));
    }
    assert!(most >= open + 3, "{most} files are open, and {open} were before");
}
