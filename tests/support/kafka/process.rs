//! Java processes that end with the test, however it ends.

use std::{
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

/// A job for the thread that spawns, and where to send the child.
type Job = (Command, Sender<std::io::Result<Child>>);

/// The one thread that spawns: the kernel's `PR_SET_PDEATHSIG` fires when the *thread* that spawned ends, and a test's thread
/// ends before a shared broker may.
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

fn spawn(command: Command) -> Child {
    let (reply, child) = channel();
    SPAWNER.send((command, reply)).unwrap();
    child.recv().unwrap().expect("setpriv and java can be run")
}

pub struct Java {
    child: Child,
    log: PathBuf,
}

impl Java {
    /// Runs a class of Kafka's; its output goes to the end of `log`.
    pub fn run(class: &str, arguments: &[&str], log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let mut command = command();
        command
            .arg(class)
            .args(arguments)
            .stdout(output.try_clone().unwrap())
            .stderr(output);
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
            assert!(
                Instant::now() < deadline,
                "the broker does not stop: {}",
                self.log.display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    fn end(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        self.end();
    }
}

/// `java` with Kafka's jars, killed when this process dies.
fn command() -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "java", "-Xms256m", "-Xmx512m"])
        // Up quickly, and modest on a small machine.
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-cp"])
        .arg(format!("{}/*", jars().display()))
        .stdin(Stdio::null());
    command
}

pub fn run_source(program: &str, arguments: &[&str]) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka").join(program);
    let mut command = command();
    command
        .arg(source)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let output = spawn(command).wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Kafka's jars, fetched by Maven once.
fn jars() -> &'static Path {
    static JARS: LazyLock<PathBuf> = LazyLock::new(|| {
        let prepare = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/jars.sh");
        let output = Command::new(prepare).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "tests/kafka/jars.sh: {}", output.status);
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    });
    &JARS
}

/// A port that nobody listens on. Below the range from which the kernel takes ports for outgoing connections, so that none of
/// those is in the way when a broker comes back.
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
