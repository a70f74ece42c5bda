//! The servers that are compared, each in a process of its own that ends with this one.

pub mod afternoon;
pub mod bare;

use std::{
    fmt, fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    load::{PATH, SECRET},
    support::{cpu, server},
};

/// How long Forebay may publish what was left of a load.
const DRAIN_DEADLINE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// Reads the body and answers 200.
    Bare,
    /// `forebay serve`: answers when the record is on disk.
    Forebay,
    /// Answers when Kafka has it; keeps nothing on disk.
    Afternoon,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "bare",
            Self::Forebay => "forebay",
            Self::Afternoon => "afternoon",
        })
    }
}

pub struct Server {
    child: Child,
    url: String,
    /// Forebay's own address for metrics.
    admin: Option<u16>,
    _dir: TempDir,
}

/// What a server has used and done so far.
#[derive(Debug)]
pub struct Usage {
    /// Of all its threads, in user and kernel mode.
    pub cpu: Duration,
    /// Messages that Kafka has confirmed to Forebay.
    pub published: Option<f64>,
}

impl Server {
    pub fn start(kind: Kind, brokers: &str, topic: &str, dir: TempDir, within: Duration) -> Result<Self> {
        let port = server::free_port()?;
        let admin = (kind == Kind::Forebay).then(server::free_port).transpose()?;
        // Ends with this process, however this ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        let this = std::env::current_exe()?;
        match (kind, admin) {
            (Kind::Bare, _) => command.arg(this).args(["bare", &port.to_string()]),
            (Kind::Afternoon, _) => command.arg(this).args(["afternoon", &port.to_string(), brokers, topic]),
            (Kind::Forebay, admin) => {
                let config = server::Config {
                    port,
                    admin: admin.unwrap_or_default(),
                    path: PATH,
                    secret: SECRET,
                    brokers,
                    topic,
                    route: "",
                };
                command
                    .arg(env!("CARGO_BIN_EXE_forebay"))
                    .arg("serve")
                    .arg("--config")
                    .arg(config.write(dir.path())?)
            }
        };
        let log = fs::File::create(dir.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = Self {
            child: command.spawn().context("failed to start setpriv")?,
            url: format!("http://127.0.0.1:{port}{PATH}"),
            admin,
            _dir: dir,
        };
        server.wait(port, within)?;
        Ok(server)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn usage(&self) -> Result<Usage> {
        Ok(Usage {
            cpu: cpu(self.child.id())?,
            published: self.metric("forebay_published_total")?,
        })
    }

    /// Waits until Forebay has published all that it has taken in.
    pub fn drained(&self) -> Result<()> {
        let deadline = Instant::now() + DRAIN_DEADLINE;
        while self
            .metric("forebay_route_backlog_records")?
            .is_some_and(|records| records > 0.0)
        {
            ensure!(Instant::now() < deadline, "still a backlog after {DRAIN_DEADLINE:?}");
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The sum of a metric over its labels. `None` for a server without metrics.
    fn metric(&self, name: &str) -> Result<Option<f64>> {
        self.admin.map(|admin| server::metric(admin, name)).transpose()
    }

    fn wait(&mut self, port: u16, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let ready = match self.admin {
                Some(admin) => server::is_ready(admin),
                None => TcpStream::connect(("127.0.0.1", port)).is_ok(),
            };
            if ready {
                return Ok(());
            }
            let log = || fs::read_to_string(self._dir.path().join("log")).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}: {}", log());
            }
            ensure!(Instant::now() < deadline, "not ready within {within:?}: {}", log());
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
