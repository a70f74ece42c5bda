//! The services of `examples/consumers`, started as a team would start them.

mod services;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    forebay::wait_until,
    process::{mortal, spawn},
    target,
};
pub use services::{ALL, of, runs};

/// How long a service may take from its start, or after a kill of the one before, until it stores something: a broker
/// misses a consumer that was killed when its session is over.
const STARTED: Duration = Duration::from_secs(90);
const STOPPED: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    Kafka,
    RabbitMq,
}

/// An example.
pub struct Consumer {
    /// Its folder in `examples/consumers`.
    pub name: &'static str,
    pub reads: Broker,
    /// Builds what must be built, and returns the words that start it; or what is missing here, for which it is left
    /// out. The first path is its folder, the second a directory of its own that stays from run to run.
    pub build: fn(&Path, &Path) -> Result<Vec<String>, String>,
}

/// Where a service reads.
#[derive(Debug, Clone)]
pub enum Source {
    Kafka { brokers: String, topic: String },
    RabbitMq { uri: String, queues: Vec<String> },
}

impl Consumer {
    /// The words that start it, built once. `None`, said on stderr, where this machine lacks something; in CI that is a
    /// failure.
    pub fn command(&self) -> Option<Vec<String>> {
        type Command = Result<Vec<String>, String>;
        static BUILT: LazyLock<Mutex<HashMap<&str, Command>>> = LazyLock::new(Mutex::default);
        let mut built = BUILT.lock().expect("a build that failed fails the rest");
        let result = built.entry(self.name).or_insert_with(|| {
            let root = Path::new(crate::ROOT);
            let kept = target::tmp_dir().join("consumers").join(self.name);
            std::fs::create_dir_all(&kept).unwrap();
            let result = (self.build)(&root.join("examples/consumers").join(self.name), &kept);
            if let Err(missing) = &result {
                let left_out = format!("LEFT OUT, for want of {missing}: examples/consumers/{}", self.name);
                assert!(std::env::var_os("CI").is_none(), "{left_out}");
                // Not by `eprintln!`, which a test that passes keeps to itself.
                let _ = writeln!(std::io::stderr(), "{left_out}");
            }
            result
        });
        result.clone().ok()
    }

    /// Starts it with a database of its own, in a group of its own. `None` where it is left out.
    pub fn start(&self, source: &Source) -> Option<Service> {
        let mut command = self.command()?;
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("streams.db").display().to_string();
        let words = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
        command.extend(match source {
            Source::Kafka { brokers, topic } => {
                let group = group(self.name, topic);
                words(&["--brokers", brokers, "--topic", topic, "--group", &group])
            }
            Source::RabbitMq { uri, queues } => {
                let queues = queues.iter().flat_map(|queue| ["--queue", queue]);
                words(&["--amqp", uri].into_iter().chain(queues).collect::<Vec<_>>())
            }
        });
        command.extend(words(&["--db", &db]));
        let mut service = Service {
            name: self.name,
            command,
            dir,
            child: None,
        };
        service.launch();
        Some(service)
    }
}

/// Every service stores exactly this, each within so long of the one before.
pub fn assert_states(services: &[Service], expected: &BTreeMap<String, Value>, within: Duration) {
    let results = services.iter().map(|service| service.wait_for_states(expected, within));
    let wrong: Vec<String> = results.filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// The consumer group in which the service of this name reads a topic.
pub fn group(name: &str, topic: &str) -> String {
    format!("{name}-{topic}")
}

/// A service that runs; killed when dropped.
pub struct Service {
    pub name: &'static str,
    command: Vec<String>,
    dir: TempDir,
    child: Option<Child>,
}

impl Service {
    fn launch(&mut self) {
        let append = |name: &str| File::options().create(true).append(true).open(self.path(name)).unwrap();
        let mut command = mortal(&self.command[0]);
        command.args(&self.command[1..]);
        command.stdout(append("stdout")).stderr(append("stderr"));
        self.child = Some(spawn(command));
    }

    /// Another instance of it: the same group or queues, the same database.
    pub fn twin(&self) -> Self {
        let mut twin = Self {
            name: self.name,
            command: self.command.clone(),
            dir: tempfile::tempdir().unwrap(),
            child: None,
        };
        twin.launch();
        twin
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What it has told so far, on stdout: a transition a line. The last line of one that was killed may be torn: it is
    /// left out.
    pub fn transitions(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("stdout")).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// What it has said so far, on stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// What it has stored.
    pub fn states(&self) -> BTreeMap<String, Value> {
        let script = "import json, sqlite3, sys\n\
                      rows = sqlite3.connect(sys.argv[1], timeout=30).execute('SELECT key, state FROM streams')\n\
                      json.dump({key: json.loads(state) for key, state in rows}, sys.stdout)";
        let output = Command::new("python3")
            .args(["-c", script])
            .arg(self.path("streams.db"))
            .output();
        let output = output.expect("python3 starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}: {errors}\n{}", self.name, self.log()))
    }

    /// Waits until it has told `count` transitions more than it has now.
    pub fn wait_for_more(&mut self, count: usize) {
        self.wait_for_transitions(self.transitions().len() + count);
    }

    /// Waits until it has told `goal` transitions since it was first started.
    pub fn wait_for_transitions(&mut self, goal: usize) {
        let deadline = Instant::now() + STARTED;
        while self.transitions().len() < goal {
            if let Some(status) = self.ended() {
                panic!("{} ended, {status}:\n{}", self.name, self.log());
            }
            let told = self.transitions().len();
            assert!(
                Instant::now() < deadline,
                "{}: {told} transitions of {goal} after {STARTED:?}:\n{}",
                self.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Kills it (`kill -9`) when it has read and could not store: its database is locked between two of its
    /// transactions, it sleeps while something piles up, and wakes to find the lock. `pile_up` is called twice, for the
    /// pile and for the time that it is given to read it.
    pub fn kill_before_it_can_store(&mut self, pile_up: impl Fn()) {
        let lock = Lock::take(&self.path("streams.db"), STARTED)
            .unwrap_or_else(|| panic!("{}: its database stays locked for {STARTED:?}", self.name));
        self.signal("STOP");
        pile_up();
        self.signal("CONT");
        pile_up();
        self.kill();
        drop(lock);
        self.launch();
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it was started");
        // It may have ended, as it could not write.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Waits until it has stored exactly this; after so long, what is wrong.
    fn wait_for_states(&self, expected: &BTreeMap<String, Value>, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let mut states = self.states();
        while states != *expected && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(250));
            states = self.states();
        }
        let keys = states.keys().chain(expected.keys());
        let wrong: Vec<_> = keys.filter(|key| states.get(*key) != expected.get(*key)).collect();
        let Some(key) = wrong.first() else { return Ok(()) };
        Err(format!(
            "{}: {} of {} streams are wrong, as {key}: stored {:?}, expected {:?}\n{}",
            self.name,
            wrong.len(),
            expected.len(),
            states.get(*key),
            expected.get(*key),
            self.log()
        ))
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        let mut ended = None;
        wait_until(&format!("{} stops at SIGTERM", self.name), STOPPED, || {
            ended = self.ended();
            ended.is_some()
        });
        ended.expect("it has ended")
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it was started").id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(
            status.unwrap().success(),
            "kill -{name}: {} has ended:\n{}",
            self.name,
            self.log()
        );
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().expect("it was started").try_wait().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Keeps others from writing to a database, for as long as it lives.
struct Lock(Child);

impl Lock {
    /// Takes the first moment in which nobody else writes, however short it is. `None` if there was none in so long.
    fn take(db: &Path, within: Duration) -> Option<Self> {
        let script = "import sqlite3, sys, time\n\
                      db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)\n\
                      deadline = time.monotonic() + float(sys.argv[2])\n\
                      while True:\n\
                      \x20   try:\n\
                      \x20       db.execute('BEGIN IMMEDIATE')\n\
                      \x20       break\n\
                      \x20   except sqlite3.OperationalError:\n\
                      \x20       if time.monotonic() > deadline: raise\n\
                      \x20       time.sleep(0.001)\n\
                      print('locked', flush=True)\n\
                      sys.stdin.read()";
        let mut command = Command::new("python3");
        command
            .args(["-c", script])
            .arg(db)
            .arg(within.as_secs().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.stderr(Stdio::null());
        let mut lock = Self(command.spawn().expect("python3 starts"));
        let said = lock.0.stdout.as_mut().expect("it is piped").read_exact(&mut [0; 6]);
        said.is_ok().then_some(lock)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
