//! Server processes that end with the test, however it ends.

use std::{
    ffi::OsStr,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
        mpsc::{Sender, channel},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Panics where a run is to do without this broker: `tests/run.sh` groups tests by what they need, and none may start
/// another unseen.
pub fn brokers_are_allowed(broker: &str) {
    let Ok(allowed) = std::env::var("FOREBAY_TEST_BROKERS") else {
        return;
    };
    assert!(
        allowed.split(' ').any(|one| one == broker),
        "this test starts a {broker}: in tests/run.sh it is in a group that needs [{allowed}]"
    );
}

/// A job for the thread that spawns, and where to send the child.
type Job = (Command, Sender<std::io::Result<Child>>);

/// The one thread that spawns: the kernel's `PR_SET_PDEATHSIG` fires when the *thread* that spawned ends, and a test's
/// thread ends before a shared broker may.
static SPAWNER: LazyLock<Sender<Job>> = LazyLock::new(|| {
    let (jobs, queue) = channel::<Job>();
    std::thread::Builder::new()
        .name("spawner".into())
        .spawn(move || {
            for (mut command, reply) in queue {
                // Nobody waits any more: dropping the child is all there is to do.
                let _ = reply.send(command.spawn());
            }
        })
        .unwrap();
    jobs
});

/// Starts a program on a thread that lives as long as this process.
pub fn spawn(command: Command) -> Child {
    let (reply, child) = channel();
    SPAWNER.send((command, reply)).unwrap();
    child.recv().unwrap().expect("setpriv can be run")
}

/// A command that is killed when this process dies.
pub fn mortal(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program).stdin(Stdio::null());
    command
}

/// A [`mortal`] process with its output in a file; killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Runs a command; its output goes to the end of `log`.
    pub fn run(mut command: Command, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        command.stdout(output.try_clone().unwrap()).stderr(output);
        Self {
            child: spawn(command),
            log: log.into(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// Waits for a good end.
    pub fn finish(mut self) {
        let status = self.child.wait().unwrap();
        assert!(
            status.success(),
            "{status}: {}",
            std::fs::read_to_string(&self.log).unwrap_or_default()
        );
    }

    pub fn kill(mut self) {
        self.end();
    }

    pub fn terminate(mut self) {
        self.signal("TERM");
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.ended().is_none() {
            assert!(Instant::now() < deadline, "it does not stop: {}", self.log.display());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    fn end(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A temporary directory that says whose it is: what it is for, then the id of this process. Those of processes that
/// are gone are removed, because nothing drops what a static holds.
pub fn directory(prefix: &str) -> TempDir {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(prefix)?.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another run may sweep at the same time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("{prefix}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().unwrap()
}

/// A temporary directory that nobody else can enter, as is right for one with a configuration that holds secrets.
pub fn private_dir() -> TempDir {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().unwrap()
}

/// A port that nobody listens on. Below the range from which the kernel takes ports for outgoing connections, so that
/// none of those is in the way when a broker comes back.
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(97)));
    (0..COUNT)
        .map(|_| FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Resets the connections to a port of this machine, both ends at once, as a device on the way does that has lost its
/// memory. Needs root. Returns how many there were.
pub fn reset_connections(port: u16) -> usize {
    let port = port.to_string();
    let filter = ["state", "established", "dst", "127.0.0.1", "dport", "=", &port];
    let output = Command::new("ss")
        .args(["-K", "-H", "-t", "-n"])
        .args(filter)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).lines().count()
}
