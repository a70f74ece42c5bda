//! What starts each of them.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::{
    super::{target, venv},
    Broker, Consumer,
};

pub const ALL: &[Consumer] = &[
    Consumer {
        name: "rust",
        reads: Broker::Kafka,
        build: |_, _| Ok(vec![target::example("consumer").display().to_string()]),
    },
    Consumer {
        name: "python",
        reads: Broker::Kafka,
        build: |folder, _| python(folder),
    },
    Consumer {
        name: "python-rabbitmq",
        reads: Broker::RabbitMq,
        build: |folder, _| python(folder),
    },
    Consumer {
        name: "java",
        reads: Broker::Kafka,
        build: |folder, _| java(folder),
    },
    Consumer {
        name: "java-rabbitmq",
        reads: Broker::RabbitMq,
        build: |folder, _| java(folder),
    },
    Consumer {
        name: "go",
        reads: Broker::Kafka,
        build: go,
    },
    Consumer {
        name: "typescript",
        reads: Broker::Kafka,
        build: |folder, _| typescript(folder),
    },
];

/// Those that read this broker.
pub fn of(broker: Broker) -> impl Iterator<Item = &'static Consumer> {
    ALL.iter().filter(move |consumer| consumer.reads == broker)
}

/// Whether a command can be run, and ends well.
pub fn runs(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Python is not built.
fn python(folder: &Path) -> Result<Vec<String>, String> {
    if !runs(&["python3", "-c", "import venv, ensurepip"]) {
        return Err("Python with venv".into());
    }
    let program = folder.join("consumer.py").display().to_string();
    Ok(vec![venv::python().display().to_string(), program])
}

fn java(folder: &Path) -> Result<Vec<String>, String> {
    if !runs(&["java", "-version"]) || !runs(&["javac", "-version"]) || !runs(&["mvn", "-version"]) {
        return Err("a JDK and Maven".into());
    }
    let root = Path::new(crate::ROOT);
    let status = Command::new(root.join("tests/package.sh")).arg(folder).status();
    assert!(status.unwrap().success(), "{}: it does not build", folder.display());
    let jar = folder.join("target/consumer.jar").display().to_string();
    let options = ["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
    let words = ["java"].into_iter().chain(options).chain(["-jar", &jar]);
    Ok(words.map(str::to_owned).collect())
}

/// A Go that is too old for `go.mod` fetches the one that it names, unless `GOTOOLCHAIN` forbids it; before 1.21 it
/// cannot read the file.
fn go(folder: &Path, kept: &Path) -> Result<Vec<String>, String> {
    let go = |arguments: &[&str]| {
        let mut command = Command::new("go");
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        command
    };
    let can_read = go(&["list", "-m"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !can_read.is_ok_and(|status| status.success()) {
        return Err("Go, as new as its go.mod says".into());
    }
    let program = kept.join("consumer").display().to_string();
    let status = go(&["build", "-o", &program, "."]).status();
    assert!(status.unwrap().success(), "{}: it does not build", folder.display());
    Ok(vec![program])
}

fn typescript(folder: &Path) -> Result<Vec<String>, String> {
    let is_new = "process.exit(Number(process.versions.node.split('.')[0]) >= 20 ? 0 : 1)";
    if !runs(&["node", "-e", is_new]) || !runs(&["npm", "--version"]) {
        return Err("Node.js 20 or newer, with npm".into());
    }
    let npm = |arguments: &[&str]| {
        let mut command = Command::new("npm");
        let quiet = command.args(arguments).current_dir(folder).stdin(Stdio::null());
        let status = quiet.stdout(std::io::stderr()).status();
        assert!(status.unwrap().success(), "{}: npm {arguments:?}", folder.display());
    };
    let changed = |path: &str| folder.join(path).metadata().and_then(|file| file.modified()).ok();
    if changed("node_modules/.package-lock.json") < changed("package-lock.json") {
        npm(&["ci", "--silent"]);
    }
    npm(&["run", "--silent", "build"]);
    Ok(vec!["node".into(), folder.join("dist/main.js").display().to_string()])
}
