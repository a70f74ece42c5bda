//! Who comes to the front beside the sender.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

use forebay_test_support::{
    forebay::{PATH, Setup, wait_until},
    sender::{Load, sign, webhook},
    siege::{NOBODY, Siege, Strength},
    smuggling,
};

use crate::scenario::{AROUND, Group, Scenario, Stage};

/// By when a request that never ends has been given up.
const GIVEN_UP: Duration = Duration::from_secs(20);
const STALLED: usize = 1000;

const BASE: Scenario = Scenario {
    group: Group::Front,
    // As a sender's proxy has them; strangers' are new.
    load: Load {
        keeps: true,
        ..Scenario::KAFKA.load
    },
    configure: roomy,
    ..Scenario::KAFKA
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "none",
        cause: |stage| sleep(stage.scale.outage()),
        ..BASE
    },
    Scenario {
        name: "1,000 silent connections, 250 halves of heads, 125 that ask for nothing",
        cause: |stage| {
            besiege(
                stage,
                Strength {
                    idle: STALLED,
                    ..NOBODY
                },
            )
        },
        ..BASE
    },
    Scenario {
        name: "1,000 large heads that do not end",
        cause: |stage| {
            besiege(
                stage,
                Strength {
                    heads: STALLED,
                    ..NOBODY
                },
            )
        },
        ..BASE
    },
    Scenario {
        name: "1,000 bodies that are declared and dribble",
        cause: |stage| {
            besiege(
                stage,
                Strength {
                    declaring: STALLED,
                    ..NOBODY
                },
            )
        },
        ..BASE
    },
    Scenario {
        name: "1,000 connections with pipelined requests whose answers nobody reads",
        cause: |stage| {
            besiege(
                stage,
                Strength {
                    pipelining: STALLED,
                    ..NOBODY
                },
            )
        },
        ..BASE
    },
    Scenario {
        name: "1,000 halves of heads at the operator's port",
        cause: |stage| {
            besiege(
                stage,
                Strength {
                    admin: STALLED,
                    ..NOBODY
                },
            )
        },
        ..BASE
    },
    Scenario {
        name: "wrong signatures on 16 connections, as fast as they are answered",
        quick: true,
        cause: |stage| besiege(stage, Strength { flood: 16, ..NOBODY }),
        ..BASE
    },
    Scenario {
        name: "wrong signatures over 16 MiB, again and again",
        cause: |stage| besiege(stage, Strength { large: 2, ..NOBODY }),
        ..BASE
    },
    Scenario {
        name: "requests that two servers could read differently",
        quick: true,
        cause: smuggle,
        ..BASE
    },
    Scenario {
        name: "requests that never end, or are too large, or are in another protocol",
        cause: unfinished,
        ..BASE
    },
    Scenario {
        name: "a body that never ends, while the process is stopped in order",
        goes_away: true,
        cause: stopped_while_a_body_dribbles,
        ..BASE
    },
];

/// The limits of a process that may have many connections.
fn roomy(setup: Setup) -> Setup {
    setup.environment(&["FOREBAY__SERVER__CONNECTIONS_MAX=4000"])
}

fn besiege(stage: &mut Stage, strength: Strength) {
    let address = stage.forebay().address();
    let admin = stage.forebay().replicas()[0].setup.admin;
    let siege = Siege::begin(address, admin, strength, None);
    let there = |siege: &Siege| siege.attempts() as usize;
    let wanted = [
        strength.idle,
        strength.heads,
        strength.declaring,
        strength.pipelining,
        strength.admin,
    ];
    let wanted = wanted.into_iter().max().unwrap_or_default();
    wait_until("the strangers are there", Duration::from_secs(60), || {
        there(&siege) > wanted / 2
    });
    sleep(stage.scale.outage());
    stage.note = format!("{} attempts of strangers", there(&siege));
    assert!(there(&siege) > wanted.max(1), "{} attempts", there(&siege));
}

/// Each is refused, and its connection closed; the second request in it is never seen.
fn smuggle(stage: &mut Stage) {
    let address = stage.forebay().address();
    let body = webhook(999, "never");
    let signature = format!("x-millicast-signature: {}", sign(body.as_bytes()));
    let length = body.len();
    let whole =
        format!("POST {PATH} HTTP/1.1\r\nhost: forebay\r\n{signature}\r\ncontent-length: {length}\r\n\r\n{body}");
    let requests = smuggling::requests(PATH, &signature, &body, &whole);
    for (name, request) in &requests {
        let answers = exchange(address, request);
        let refused = answers.starts_with("HTTP/1.1 400 ") || answers.starts_with("HTTP/1.0 400 ");
        assert!(refused && !answers.contains(" 200 OK"), "{name}: {answers:?}");
    }
    assert!(!stage.feeds_at_the_broker().contains("never"), "nothing is smuggled in");
    stage.note = format!("{} forms, each 400 and closed", requests.len());
}

/// All that is answered until the connection is closed, or nothing comes for long.
fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(GIVEN_UP)).unwrap();
    // It may be closed before all of it was taken.
    let _ = stream.write_all(request.as_bytes());
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers);
    String::from_utf8_lossy(&answers).into_owned()
}

/// What FAULTS of the HTTP side are about: each is answered, or closed, in time.
fn unfinished(stage: &mut Stage) {
    let address = stage.forebay().address();
    let body = webhook(999, "unfinished");
    let signature = format!("x-millicast-signature: {}", sign(body.as_bytes()));
    let start = format!("POST {PATH} HTTP/1.1\r\nhost: forebay\r\n{signature}\r\n");
    let whole = format!("{start}content-length: {}\r\n\r\n{body}", body.len());
    let cases = [
        ("half a body", format!("{start}content-length: 500\r\n\r\nhalf"), "408"),
        (
            "half a second head",
            format!("{whole}POST {PATH} HTTP/1.1\r\nhost: fo"),
            "200",
        ),
        (
            "a gigabyte that waits to be asked for",
            format!("{start}expect: 100-continue\r\ncontent-length: 1000000000\r\n\r\n"),
            "413",
        ),
        (
            "HTTP/2 without asking",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "a body that says it is compressed, signed as it came",
            format!(
                "{start}connection: close\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
            "200",
        ),
    ];
    let threads = cases.map(|(name, request, wanted)| {
        std::thread::spawn(move || {
            let began = Instant::now();
            let answers = exchange(address, &request);
            assert!(began.elapsed() < GIVEN_UP, "{name}: open after {:?}", began.elapsed());
            assert!(answers.contains(wanted), "{name}: {answers:?}");
        })
    });
    for thread in threads {
        thread.join().expect("each is answered as it should be");
    }
}

fn stopped_while_a_body_dribbles(stage: &mut Stage) {
    let address = stage.forebay().address();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: forebay\r\ncontent-length: 100000\r\n");
    let signature = format!("x-millicast-signature: {}\r\n\r\n", sign(b"x"));
    stream.write_all((head + &signature).as_bytes()).unwrap();
    let dribble = std::thread::spawn(move || {
        while stream.write_all(b"x").is_ok() {
            sleep(Duration::from_millis(100));
        }
    });
    sleep(AROUND);
    let began = Instant::now();
    let replica = &mut stage.subjects[0].replicas()[0];
    replica.stop();
    let took = began.elapsed();
    replica.start();
    dribble.join().unwrap();
    stage.note = format!("it ended after {:.1} s", took.as_secs_f64());
}
