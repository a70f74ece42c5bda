//! The readers of `tests/cloudevents`: a message a line goes in, what was read of it comes out.

use std::{
    io::{BufRead as _, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::LazyLock,
};

use serde_json::Value;

use crate::support::{
    consumers::runs,
    fetched,
    process::{mortal, spawn},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A program with one of the SDKs, which runs until it is dropped.
pub struct Reader {
    pub sdk: &'static str,
    child: Child,
    lines: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What a reader makes of a message.
#[derive(Debug)]
pub enum Answer {
    /// The attributes of the event that it is.
    Read(Value),
    /// Why it is none.
    Refused(String),
}

/// A reader of each SDK. `None`, said on stderr, where this machine lacks something; in CI that is a failure.
pub fn sdks() -> Option<Vec<Reader>> {
    static SDKS: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let needed: [&[&str]; 4] = [
            &["python3", "-c", "import venv, ensurepip"],
            &["javac", "-version"],
            &["mvn", "-version"],
            &["go", "version"],
        ];
        if let Some(missing) = needed.into_iter().find(|words| !runs(words)) {
            let left_out = format!("LEFT OUT, for want of {}: the CloudEvents SDKs", missing[0]);
            assert!(std::env::var_os("CI").is_none(), "{left_out}");
            // Not by `eprintln!`, which a test that passes keeps to itself.
            let _ = writeln!(std::io::stderr(), "{left_out}");
            return None;
        }
        Some(fetched::by("tests/cloudevents.sh", &[]))
    });
    let sdks = SDKS.as_ref()?;
    let of_this_repository = |name: &str| Path::new(ROOT).join("tests/cloudevents").join(name);
    let mut python = mortal(sdks.join("venv/bin/python"));
    python.arg(of_this_repository("read_events.py"));
    let mut java = mortal("java");
    java.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(format!("{}/*", sdks.join("jars").display()))
        .arg(of_this_repository("ReadEvents.java"));
    let go = mortal(sdks.join("read_events"));
    Some(vec![
        Reader::start("python", python),
        Reader::start("java", java),
        Reader::start("go", go),
    ])
}

impl Reader {
    fn start(sdk: &'static str, mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = spawn(command);
        let lines = child.stdin.take().expect("it is a pipe");
        let answers = BufReader::new(child.stdout.take().expect("it is a pipe"));
        Self {
            sdk,
            child,
            lines,
            answers,
        }
    }

    /// What it makes of each of these messages; fewer answers where it ended.
    pub fn read(&mut self, messages: &[String]) -> Vec<Answer> {
        let (lines, answers) = (&mut self.lines, &mut self.answers);
        std::thread::scope(|scope| {
            // It answers while it is written to: either pipe may be full.
            scope.spawn(move || {
                for message in messages {
                    if writeln!(lines, "{message}").is_err() {
                        break;
                    }
                }
                let _ = lines.flush();
            });
            let lines = answers.lines().map_while(Result::ok).take(messages.len());
            lines.map(|line| answer(&line)).collect()
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(line: &str) -> Answer {
    let mut answer: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    match answer["refused"].take() {
        Value::String(error) => Answer::Refused(error),
        _ => Answer::Read(answer["attributes"].take()),
    }
}
