//! Whoever reads the log does not read it, is gone, or has no room: nothing else notices.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::support::{
    forebay::{Forebay, PATH, Setup, kafka_route, wait_until},
    http, program,
    sender::{sign, webhook},
};

const SOON: Duration = Duration::from_secs(60);
/// The sum of the deadlines of a stop, and time to wait for a processor.
const STOPPED: Duration = Duration::from_secs(20);
const DROPPED: &str = "forebay_log_lines_dropped_total";

/// A Forebay whose stderr goes where the shell is told.
fn setup(redirection: &str) -> Setup {
    let mut setup = Setup::publishing(&kafka_route("nowhere", "127.0.0.1:1", "none"));
    setup.wrapper = ["sh", "-c", &format!("exec \"$@\" 2>{redirection}"), "sh"]
        .map(str::to_owned)
        .to_vec();
    setup.env = vec![
        ("FOREBAY_LOG".into(), "trace".into()),
        ("FOREBAY__SERVER__SHUTDOWN_DEADLINE".into(), "1s".into()),
    ];
    setup
}

/// A named pipe, open at both ends, so that a program that opens it for writing need not wait.
fn pipe(dir: &Path) -> (PathBuf, File) {
    let path = dir.join("stderr");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let non_blocking = rustix::fs::OFlags::NONBLOCK.bits().try_into().unwrap();
    let pipe = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(non_blocking)
        .open(&path)
        .unwrap();
    (path, pipe)
}

fn fill(mut pipe: &File) {
    while pipe.write(&[b'.'; 4096]).is_ok() {}
    while pipe.write(b".").is_ok() {}
}

/// Forty webhooks, each of which is answered 200, and the operator's pages.
fn assert_serves(setup: &Setup, forebay: &Forebay) {
    for stream in 0..40 {
        let body = webhook(stream, "feed");
        let headers = format!("X-Millicast-Signature: {}\r\n", sign(body.as_bytes()));
        let answer = http::request(setup.public, "POST", PATH, &headers, &body);
        assert_eq!(answer.map(|answer| answer.code), Some(200), "webhook {stream}");
    }
    for page in ["/livez", "/readyz"] {
        assert_eq!(forebay.get(page).map(|(code, _)| code), Some(200), "{page}");
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut pipe) = pipe(dir.path());
    fill(&pipe);
    let setup = setup(&path.display().to_string());
    let mut forebay = setup.start();
    assert_serves(&setup, &forebay);
    wait_until("lines are dropped", SOON, || {
        assert_serves(&setup, &forebay);
        forebay.metric(DROPPED) > 0.0
    });

    // Read again, it goes on, and says that something is missing.
    let mut log = Vec::new();
    let mut read = || {
        let mut buffer = [0; 64 * 1024];
        while let Ok(bytes @ 1..) = pipe.read(&mut buffer) {
            log.extend_from_slice(&buffer[..bytes]);
        }
        String::from_utf8_lossy(&log).contains("lines of the log were dropped")
    };
    wait_until("it says that lines were dropped", SOON, &mut read);

    fill(&pipe);
    assert_serves(&setup, &forebay);
    assert!(forebay.terminate(STOPPED).success());
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, pipe) = pipe(dir.path());
    let gone = setup(&path.display().to_string());
    let mut forebay = gone.start();
    drop(pipe);
    assert_serves(&gone, &forebay);
    wait_until("lines are dropped", SOON, || forebay.metric(DROPPED) > 0.0);
    assert!(forebay.terminate(STOPPED).success());

    let full = setup("/dev/full");
    let mut forebay = full.start();
    assert_serves(&full, &forebay);
    assert!(forebay.metric(DROPPED) > 0.0);
    assert!(forebay.terminate(STOPPED).success());
}

#[test]
fn a_start_that_fails_ends_with_its_code_also_where_it_cannot_be_said() {
    let wrapper = ["sh", "-c", "exec \"$@\" 2>/dev/full", "sh"].map(str::to_owned);
    let mut serve = program::forebay_by(&wrapper);
    serve.args(["serve", "--config", "/not/there.toml"]);
    assert_eq!(serve.output().unwrap().status.code(), Some(64));
}
