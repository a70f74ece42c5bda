//! A process that may open few files: what routes and the log need is set aside, and connections get the rest.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::support::{
    forebay::{Setup, wait_until},
    sender::Sender,
};

const DEADLINE: Duration = Duration::from_secs(120);
const ROUTES: usize = 45;

/// A Forebay that may open so many files, with routes to topics of their own.
fn setup(files: u32, routes: usize) -> Setup {
    let mut toml = "[sinks.main]\ntype = \"kafka\"\nbrokers = [\"127.0.0.1:1\"]\n".to_owned();
    for number in 0..routes {
        toml += &format!("[routes.r{number}]\ntopic = \"topic-{number}\"\n");
    }
    let mut setup = Setup::publishing(&toml);
    setup.wrapper = ["sh", "-c", "ulimit -n \"$0\"; exec \"$@\"", &files.to_string()]
        .map(str::to_owned)
        .to_vec();
    // Small segments, so that some are made while connections hold all that they may. Nobody publishes: a stop would
    // wait.
    setup.environment(&[
        "FOREBAY__SPOOL__BYTES_MAX=16MiB",
        "FOREBAY__SERVER__BODY_BYTES_MAX=1MiB",
        "FOREBAY__SERVER__SHUTDOWN_DEADLINE=1s",
    ])
}

/// Idle connections, as many as were asked for or the server lets in.
fn connect(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).filter_map(|_| TcpStream::connect(to).ok()).collect()
}

#[test]
fn idle_connections_take_no_descriptor_from_routes_and_segments() {
    let setup = setup(600, ROUTES);
    let mut forebay = setup.start();
    let idle = connect(setup.public, 400);
    // Of those that come at once some are refused; that passes.
    wait_until("all have been let in or closed", DEADLINE, || {
        forebay.metrics_sum("forebay_connections") + forebay.metrics_sum("forebay_connections_closed_total") >= 400.0
    });
    let sender = Sender::start(setup.public, 8, 4_000, 200);
    let segments = || std::fs::read_dir(setup.spool().join("segments")).map_or(0, Iterator::count);
    wait_until("another segment is made", DEADLINE, || segments() >= 2);
    // While connections come and go.
    let more = connect(setup.public, 400);
    let open = forebay.metric("process_open_fds");
    assert!(open > 100.0 && open < 600.0, "{open} files are open");
    let before = sender.acknowledged();
    wait_until("it goes on", DEADLINE, || sender.acknowledged() > before + 200);
    let outcome = sender.stop();
    drop((idle, more));
    let codes: Vec<u16> = outcome.answers.keys().copied().collect();
    assert_eq!((codes, outcome.unanswered), (vec![200], 0), "{:?}", outcome.answers);
    let log = forebay.log();
    let warned: Vec<_> = log
        .lines()
        .filter(|line| line.contains("connections_max is lowered"))
        .collect();
    assert_eq!(warned.len(), 1, "{log}");
    for part in ["wanted=10000", "open_files_max=600", "routes=45", "ulimit -n"] {
        assert!(warned[0].contains(part), "{}", warned[0]);
    }
    assert_eq!(forebay.terminate(DEADLINE).code(), Some(0), "{log}");
}

#[test]
fn a_limit_without_room_for_the_routes_stops_the_start() {
    let setup = setup(300, ROUTES);
    let mut forebay = setup.launch();
    assert_eq!(forebay.wait(DEADLINE).code(), Some(69), "{}", forebay.log());
    wait_until("it says why", DEADLINE, || {
        let log = forebay.log();
        log.contains("may open 300 files, and 45 routes") && log.contains("raise the limit")
    });
}
