//! A webhook's secret is rotated while webhooks come, as docs/rotation.md has it; and what becomes of sources that
//! cannot be read.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::support::{
    ROOT,
    forebay::{Forebay, PATH, SECRET, Setup, kafka_route, wait_until},
    http, program,
    secrets::NEXT_WEBHOOK as NEXT,
    sender::{sign_with, webhook},
};

const SOON: Duration = Duration::from_secs(30);
const ACTIVE: &str = "forebay_secrets_active{endpoint=\"acme\"}";

/// An endpoint whose secrets are in these files of its directory.
fn setup(files: &[&str]) -> Setup {
    let mut setup = Setup::publishing(&kafka_route("events", "127.0.0.1:1", "none"));
    setup.secrets = files
        .iter()
        .map(|file| format!("file:{}", setup.dir.path().join(file).display()))
        .collect();
    setup.env = vec![("FOREBAY__SERVER__SHUTDOWN_DEADLINE".into(), "1s".into())];
    setup
}

/// A grace time of a second, for tests that wait for its end.
fn with_short_grace(mut setup: Setup) -> Setup {
    setup
        .env
        .push(("FOREBAY__ENDPOINTS__ACME__SECRETS_GRACE".into(), "1s".into()));
    setup
}

fn put(setup: &Setup, file: &str, text: &str) {
    let path = setup.dir.path().join(file);
    let new = path.with_extension("writing");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

fn remove(setup: &Setup, file: &str) {
    fs::remove_file(setup.dir.path().join(file)).unwrap();
}

/// The answer to a webhook that is signed with this secret.
fn post(to: SocketAddr, secret: &str) -> Option<u16> {
    let body = webhook(1, "feed");
    let headers = format!("X-Millicast-Signature: {}\r\n", sign_with(secret, body.as_bytes()));
    http::request(to, "POST", PATH, &headers, &body).map(|answer| answer.code)
}

fn read_failures(forebay: &Forebay, position: &str) -> f64 {
    forebay.metric(&format!(
        "forebay_secret_read_failures_total{{endpoint=\"acme\",position=\"{position}\"}}"
    ))
}

fn last_match(forebay: &Forebay, position: &str) -> f64 {
    forebay.metric(&format!(
        "forebay_secret_last_match_timestamp_seconds{{endpoint=\"acme\",position=\"{position}\"}}"
    ))
}

fn wait_for_active(forebay: &Forebay, count: u32) {
    wait_until(&format!("{count} secrets are in use: {}", forebay.log()), SOON, || {
        forebay.metric(ACTIVE) == f64::from(count)
    });
}

/// Webhooks without a pause, signed with the old secret and then with the new one.
struct Load {
    is_next: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<Option<u16>>>>,
}

impl Load {
    fn start(to: SocketAddr) -> Self {
        let (is_next, stop, accepted) = (Arc::default(), Arc::default(), Arc::default());
        let threads = (0..4)
            .map(|_| {
                let (is_next, stop, accepted): (Arc<AtomicBool>, Arc<AtomicBool>, Arc<AtomicUsize>) =
                    (Arc::clone(&is_next), Arc::clone(&stop), Arc::clone(&accepted));
                std::thread::spawn(move || {
                    let mut others = Vec::new();
                    while !stop.load(Ordering::SeqCst) {
                        let secret = if is_next.load(Ordering::SeqCst) { NEXT } else { SECRET };
                        match post(to, secret) {
                            Some(200) => drop(accepted.fetch_add(1, Ordering::SeqCst)),
                            other => others.push(other),
                        }
                    }
                    others
                })
            })
            .collect();
        Self {
            is_next,
            stop,
            accepted,
            threads,
        }
    }

    /// Waits until more were accepted.
    fn goes_on(&self) {
        let before = self.accepted.load(Ordering::SeqCst);
        wait_until("webhooks are accepted", SOON, || {
            self.accepted.load(Ordering::SeqCst) >= before + 20
        });
    }

    /// From now on the provider signs with the new secret, and nothing that the old one signed is on its way.
    fn change(&self) {
        self.is_next.store(true, Ordering::SeqCst);
        self.goes_on();
    }

    /// All answers but 200.
    fn end(self) -> Vec<Option<u16>> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    }
}

/// The commands of docs/rotation.md, a text for each block in the section.
fn documented_commands(section: &str) -> Vec<String> {
    let path = Path::new(ROOT).join("docs/rotation.md");
    let text = fs::read_to_string(path).unwrap();
    let section = text.split("\n## ").find(|part| part.starts_with(section)).unwrap();
    let blocks = section.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_documented_rotation_refuses_nothing_under_load() {
    let setup = setup(&["acme"]);
    put(&setup, "acme", &format!("{SECRET}\n"));
    let forebay = setup.start();
    let run = |commands: &str| {
        let commands = commands
            .replace("/run/secrets", &setup.dir.path().display().to_string())
            .replace("localhost:9464", &setup.admin.to_string());
        let status = Command::new("timeout")
            .args(["60", "sh", "-euc", &commands])
            .env("NEW_SECRET", NEXT)
            .env("FOREBAY_PID", forebay.pid().to_string())
            .status()
            .unwrap();
        assert!(status.success(), "{commands}");
    };
    let blocks = documented_commands("With one file");
    let [add, wait, remove_old] = &blocks[..] else {
        panic!("three blocks of commands, not {blocks:?}")
    };

    assert_eq!(post(setup.public, NEXT), Some(400), "not yet");
    let load = Load::start(setup.public);
    load.goes_on();
    run(add);
    run(wait);
    load.goes_on();
    load.change();
    let stands_still = last_match(&forebay, "1");
    assert!(stands_still > 0.0 && last_match(&forebay, "1.2") >= stands_still);
    run(remove_old);
    wait_for_active(&forebay, 1);
    load.goes_on();
    assert_eq!(load.end(), [], "answers but 200");
    assert_eq!(post(setup.public, SECRET), Some(400), "the old one is of no use");
    assert_eq!(post(setup.public, NEXT), Some(200));
    assert_eq!(last_match(&forebay, "1.2"), 0.0, "there is no such position any more");
    assert!(last_match(&forebay, "1") >= stands_still, "{}", forebay.status());
    assert!(forebay.log().contains("as SIGHUP asks"), "{}", forebay.log());
    let status = forebay.status();
    let endpoint = &status["endpoints"][0];
    assert_eq!(
        (&endpoint["name"], &endpoint["secrets_active"]),
        (&"acme".into(), &1.into())
    );
    assert_eq!(endpoint["secret_sources"][0]["state"], "readable");
    assert!(endpoint["secrets"][0]["last_match"].is_string(), "{status}");
}

/// Puts a new version of the files in place as the kubelet does: a directory, and a link to it that is replaced.
pub fn mount(volume: &Path, version: &str, files: &[(&str, &str)]) {
    let dir = volume.join(version);
    fs::create_dir_all(&dir).unwrap();
    for (name, text) in files {
        fs::write(dir.join(name), text).unwrap();
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    let (data, new) = (volume.join("..data"), volume.join("..data_tmp"));
    let before = fs::read_link(&data).ok();
    symlink(version, &new).unwrap();
    fs::rename(new, data).unwrap();
    if let Some(before) = before {
        fs::remove_dir_all(volume.join(before)).unwrap();
    }
}

#[test]
fn a_secret_that_kubernetes_mounts_rotates_under_load() {
    let setup = setup(&["volume/acme"]);
    let volume: PathBuf = setup.dir.path().join("volume");
    mount(&volume, "..2026_11_29_1", &[("acme", SECRET)]);
    let forebay = setup.start();
    let load = Load::start(setup.public);
    load.goes_on();
    mount(&volume, "..2026_11_29_2", &[("acme", &format!("{SECRET}\n\n{NEXT}\n"))]);
    wait_for_active(&forebay, 2);
    load.change();
    mount(&volume, "..2026_11_29_3", &[("acme", NEXT)]);
    wait_for_active(&forebay, 1);
    load.goes_on();
    assert_eq!(load.end(), [], "answers but 200");
    assert_eq!(post(setup.public, SECRET), Some(400));
    assert_eq!(read_failures(&forebay, "1"), 0.0);
}

#[test]
fn a_source_that_is_deleted_holds_up_no_other_and_is_revoked_after_the_grace_time() {
    let setup = with_short_grace(setup(&["old", "new"]));
    put(&setup, "old", SECRET);
    put(&setup, "new", "b3RoZXI=");
    let mut forebay = setup.start();
    assert_eq!(forebay.metric(ACTIVE), 2.0);
    remove(&setup, "old");
    put(&setup, "new", NEXT);
    wait_until("the renewed one is accepted", SOON, || {
        post(setup.public, NEXT) == Some(200)
    });
    wait_until("the deleted one is refused", SOON, || {
        post(setup.public, SECRET) == Some(400)
    });
    assert!(read_failures(&forebay, "1") > 0.0);
    assert_eq!(read_failures(&forebay, "2"), 0.0);
    let sources = forebay.status()["endpoints"][0]["secret_sources"].take();
    assert_eq!(
        (&sources[0]["state"], &sources[1]["state"]),
        (&"revoked".into(), &"readable".into())
    );
    assert!(
        sources[0]["error"].as_str().unwrap().contains("cannot be read"),
        "{sources}"
    );
    wait_until("both lines", SOON, || {
        forebay.log().contains("it stays for the grace time") && forebay.log().contains("is revoked")
    });

    // The last one stays, whatever becomes of its file: nothing could be accepted without.
    remove(&setup, "new");
    wait_until("it cannot be read", SOON, || read_failures(&forebay, "2") > 2.0);
    assert_eq!(post(setup.public, NEXT), Some(200));
    assert_eq!(forebay.metric(ACTIVE), 1.0);
    assert!(forebay.terminate(SOON).success(), "{}", forebay.log());
    let mut none = setup.launch();
    assert_eq!(none.wait(SOON).code(), Some(64), "{}", none.log());

    // One is enough to start with, and the other may come later.
    put(&setup, "new", NEXT);
    let forebay = setup.start();
    assert_eq!(post(setup.public, NEXT), Some(200));
    assert!(read_failures(&forebay, "1") > 0.0);
    for said in ["endpoints.acme.secrets: number 1: file:", "starts without it"] {
        assert!(forebay.log().contains(said), "{}", forebay.log());
    }
    put(&setup, "old", SECRET);
    wait_until("the other is accepted", SOON, || {
        post(setup.public, SECRET) == Some(200)
    });
}

#[test]
fn a_hangup_ends_neither_dev_nor_drain() {
    let setup = setup(&["acme"]);
    put(&setup, "acme", SECRET);
    let mut forebay = setup.start();
    assert_eq!(post(setup.public, SECRET), Some(200));
    assert!(forebay.terminate(SOON).success(), "{}", forebay.log());

    let config = setup.config();
    let drain = ["drain", "--config", config.to_str().unwrap()];
    let dev = [
        "dev",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--no-samples",
    ];
    for (arguments, begins) in [(&drain[..], "the route is blocked"), (&dev, "ready")] {
        let mut child = program::forebay().args(arguments).spawn();
        let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        let signal = |name: &str| {
            let status = Command::new("kill").args([name, &child.id().to_string()]).status();
            assert!(status.unwrap().success());
        };
        let mut log = String::new();
        while !log.contains(begins) {
            let bytes = std::io::BufRead::read_line(&mut stderr, &mut log).unwrap();
            assert_ne!(bytes, 0, "{arguments:?} ended: {log}");
        }
        signal("-HUP");
        // What ended by it would not log its orderly end.
        signal("-TERM");
        std::io::Read::read_to_string(&mut stderr, &mut log).unwrap();
        let code = child.wait().unwrap().code();
        let expected = if arguments == drain { Some(1) } else { Some(0) };
        assert_eq!(code, expected, "{arguments:?}: {log}");
    }
}
