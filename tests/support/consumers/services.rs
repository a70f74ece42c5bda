//! What starts each of them.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::{Broker, Consumer};

pub const ALL: &[Consumer] = &[
    Consumer {
        name: "python",
        reads: Broker::Kafka,
        build: |folder, _| python(folder, "confluent_kafka"),
    },
    Consumer {
        name: "python-rabbitmq",
        reads: Broker::RabbitMq,
        build: |folder, _| python(folder, "pika"),
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

/// Python is not built. `tests/run.sh` installs the packages that its examples name, and sets `FOREBAY_TEST_PYTHON`.
fn python(folder: &Path, package: &str) -> Result<Vec<String>, String> {
    let given = std::env::var("FOREBAY_TEST_PYTHON").ok();
    let python = given
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| "python3".into());
    if !runs(&[&python, "-c", &format!("import {package}")]) {
        return Err(format!("Python with {package}"));
    }
    Ok(vec![python, folder.join("consumer.py").display().to_string()])
}

fn java(folder: &Path) -> Result<Vec<String>, String> {
    if !runs(&["java", "-version"]) || !runs(&["javac", "-version"]) || !runs(&["mvn", "-version"]) {
        return Err("a JDK and Maven".into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = Command::new(root.join("tests/package.sh")).arg(folder).status();
    assert!(status.unwrap().success(), "{}: it does not build", folder.display());
    let jar = folder.join("target/consumer.jar").display().to_string();
    let options = ["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
    let words = ["java"].into_iter().chain(options).chain(["-jar", &jar]);
    Ok(words.map(str::to_owned).collect())
}
