//! `forebay drain`: a spool whose replica is gone is emptied into a real Kafka.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::support::{
    census::assert_in_order,
    disk::{Mount, can_mount, run, scratch},
    forebay::{Setup, send_command, wait_until},
    kafka::{self, create_topic, create_topic_named},
    program::{self, Program},
    topic::read_to_end,
};

const COUNT: usize = 400;
const DRAINED: Duration = Duration::from_secs(60);

/// A spool with `count` events of a topic that does not exist yet, and nobody who runs on it.
fn stranded(topic: &str, count: usize) -> Setup {
    let setup = Setup::new(&kafka::shared(), topic);
    let mut forebay = setup.start();
    let status = send_command(&setup.url(), &["feeds", "media"])
        .args(["--count", &count.to_string(), "--streams", "20"])
        .status();
    assert!(status.unwrap().success());
    forebay.kill();
    setup
}

fn command(config: &Path) -> Program {
    let mut command = program::forebay();
    command.arg("drain").arg("--config").arg(config);
    command
}

fn drain(config: &Path) -> (Option<i32>, String, String) {
    let output = command(config).output().unwrap();
    said(&output)
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn start(config: &Path) -> Child {
    command(config).spawn()
}

/// What a process says on stderr, from now on.
fn read_log(child: &mut Child) -> Arc<Mutex<String>> {
    let log = Arc::new(Mutex::new(String::new()));
    let (said, stderr) = (Arc::clone(&log), child.stderr.take().expect("stderr is piped"));
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            said.lock().unwrap().push_str(&(line + "\n"));
        }
    });
    log
}

fn terminate(child: Child) -> (Option<i32>, String, String) {
    let status = Command::new("kill").arg(child.id().to_string()).status();
    assert!(status.unwrap().success());
    let began = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(began.elapsed() < DRAINED, "it stopped after {:?}", began.elapsed());
    said(&output)
}

fn topic(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_spool_holds_is_published_and_nothing_is_taken_in() {
    let topic = topic("drained");
    let setup = stranded(&topic, COUNT);
    let config = setup.config();
    // Its topic is not there: it waits, takes nothing in, and a stop loses nothing.
    let mut waiting = start(&config);
    let log = read_log(&mut waiting);
    let holder = format!("pid {} ", waiting.id());
    wait_until("it holds the spool", DRAINED, || {
        let lock = std::fs::read_to_string(setup.spool().join("LOCK"));
        lock.is_ok_and(|text| text.starts_with(&holder))
    });
    assert!(TcpStream::connect(setup.public).is_err(), "it takes nothing in");
    wait_until("it says why it waits", DRAINED, || {
        log.lock().unwrap().contains("kafka_unknown_topic")
    });
    let (code, stdout, _) = terminate(waiting);
    assert_eq!(code, Some(1), "{stdout}{}", log.lock().unwrap());
    assert!(
        stdout.contains(&format!("route events: {COUNT} records left")),
        "{stdout}"
    );
    wait_until("it says that it was stopped", DRAINED, || {
        log.lock().unwrap().contains("stopped before every route was empty")
    });

    create_topic_named(&kafka::shared(), &topic, 3, &[]).await;
    let (code, stdout, stderr) = drain(&config);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(stdout, format!("route events: empty\n{COUNT} messages published\n"));
    assert!(stderr.contains("draining"), "progress is told: {stderr}");
    let census = assert_in_order(&read_to_end(&kafka::shared(), &topic));
    assert_eq!((census.messages, census.repeats), (COUNT, 0));

    let (code, stdout, _) = drain(&config);
    assert_eq!(
        (code, stdout.as_str()),
        (Some(0), "route events: empty\n0 messages published\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_read_only_volume_holds_is_published_and_is_there_again_next_time() {
    if !can_mount("what_a_read_only_volume_holds_is_published_and_is_there_again_next_time") {
        return;
    }
    let scratch = scratch();
    let disk = Mount::tmpfs(&scratch.path().join("disk"), "160M");
    let topic = create_topic(&kafka::shared(), "read-only", 3, &[]).await;
    let away = Setup::new("127.0.0.1:1", &topic).spool_at(&disk.path().join("spool"));
    let mut forebay = away.start();
    let status = send_command(&away.url(), &["feeds", "media"])
        .args(["--count", &COUNT.to_string(), "--streams", "20"])
        .status();
    assert!(status.unwrap().success());
    forebay.kill();
    run("mount", &["-o", "remount,ro", disk.path().to_str().unwrap()]);

    let setup = Setup::new(&kafka::shared(), &topic).spool_at(away.spool());
    let config = setup.config();
    for round in 1..=2 {
        let (code, stdout, stderr) = drain(&config);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        let said = format!(
            "route events: empty\n{COUNT} messages published\nwhat was published cannot be kept in {}: a later run on it publishes it \
             again\n",
            setup.spool().display()
        );
        assert_eq!(stdout, said, "round {round}");
    }
    // It takes nothing in, and publishes.
    let mut forebay = setup.launch();
    wait_until("it is alive", DRAINED, || {
        matches!(forebay.get("/livez"), Some((200, _)))
    });
    forebay.wait_until_drained(DRAINED);
    assert_eq!(forebay.get("/readyz").unwrap().0, 503);
    assert_eq!(forebay.terminate(DRAINED).code(), Some(0), "{}", forebay.log());
    let census = assert_in_order(&read_to_end(&kafka::shared(), &topic));
    assert_eq!((census.messages, census.repeats), (3 * COUNT, 2 * COUNT));

    run("mount", &["-o", "remount,rw", disk.path().to_str().unwrap()]);
    let (code, stdout, stderr) = drain(&config);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(stdout, format!("route events: empty\n{COUNT} messages published\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_stay_and_are_counted() {
    let topic = topic("too-large");
    let setup = stranded(&topic, 5);
    create_topic_named(&kafka::shared(), &topic, 3, &[("max.message.bytes", "300")]).await;
    let (code, stdout, stderr) = drain(&setup.config());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let dir = setup.spool().join("dead-letters");
    let said = format!(
        "route events: empty\n0 messages published\n5 dead letters stay in {}\n",
        dir.display()
    );
    assert_eq!(stdout, said);
    assert_eq!(read_to_end(&kafka::shared(), &topic).len(), 0);
}

#[test]
fn what_is_no_spool_is_not_taken_for_an_empty_one() {
    let setup = Setup::new("127.0.0.1:1", "nowhere");
    let (code, stdout, stderr) = drain(&setup.config());
    assert_eq!((code, stdout.as_str()), (Some(64), ""), "{stderr}");
    assert!(stderr.contains("there is no spool in"), "{stderr}");
    assert!(!setup.spool().exists(), "and none is made");
}

#[test]
fn a_spool_in_use_is_left_alone() {
    let setup = Setup::new("127.0.0.1:1", "nowhere");
    let forebay = setup.start();
    let (code, _, stderr) = drain(&setup.config());
    assert_eq!(code, Some(74), "{stderr}");
    assert!(stderr.contains(&format!("pid {}", forebay.pid())), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_last_record_does_not_keep_it_from_ending() {
    let topic = topic("last-damaged");
    let setup = Setup::new(&kafka::shared(), &topic).environment(&["FOREBAY__SERVER__SHUTDOWN_DEADLINE=1s"]);
    let mut forebay = setup.start();
    let status = send_command(&setup.url(), &["feeds"])
        .args(["--count", "20", "--streams", "5"])
        .status();
    assert!(status.unwrap().success());
    assert!(forebay.terminate(DRAINED).success(), "{}", forebay.log());
    let segments = fs::read_dir(setup.spool().join("segments")).unwrap().flatten();
    let newest = segments.map(|entry| entry.path()).max().expect("a segment");
    let mut bytes = fs::read(&newest).unwrap();
    // Within the payload of the last record.
    let at = bytes.len() - 60;
    bytes[at] ^= 1;
    fs::write(&newest, bytes).unwrap();

    create_topic_named(&kafka::shared(), &topic, 3, &[]).await;
    let (code, stdout, stderr) = drain(&setup.config());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(stdout, "route events: empty\n19 messages published\n");
    assert!(stderr.contains("damage in the spool"), "{stderr}");
}
