//! For those without Kubernetes: the units are right and tight, and with the listening socket handed from process to
//! process a restart is noticed by no sender.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use tempfile::TempDir;

use crate::support::{
    ROOT,
    census::assert_delivered,
    forebay::{Setup, send_command, wait_until},
    kafka::{self, create_topic},
    process::free_port,
    sender::{Outcome, Sender},
    target,
    topic::read_to_end,
};

const STOPPED: Duration = Duration::from_secs(60);
/// How exposed the service may be, in tenths, of a hundred.
const EXPOSURE_MAX: &str = "20";

fn unit(name: &str) -> String {
    let path = Path::new(ROOT).join("deploy/systemd").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn run(dir: &Path, program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap_or_else(|error| panic!("{program}, of the package systemd: {error}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What `systemd-analyze security` says of a service, and whether it is enough.
fn confined(service: &str) -> (bool, String) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("forebay.service"), service).unwrap();
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let arguments = [
        "security",
        "--offline=true",
        "--no-pager",
        &threshold,
        "./forebay.service",
    ];
    let output = run(dir.path(), "systemd-analyze", &arguments);
    let said = said(&output);
    assert!(said.contains("Overall exposure level"), "{said}");
    (output.status.success(), said)
}

#[test]
fn the_service_is_confined() {
    let service = unit("forebay.service");
    let (enough, said) = confined(&service);
    assert!(enough, "{said}");
    let loose: Vec<&str> = service
        .lines()
        .filter(|line| !line.starts_with("SystemCallFilter") && !line.starts_with("CapabilityBoundingSet"))
        .collect();
    let (enough, said) = confined(&loose.join("\n"));
    assert!(!enough, "{said}");
}

/// What is wrong with the units, where the binary is this one.
fn amiss(service: &str, socket: &str) -> Result<(), String> {
    let dir = TempDir::new().unwrap();
    let service = service.replace("/usr/local/bin/forebay", &target::binary().display().to_string());
    fs::write(dir.path().join("forebay.service"), service).unwrap();
    fs::write(dir.path().join("forebay.socket"), socket).unwrap();
    let output = run(
        dir.path(),
        "systemd-analyze",
        &["verify", "--man=no", "./forebay.service", "./forebay.socket"],
    );
    let said = said(&output);
    let clean = output.status.success() && !said.contains("forebay.");
    if clean { Ok(()) } else { Err(said) }
}

#[test]
fn the_units_and_the_user_are_right() {
    let (service, socket) = (unit("forebay.service"), unit("forebay.socket"));
    assert_eq!(amiss(&service, &socket), Ok(()));
    for (right, wrong) in [
        ("ProtectSystem=strict", "ProtectSystems=strict"),
        ("ExecStart=", "ExecStart=not-there "),
    ] {
        assert!(amiss(&service.replace(right, wrong), &socket).is_err(), "{wrong}");
    }
    assert!(amiss(&service, &socket.replace("ListenStream=8080", "ListenStream=eighty")).is_err());

    let root = TempDir::new().unwrap();
    let known = root.path().join("usr/lib/sysusers.d");
    fs::create_dir_all(&known).unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(known.join("forebay.conf"), unit("forebay.sysusers")).unwrap();
    let at = format!("--root={}", root.path().display());
    let output = run(root.path(), "systemd-sysusers", &[&at]);
    assert!(output.status.success(), "{}", said(&output));
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(
        users.contains("forebay:x:") && users.contains(":/var/lib/forebay:"),
        "{users}"
    );
}

/// The sets of system calls, by their names, as the systemd of this machine has them.
fn call_sets() -> BTreeMap<String, Vec<String>> {
    let output = run(Path::new("/"), "systemd-analyze", &["syscall-filter", "--no-pager"]);
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in said(&output).lines() {
        match line.trim() {
            "" => {}
            name if line.starts_with('@') => current = name.to_owned(),
            comment if comment.starts_with('#') => {}
            call => sets.entry(current.clone()).or_default().push(call.to_owned()),
        }
    }
    sets
}

fn calls(sets: &BTreeMap<String, Vec<String>>, names: &[&str]) -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    for name in names {
        match sets.get(*name) {
            Some(members) => {
                let members: Vec<&str> = members.iter().map(String::as_str).collect();
                calls.extend(self::calls(sets, &members));
            }
            None => {
                calls.insert((*name).to_owned());
            }
        }
    }
    calls
}

/// The calls that the service may make.
fn allowed(service: &str) -> BTreeSet<String> {
    let sets = call_sets();
    let mut allowed = calls(&sets, &["@default"]);
    for filter in service
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="))
    {
        let names = |text: &str| calls(&sets, &text.split_whitespace().collect::<Vec<_>>());
        match filter.strip_prefix('~') {
            Some(denied) => allowed = &allowed - &names(denied),
            None => allowed.extend(names(filter)),
        }
    }
    allowed
}

#[tokio::test(flavor = "multi_thread")]
async fn every_system_call_of_a_serving_forebay_is_one_that_the_service_may_make() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "calls", 1, &[]).await;
    let mut setup = Setup::new(&brokers, &topic);
    let trace = setup.dir.path().join("calls");
    setup.wrapper = ["strace", "-D", "-f", "-qq", "-o", trace.to_str().unwrap()]
        .map(str::to_owned)
        .to_vec();
    let mut forebay = setup.start();
    assert!(send_command(&setup.url(), &[]).output().unwrap().status.success());
    forebay.wait_until_drained(STOPPED);
    assert_eq!(forebay.get("/metrics").unwrap().0, 200);
    assert!(forebay.terminate(STOPPED).success(), "{}", forebay.log());

    let text = String::from_utf8_lossy(&fs::read(&trace).unwrap()).into_owned();
    let made: BTreeSet<String> = text
        .lines()
        .filter_map(|line| {
            let call = line.split_whitespace().nth(1)?.split_once('(')?.0;
            call.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                .then(|| call.to_owned())
        })
        .collect();
    for call in ["fdatasync", "accept4", "sendmsg", "epoll_wait", "exit_group"] {
        assert!(made.contains(call), "{call} is missing: was anything traced? {made:?}");
    }
    let allowed = allowed(&unit("forebay.service"));
    assert!(
        !allowed.contains("mount") && !allowed.contains("sched_setscheduler"),
        "the filter denies something"
    );
    let denied: Vec<_> = made.difference(&allowed).collect();
    assert!(denied.is_empty(), "the service would be denied {denied:?}");
}

/// Every request was answered 200.
fn assert_unnoticed(outcome: &Outcome) {
    assert_eq!(outcome.unanswered, 0, "refused, reset or silent: {:?}", outcome.answers);
    assert!(outcome.answers.keys().all(|code| *code == 200), "{:?}", outcome.answers);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_restarts_under_load_refuse_nothing_when_the_socket_is_handed_over() {
    const RESTARTS: usize = 20;
    const AT_EACH: usize = 100;
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "restarts", 12, &[]).await;
    let setup = Setup::new(&brokers, &topic).handing_over();
    let mut forebay = setup.start();
    let fresh = Sender::start_reconnecting(setup.public, 8, 300, 200);
    let kept = Sender::start(setup.public, 4, 100, 100);
    let took_over = format!("took over a listening socket name=\"ingress\" address={}", setup.public);
    for restart in 0..RESTARTS {
        wait_until(&took_over, STOPPED, || forebay.log().contains(&took_over));
        let (fresh_before, kept_before) = (fresh.acknowledged(), kept.acknowledged());
        wait_until("webhooks are answered", STOPPED, || {
            fresh.acknowledged() >= fresh_before + AT_EACH && kept.acknowledged() > kept_before
        });
        let status = forebay.terminate(STOPPED);
        assert!(status.success(), "restart {restart}: {status}\n{}", forebay.log());
        forebay = setup.start();
    }
    let (fresh, kept) = (fresh.stop(), kept.stop());
    println!(
        "{} and {} answered, the slowest after {:?}",
        fresh.acknowledged.len(),
        kept.acknowledged.len(),
        fresh.slowest.max(kept.slowest)
    );
    assert_unnoticed(&fresh);
    assert_unnoticed(&kept);
    assert!(fresh.acknowledged.len() >= RESTARTS * AT_EACH);
    forebay.wait_until_drained(STOPPED);
    let mut all = fresh.clone();
    all.acknowledged.extend(kept.acknowledged.iter().cloned());
    assert_delivered(&read_to_end(&brokers, &topic), &all);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_connects_while_no_process_runs_waits_for_the_next_one() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "waiting", 1, &[]).await;
    let setup = Setup::new(&brokers, &topic).handing_over();
    let mut forebay = setup.start();
    assert!(forebay.terminate(STOPPED).success(), "{}", forebay.log());
    let waiting = send_command(&setup.url(), &["feeds"])
        .args(["--count", "5", "--json"])
        .spawn();
    // The kernel has completed its connections; there is nobody to see it by but the table of sockets.
    let port = format!(":{:04X}", setup.public.port());
    wait_until("connections in the backlog", STOPPED, || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some("01")
        })
    });
    let forebay = setup.start();
    let output = waiting.wait_with_output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{summary}");
    forebay.wait_until_drained(STOPPED);
    assert_eq!(read_to_end(&brokers, &topic).len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn systemds_own_hand_over_gives_both_servers_their_sockets_by_name() {
    let mut setup = Setup::new("127.0.0.1:1", "nowhere");
    let (public, admin) = (setup.public.to_string(), setup.admin.to_string());
    // In the other order than that of the configuration, which is not listened on.
    let words = [
        "systemd-socket-activate",
        "-l",
        &admin,
        "-l",
        &public,
        "--fdname=admin:ingress",
    ];
    setup.wrapper = words.map(str::to_owned).to_vec();
    let elsewhere = format!("127.0.0.1:{}", free_port());
    setup
        .wrapper
        .push(format!("--setenv=FOREBAY__SERVER__LISTEN={elsewhere}"));
    let mut forebay = setup.start();
    assert!(
        send_command(&setup.url(), &["feeds"])
            .args(["--count", "3"])
            .output()
            .unwrap()
            .status
            .success()
    );
    assert!(
        std::net::TcpStream::connect(&elsewhere).is_err(),
        "the configured address is not listened on"
    );
    assert!(forebay.terminate(STOPPED).success(), "{}", forebay.log());
    let took_over = format!("name=\"admin\" address={admin}");
    wait_until(&took_over, STOPPED, || forebay.log().contains(&took_over));
}

#[test]
fn a_socket_that_does_not_say_what_it_is_for_is_a_usage_error() {
    let mut setup = Setup::new("127.0.0.1:1", "nowhere");
    let (public, admin) = (setup.public.to_string(), setup.admin.to_string());
    let words = [
        "systemd-socket-activate",
        "-l",
        &public,
        "-l",
        &admin,
        "--fdname=ingress:web",
    ];
    setup.wrapper = words.map(str::to_owned).to_vec();
    let mut forebay = setup.launch();
    wait_until("it is activated", STOPPED, || {
        std::net::TcpStream::connect(setup.public).is_ok()
    });
    let status = forebay.wait(STOPPED);
    assert_eq!(status.code(), Some(64), "{}", forebay.log());
    wait_until("its message", STOPPED, || forebay.log().contains("called \"web\""));
}

#[test]
fn sockets_of_another_process_are_left_alone() {
    let mut setup = Setup::new("127.0.0.1:1", "nowhere");
    setup.wrapper = ["env", "LISTEN_FDS=1", "LISTEN_PID=1"].map(str::to_owned).to_vec();
    let forebay = setup.start();
    assert!(!forebay.log().contains("took over"), "{}", forebay.log());
    assert!(
        send_command(&setup.url(), &["feeds"])
            .args(["--count", "1"])
            .output()
            .unwrap()
            .status
            .success()
    );
}

#[test]
fn the_supervisor_is_told_when_it_is_ready_and_when_it_stops() {
    let mut setup = Setup::new("127.0.0.1:1", "nowhere");
    let path = setup.dir.path().join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(STOPPED)).unwrap();
    let told = || {
        let mut text = [0; 256];
        let bytes = supervisor.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..bytes]).into_owned()
    };
    setup.wrapper = vec!["env".to_owned(), format!("NOTIFY_SOCKET={}", path.display())];
    let mut forebay = setup.launch();
    assert_eq!(told(), "READY=1");
    assert_eq!(forebay.get("/readyz").unwrap().0, 200, "it is");
    forebay.signal("TERM");
    assert_eq!(told(), "STOPPING=1");
    assert!(forebay.wait(STOPPED).success(), "{}", forebay.log());
}
