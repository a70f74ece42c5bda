//! Java programs with Kafka's jars.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use super::super::{
    fetched,
    process::{Process, mortal, spawn},
};

/// Runs a class of Kafka's, of the jars in `jars`; its output goes to the end of `log`.
pub fn run(jars: &Path, class: &str, arguments: &[&str], log: &Path) -> Process {
    let mut command = command(jars);
    command.arg(class).args(arguments);
    Process::run(command, log)
}

fn command(jars: &Path) -> Command {
    let mut command = mortal("java");
    command
        .args(["-Xms256m", "-Xmx512m"])
        // Up quickly, and modest on a small machine.
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-cp"])
        .arg(format!("{}/*", jars.display()));
    command
}

pub fn run_source(program: &str, arguments: &[&str]) -> String {
    let source = Path::new(crate::ROOT).join("tests/kafka").join(program);
    let mut command = command(jars());
    command
        .arg(source)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let output = spawn(command).wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The jars of the Kafka that most tests have.
pub fn jars() -> &'static Path {
    static JARS: LazyLock<PathBuf> = LazyLock::new(|| fetched::jars("tests/kafka"));
    &JARS
}
