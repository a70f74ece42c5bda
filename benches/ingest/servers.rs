//! The servers that are compared, each in a process of its own that ends with this one.

pub mod afternoon;
pub mod bare;

use std::{
    ffi::OsStr,
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
/// How long Forebay may take to end in order.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// Reads the body and answers 200.
    Bare,
    /// `forebay serve`: answers when the record is on disk.
    Forebay,
    /// Another build of it, that of `--before`.
    Before,
    /// Answers when Kafka has it; keeps nothing on disk.
    Afternoon,
}

impl Kind {
    /// Whether it is a Forebay.
    pub fn is_forebay(self) -> bool {
        matches!(self, Self::Forebay | Self::Before)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "bare",
            Self::Forebay => "forebay",
            Self::Before => "before",
            Self::Afternoon => "afternoon",
        })
    }
}

pub struct Server {
    child: Running,
    url: String,
    /// Forebay's own address for metrics.
    admin: Option<u16>,
    dir: TempDir,
}

/// Where a server publishes to.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub brokers: &'a str,
    pub topic: &'a str,
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
    /// `forebay`: the command of one that is a Forebay.
    pub fn start(kind: Kind, forebay: &[&OsStr], target: Target<'_>, dir: TempDir, within: Duration) -> Result<Self> {
        let Target { brokers, topic } = target;
        let port = server::free_port()?;
        let admin = kind.is_forebay().then(server::free_port).transpose()?;
        // Ends with this process, however this ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        let this = std::env::current_exe()?;
        match (kind, admin) {
            (Kind::Bare, _) => command.arg(this).args(["bare", &port.to_string()]),
            (Kind::Afternoon, _) => command.arg(this).args(["afternoon", &port.to_string(), brokers, topic]),
            (Kind::Forebay | Kind::Before, admin) => {
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
                    .args(forebay)
                    .arg("serve")
                    .arg("--config")
                    .arg(config.write(dir.path())?)
            }
        };
        let log = fs::File::create(dir.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = Self {
            child: Running(command.spawn().context("failed to start setpriv")?),
            url: format!("http://127.0.0.1:{port}{PATH}"),
            admin,
            dir,
        };
        server.wait(port, within)?;
        Ok(server)
    }

    /// Kills it, and leaves what it has on disk.
    pub fn kill(self) -> TempDir {
        self.dir
    }

    /// Ends it in order.
    pub fn stop(mut self) -> Result<()> {
        let asked = Command::new("kill").arg(self.child.0.id().to_string()).status()?;
        ensure!(asked.success(), "kill: {asked}");
        let deadline = Instant::now() + STOP_DEADLINE;
        while self.child.0.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "it has not ended within {STOP_DEADLINE:?}");
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn usage(&self) -> Result<Usage> {
        Ok(Usage {
            cpu: cpu(self.child.0.id())?,
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
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            if let Some(status) = self.child.0.try_wait()? {
                bail!("it ended with {status}: {}", log());
            }
            ensure!(Instant::now() < deadline, "not ready within {within:?}: {}", log());
            sleep(Duration::from_millis(20));
        }
    }
}

/// Ended with its server.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
