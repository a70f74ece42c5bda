//! What is tried: processes that take webhooks in, and can be killed and started again.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Child,
    thread::sleep,
    time::{Duration, Instant},
};

use forebay_test_support::{
    forebay::{Forebay, Setup},
    process::{free_port, mortal, private_dir, spawn},
    proxy::RoundRobin,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::broker::Broker;

const READY: Duration = Duration::from_secs(30);
const STOPPED: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    Forebay,
    /// Two replicas behind a proxy.
    TwoReplicas,
    Naive,
}

impl SubjectKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Forebay => "Forebay",
            Self::TwoReplicas => "Forebay, 2 replicas",
            Self::Naive => "without a disk",
        }
    }

    pub fn topic(self) -> &'static str {
        match self {
            Self::Forebay | Self::TwoReplicas => "forebay",
            Self::Naive => "naive",
        }
    }
}

/// A Forebay, and what starts it again.
pub struct Replica {
    pub setup: Setup,
    pub running: Forebay,
}

impl Replica {
    /// Starts a new process once the one that there was has ended.
    pub fn start(&mut self) {
        self.running = self.setup.start();
    }

    /// Starts a process by these words too (strace, faketime), once the one that there was has ended. The next one is
    /// started without them.
    pub fn launch_under(&mut self, words: Vec<String>) {
        let before = self.setup.wrapper.clone();
        self.setup.wrapper.extend(words);
        self.running = self.setup.launch();
        self.setup.wrapper = before;
    }

    /// Ends it in order, as a roll does.
    pub fn stop(&mut self) {
        let status = self.running.terminate(STOPPED);
        assert_eq!(status.code(), Some(0), "{}", self.running.log());
    }
}

enum Process {
    Forebay {
        replicas: Vec<Replica>,
        front: Option<RoundRobin>,
    },
    Naive {
        listen: SocketAddr,
        brokers: String,
        running: Child,
    },
}

/// One that runs.
pub struct Subject {
    pub kind: SubjectKind,
    process: Process,
    /// With the password that it has for the broker.
    pub dir: TempDir,
}

impl Subject {
    /// `disk` is where spools are, `configure` says what its configuration has beside a sink and a route.
    pub fn start(
        kind: SubjectKind,
        broker: &Broker,
        runtime: &Runtime,
        disk: &Path,
        configure: fn(Setup) -> Setup,
    ) -> Self {
        let dir = private_dir();
        let replica = |name: &str| {
            let setup = Setup::publishing(&broker.route(kind.topic(), dir.path()))
                .replica(name)
                .spool_at(&disk.join(name));
            let setup = configure(setup);
            let running = setup.start();
            Replica { setup, running }
        };
        let process = match kind {
            SubjectKind::Forebay => Process::Forebay {
                replicas: vec![replica("replica-0")],
                front: None,
            },
            SubjectKind::TwoReplicas => {
                let replicas: Vec<Replica> = ["replica-0", "replica-1"].map(replica).into();
                let front = RoundRobin::start(replicas.iter().map(|replica| replica.setup.public).collect());
                let front = Some(runtime.block_on(front));
                Process::Forebay { replicas, front }
            }
            SubjectKind::Naive => {
                let (listen, brokers) = (SocketAddr::from(([127, 0, 0, 1], free_port())), broker.bootstrap());
                let running = start_naive(listen, &brokers, kind.topic());
                Process::Naive {
                    listen,
                    brokers,
                    running,
                }
            }
        };
        Self { kind, process, dir }
    }

    pub fn address(&self) -> SocketAddr {
        match &self.process {
            Process::Forebay { front: Some(front), .. } => front.address,
            Process::Forebay { replicas, .. } => replicas[0].setup.public,
            Process::Naive { listen, .. } => *listen,
        }
    }

    /// Forebay's; none of the bridge's.
    pub fn replicas(&mut self) -> &mut [Replica] {
        match &mut self.process {
            Process::Forebay { replicas, .. } => replicas,
            Process::Naive { .. } => &mut [],
        }
    }

    /// Ends it, in order, as a roll does, or at once, with nothing said; and starts a new one.
    pub fn restart(&mut self, in_order: bool) {
        match &mut self.process {
            Process::Forebay { replicas, .. } => {
                for replica in replicas {
                    match in_order {
                        true => replica.stop(),
                        false => replica.running.kill(),
                    }
                    replica.start();
                }
            }
            Process::Naive {
                listen,
                brokers,
                running,
            } => {
                let signal = if in_order { Signal::TERM } else { Signal::KILL };
                kill_process(Pid::from_child(running), signal).unwrap();
                running.wait().unwrap();
                *running = start_naive(*listen, brokers, SubjectKind::Naive.topic());
            }
        }
    }

    /// Stops and starts one replica after the other, with nothing sent to it meanwhile, as Kubernetes does.
    pub fn roll(&mut self) {
        let Process::Forebay {
            replicas,
            front: Some(front),
        } = &mut self.process
        else {
            panic!("one with replicas is rolled");
        };
        let all: Vec<SocketAddr> = replicas.iter().map(|replica| replica.setup.public).collect();
        for replica in replicas {
            // A pod leaves its service while it still takes in what comes.
            front.switch(all.iter().copied().filter(|one| *one != replica.setup.public).collect());
            replica.stop();
            replica.start();
            front.switch(all.clone());
        }
    }

    /// SIGSTOP, and SIGCONT.
    pub fn signal(&mut self, signal: &str) {
        for replica in self.replicas() {
            replica.running.signal(signal);
        }
    }

    /// How many records wait to be published.
    pub fn backlog(&mut self) -> usize {
        let waits = |replica: &Replica| replica.running.metrics_sum("forebay_route_backlog_records") as usize;
        self.replicas().iter().map(waits).sum()
    }

    /// How many dead letters its route keeps.
    pub fn dead_letters(&mut self) -> usize {
        let kept = |replica: &Replica| replica.running.metric("forebay_dead_letters{route=\"events\"}") as usize;
        self.replicas().iter().map(kept).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Self::Naive { running, .. } = self {
            // It may have ended.
            let _ = running.kill();
            let _ = running.wait();
        }
    }
}

fn start_naive(listen: SocketAddr, brokers: &str, topic: &str) -> Child {
    let mut command = mortal(std::env::current_exe().unwrap());
    command.args(["naive", &listen.to_string(), brokers, topic]);
    let child = spawn(command);
    let until = Instant::now() + READY;
    while TcpStream::connect(listen).is_err() {
        assert!(Instant::now() < until, "the bridge does not listen");
        sleep(Duration::from_millis(20));
    }
    child
}
