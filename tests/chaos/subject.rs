//! What is tried: a process that takes webhooks in, and can be killed and started again.

use std::{
    net::{SocketAddr, TcpStream},
    process::Child,
    thread::sleep,
    time::{Duration, Instant},
};

use forebay_test_support::{
    forebay::{Forebay, Setup},
    process::{free_port, mortal, spawn},
};
use rustix::process::{Pid, Signal, kill_process};

const READY: Duration = Duration::from_secs(30);
const STOPPED: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    Forebay,
    Naive,
}

impl SubjectKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Forebay => "Forebay",
            Self::Naive => "without a disk",
        }
    }
}

/// One that runs.
pub enum Subject {
    Forebay {
        setup: Box<Setup>,
        running: Forebay,
    },
    Naive {
        listen: SocketAddr,
        brokers: String,
        topic: String,
        running: Child,
    },
}

impl Subject {
    pub fn start(kind: SubjectKind, brokers: &str, topic: &str) -> Self {
        match kind {
            SubjectKind::Forebay => {
                let setup = Box::new(Setup::new(brokers, topic));
                let running = setup.start();
                Self::Forebay { setup, running }
            }
            SubjectKind::Naive => {
                let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
                Self::Naive {
                    running: start_naive(listen, brokers, topic),
                    listen,
                    brokers: brokers.to_owned(),
                    topic: topic.to_owned(),
                }
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Forebay { setup, .. } => setup.public,
            Self::Naive { listen, .. } => *listen,
        }
    }

    /// Ends it, in order, as a roll does, or at once, with nothing said; and starts a new one.
    pub fn restart(&mut self, in_order: bool) {
        match self {
            Self::Forebay { setup, running } => {
                match in_order {
                    true => assert_eq!(running.terminate(STOPPED).code(), Some(0)),
                    false => running.kill(),
                }
                *running = setup.start();
            }
            Self::Naive {
                listen,
                brokers,
                topic,
                running,
            } => {
                let signal = if in_order { Signal::TERM } else { Signal::KILL };
                kill_process(Pid::from_child(running), signal).unwrap();
                running.wait().unwrap();
                *running = start_naive(*listen, brokers, topic);
            }
        }
    }
}

impl Drop for Subject {
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
