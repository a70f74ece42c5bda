//! The real binary, and what it says: kept, so that it can be searched for secrets.
//!
//! All that any process of it writes to stdout and stderr goes into files below `FOREBAY_TEST_OUTPUT` (else a directory
//! of this process's own), and on to the test. `tests/it/secrets.rs` searches them.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    process::{Process, directory},
    target,
};

/// The variable that names the directory.
pub const OUTPUT: &str = "FOREBAY_TEST_OUTPUT";

/// Where output is kept.
pub fn output_dir() -> &'static Path {
    static DIR: LazyLock<PathBuf> = LazyLock::new(|| match std::env::var_os(OUTPUT) {
        Some(dir) => dir.into(),
        // Swept by a later run, when this process is gone.
        None => directory("forebay-output-").keep(),
    });
    &DIR
}

/// A path of its own for one stream of one process.
fn path(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    output_dir().join(format!("{}-{number}-{name}", std::process::id()))
}

/// A file there.
pub fn keep(name: &str) -> File {
    File::create(path(name)).expect("a file below FOREBAY_TEST_OUTPUT")
}

/// As [`Command`], of which it has what the tests need; but what it says is kept.
pub struct Program(Command);

/// `forebay`.
pub fn forebay() -> Program {
    Program(Command::new(target::binary()))
}

/// `forebay`, run by another program (strace, faketime).
pub fn forebay_by(wrapper: &[String]) -> Program {
    match wrapper {
        [] => forebay(),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(target::binary());
            Program(command)
        }
    }
}

impl Program {
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.0.arg(argument);
        self
    }

    pub fn args<A: AsRef<OsStr>>(&mut self, arguments: impl IntoIterator<Item = A>) -> &mut Self {
        self.0.args(arguments);
        self
    }

    pub fn env(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Self {
        self.0.env(name, value);
        self
    }

    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, all: impl IntoIterator<Item = (N, V)>) -> &mut Self {
        self.0.envs(all);
        self
    }

    pub fn env_clear(&mut self) -> &mut Self {
        self.0.env_clear();
        self
    }

    pub fn env_remove(&mut self, name: &str) -> &mut Self {
        self.0.env_remove(name);
        self
    }

    /// Starts it. Both of its outputs are there to be read, and stdin is closed.
    pub fn spawn(&mut self) -> Child {
        self.spawn_with(Stdio::null())
    }

    /// Starts it with this stdin.
    pub fn spawn_with(&mut self, stdin: Stdio) -> Child {
        let command = self.0.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let name = self.0.get_args().find_map(OsStr::to_str).unwrap_or("forebay");
        let name = name.rsplit('/').next().unwrap_or_default();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        child.stdout = Some(ChildStdout::from(kept(stdout, &format!("{name}.stdout"))));
        child.stderr = Some(ChildStderr::from(kept(stderr, &format!("{name}.stderr"))));
        child
    }

    /// Starts it as a server, which is killed when it is dropped.
    pub fn serve(self) -> Process {
        Process::run(self.0, &path("server"))
    }

    /// Runs it to its end.
    pub fn output(&mut self) -> std::io::Result<Output> {
        self.spawn().wait_with_output()
    }

    /// Runs it to its end, and tells what it said if that was not a good one.
    pub fn status(&mut self) -> std::io::Result<ExitStatus> {
        let output = self.output()?;
        if !output.status.success() {
            std::io::stderr().write_all(&output.stderr)?;
        }
        Ok(output.status)
    }
}

/// A pipe on which all comes that is read from `from`, once it is kept.
fn kept(mut from: impl Read + Send + 'static, name: &str) -> OwnedFd {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let mut file = keep(name);
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(bytes @ 1..) = from.read(&mut buffer) {
            file.write_all(&buffer[..bytes]).expect("room for what a test says");
            // Nobody listens any more: the program finds that out in its turn.
            if writer.write_all(&buffer[..bytes]).is_err() {
                return;
            }
        }
    });
    reader.into()
}
