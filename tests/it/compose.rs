//! `docker-compose.yml` without Docker: it is what the Compose specification says, nothing in it is missing or loose,
//! and what its services run is run here, with their own configuration. `tests/compose.sh` runs the whole.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    ROOT,
    forebay::{Setup, wait_until},
    http,
    kafka::{self, create_topic},
    process::{Process, free_port, mortal},
    prometheus::promtool,
    rabbitmq, target, venv,
};

const DEADLINE: Duration = Duration::from_secs(60);

fn root(path: &str) -> PathBuf {
    Path::new(ROOT).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What a Compose file means, by the specification's own parser; `Err`: what is wrong with it.
fn parse(file: &Path) -> Result<Value, String> {
    static PARSER: LazyLock<PathBuf> = LazyLock::new(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compose");
        let mut build = Command::new("go");
        build
            .args(["build", "-o", program.to_str().unwrap(), "."])
            .current_dir(root("tests/compose"));
        assert!(build.status().unwrap().success(), "tests/compose: it does not build");
        program
    });
    let output = Command::new(PARSER.as_path()).arg(file).output().unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn project() -> &'static Value {
    static PROJECT: LazyLock<Value> = LazyLock::new(|| parse(&root("docker-compose.yml")).unwrap());
    &PROJECT
}

fn services() -> impl Iterator<Item = (&'static String, &'static Value)> {
    project()["services"].as_object().unwrap().iter()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .map(|text| text.as_str().unwrap())
        .collect()
}

#[test]
fn the_file_is_what_the_specification_says() {
    assert!(
        services().count() >= 9,
        "{:?}",
        services().map(|(name, _)| name).collect::<Vec<_>>()
    );
    let dir = TempDir::new().unwrap();
    let text = read("docker-compose.yml");
    for (right, wrong) in [
        ("read_only: true", "readonly: true"),
        ("condition: service_healthy", "condition: healthy"),
        ("- forebay:/var/lib/forebay", "- spool:/var/lib/forebay"),
        ("interval: 10s", "interval: soon"),
        ("      kafka:\n        condition", "      kafak:\n        condition"),
    ] {
        assert!(text.contains(right), "{right}");
        let path = dir.path().join("docker-compose.yml");
        fs::write(&path, text.replacen(right, wrong, 1)).unwrap();
        assert!(parse(&path).is_err(), "{wrong}");
    }
}

/// What a service lacks to be started by everybody with the same outcome, and to be seen by nobody else.
fn loose(name: &str, service: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut find = |what: &str| found.push(format!("{name}: {what}"));
    match service["image"].as_str() {
        // Built here.
        Some("forebay:local") => {}
        Some(image) => {
            let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
            if tag
                .trim_start_matches('v')
                .split(['.', '-'])
                .filter(|part| part.parse::<u32>().is_ok())
                .count()
                < 3
            {
                find(&format!("{image} names no version"));
            }
        }
        None if service["build"].is_object() => {}
        None => find("no image"),
    }
    // Those that others wait for until they are done have no health.
    let one_shot =
        services().any(|(_, other)| other["depends_on"][name]["condition"] == "service_completed_successfully");
    if !one_shot && service["healthcheck"].is_null() {
        find("no health check");
    }
    for port in service["ports"].as_array().into_iter().flatten() {
        if port["host_ip"] != "127.0.0.1" {
            find(&format!("port {} is open to everybody", port["published"]));
        }
    }
    for mount in service["volumes"].as_array().into_iter().flatten() {
        let source = mount["source"].as_str().unwrap_or_default();
        if mount["type"] == "bind" && (!Path::new(source).exists() || mount["read_only"] != true) {
            find(&format!("{source} is not there, or can be written"));
        }
    }
    for (variable, value) in service["environment"].as_object().into_iter().flatten() {
        let secret = ["PASSWORD", "SECRET", "TOKEN", "COOKIE"]
            .iter()
            .any(|word| variable.contains(word));
        if secret && !variable.ends_with("__FILE") {
            find(&format!("{variable}={value} is a secret"));
        }
    }
    for word in texts(&service["command"]) {
        if word.contains("secret=") && !word.contains("secret=file:") {
            find("a secret in its command");
        }
    }
    found
}

#[test]
fn every_service_is_pinned_healthy_private_and_without_a_secret() {
    let found: Vec<String> = services().flat_map(|(name, service)| loose(name, service)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    let wrong = serde_json::json!({
        "image": "rabbitmq:4-management",
        "ports": [{"published": "5672"}],
        "volumes": [{"type": "bind", "source": "/not/there", "read_only": true}],
        "environment": {"RABBITMQ_DEFAULT_PASS": "a", "RABBITMQ_ERLANG_COOKIE": "b"},
        "command": ["--secret=abc"],
    });
    assert_eq!(loose("wrong", &wrong).len(), 6, "{:?}", loose("wrong", &wrong));
}

#[test]
fn the_secrets_are_made_once_and_whole() {
    let service = &project()["services"]["secrets"];
    let command = texts(&service["command"]);
    assert_eq!(command, ["sh", "/make-secrets.sh", "/secrets"]);
    let dir = TempDir::new().unwrap();
    // Not everybody who runs this may give files away: what would be given to whom is told.
    let given = dir.path().join("given");
    let programs = dir.path().join("programs");
    fs::create_dir(&programs).unwrap();
    let chown = programs.join("chown");
    fs::write(&chown, format!("#!/bin/sh\necho \"$1\" >>{}\n", given.display())).unwrap();
    fs::set_permissions(&chown, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let secrets = dir.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    let make = || {
        let mut sh = Command::new("sh");
        sh.arg(root("deploy/compose/make-secrets.sh"))
            .arg(&secrets)
            .env("PATH", &path);
        assert!(sh.status().unwrap().success());
        let mut names: Vec<_> = fs::read_dir(&secrets)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["grafana", "webhook"]);
        ["grafana", "webhook"].map(|name| fs::read_to_string(secrets.join(name)).unwrap())
    };
    let first = make();
    assert_ne!(first[0], first[1]);
    assert!(first.iter().all(|secret| secret.trim().len() == 44), "{first:?}");
    assert_eq!(make(), first, "they stay");
    // Forebay's, and Grafana's.
    assert_eq!(fs::read_to_string(&given).unwrap(), "10001:10001\n472:0\n");
}

#[test]
fn prometheus_takes_its_configuration_and_scrapes_what_is_there() {
    let service = &project()["services"]["prometheus"];
    let dir = TempDir::new().unwrap();
    // Where the mounts would put them.
    for mount in service["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|mount| mount["type"] == "bind")
    {
        let target = mount["target"]
            .as_str()
            .unwrap()
            .strip_prefix("/etc/prometheus/")
            .unwrap();
        let text = fs::read_to_string(mount["source"].as_str().unwrap()).unwrap();
        fs::write(
            dir.path().join(target),
            text.replace("/etc/prometheus", dir.path().to_str().unwrap()),
        )
        .unwrap();
    }
    promtool(dir.path(), &["check", "config", "prometheus.yml"]).unwrap();
    let text = fs::read_to_string(dir.path().join("prometheus.yml")).unwrap();
    assert!(
        text.contains("[\"forebay:9464\"]"),
        "where admin.listen is by default: {text}"
    );
    fs::write(dir.path().join("prometheus.yml"), text.replace("rules.yml", "rule.yml")).unwrap();
    assert!(promtool(dir.path(), &["check", "config", "prometheus.yml"]).is_err());
    let words = texts(&service["command"]);
    assert!(
        words.contains(&"--config.file=/etc/prometheus/prometheus.yml"),
        "{words:?}"
    );
}

#[test]
fn grafana_finds_prometheus_and_the_dashboards() {
    let source = read("deploy/grafana/provisioning/datasources/prometheus.yml");
    assert!(source.contains("url: http://prometheus:9090\n") && source.contains("isDefault: true\n"));
    let provider = read("deploy/grafana/provisioning/dashboards/forebay.yml");
    let grafana = &project()["services"]["grafana"];
    let mounted: BTreeSet<&str> = grafana["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|mount| mount["target"].as_str())
        .collect();
    for (path, said) in [
        ("/etc/grafana/forebay", &*provider),
        ("/etc/grafana/provisioning", "/etc/grafana/provisioning"),
    ] {
        assert!(mounted.contains(path) && said.contains(path), "{path}: {mounted:?}");
    }
}

/// The services' configuration of Forebay, with the brokers and places of this machine.
struct Trial {
    setup: Setup,
    environment: Vec<(String, String)>,
    secrets: PathBuf,
}

impl Trial {
    fn new(brokers: &str, topic: &str, uri: &str) -> Self {
        let setup = Setup::new(brokers, topic);
        let secrets = setup.dir.path().join("secrets");
        fs::create_dir(&secrets).unwrap();
        fs::write(secrets.join("webhook"), crate::support::forebay::SECRET).unwrap();
        let environment = [
            ("FOREBAY__SERVER__LISTEN", setup.public.to_string()),
            ("FOREBAY__SERVER__DRAIN_DELAY", "100ms".to_owned()),
            ("FOREBAY__ADMIN__LISTEN", setup.admin.to_string()),
            ("FOREBAY__SPOOL__DIR", setup.spool().display().to_string()),
            (
                "FOREBAY__ENDPOINTS__DEMO__SECRETS",
                format!("file:{}", secrets.join("webhook").display()),
            ),
            ("FOREBAY__SINKS__KAFKA__BROKERS", brokers.to_owned()),
            ("FOREBAY__ROUTES__KAFKA__TOPIC", topic.to_owned()),
            ("FOREBAY__ROUTES__THUMBNAILS__TOPIC", topic.to_owned()),
            ("FOREBAY__SINKS__RABBITMQ__URI", uri.to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self {
            setup,
            environment,
            secrets,
        }
    }

    /// A service's words, with the places of this machine in place of the file's.
    fn words(&self, service: &str, places: &[(&str, &str)]) -> Vec<String> {
        let mut words: Vec<String> = texts(&project()["services"][service]["command"])
            .iter()
            .map(|&word| word.to_owned())
            .collect();
        for (theirs, ours) in places {
            assert!(
                words.iter().any(|word| word.contains(theirs)),
                "{service}: {theirs} in {words:?}"
            );
            for word in &mut words {
                *word = word.replace(theirs, ours);
            }
        }
        words
    }

    fn forebay(&self, words: &[String]) -> Command {
        let mut command = mortal(target::binary());
        command
            .args(words)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("FOREBAY_CONFIG", root("deploy/compose/forebay.toml"));
        command
    }

    fn log(&self, name: &str) -> PathBuf {
        self.setup.dir.path().join(name)
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_goes_from_its_sender_to_both_consumers() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "demo", 12, &[("max.message.bytes", "23068672")]).await;
    let vhost = rabbitmq::shared().vhost("demo");
    let trial = Trial::new(&brokers, &topic, &vhost.uri());

    let forebay = &project()["services"]["forebay"];
    let mounted = forebay["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|mount| mount["target"] == "/etc/forebay/forebay.toml");
    assert_eq!(
        mounted.unwrap()["source"].as_str(),
        root("deploy/compose/forebay.toml").to_str()
    );
    let check = trial.forebay(&["check".to_owned()]).output().unwrap();
    assert!(
        check.status.success() && !said(&check).contains("warning"),
        "{}",
        said(&check)
    );
    let _serving = Process::run(trial.forebay(&trial.words("forebay", &[])), &trial.log("forebay"));
    // The health check of the service: its program is elsewhere, its words are these.
    let health: Vec<String> = texts(&forebay["healthcheck"]["test"])[2..]
        .iter()
        .map(|&word| word.to_owned())
        .collect();
    wait_until("the service is healthy", DEADLINE, || {
        trial.forebay(&health).output().unwrap().status.success()
    });

    let python = venv::python().to_str().unwrap();
    let mut consumers = Vec::new();
    for (service, places) in [
        (
            "demo-kafka-consumer",
            vec![("kafka:19092", brokers.as_str()), ("millicast.events", &topic)],
        ),
        ("demo-rabbitmq-consumer", vec![("amqp://rabbitmq", &vhost.uri())]),
    ] {
        let data = trial.log(&format!("{service}-data"));
        fs::create_dir(&data).unwrap();
        let words = trial.words(service, &[places, vec![("/data", data.to_str().unwrap())]].concat());
        let context = project()["services"][service]["build"]["context"].as_str().unwrap();
        let mut command = mortal(python);
        command.arg(Path::new(context).join("consumer.py")).args(words);
        let log = trial.log(service);
        consumers.push((service, Process::run(command, &log), log, data));
    }

    let secret = trial.secrets.join("webhook").display().to_string();
    let places = [
        ("http://forebay:8080", format!("http://{}", trial.setup.public)),
        ("file:/secrets/webhook", format!("file:{secret}")),
        ("--rate=20", "--rate=200".to_owned()),
        ("--count=2500000", "--count=1000".to_owned()),
    ];
    let places: Vec<(&str, &str)> = places.iter().map(|(theirs, ours)| (*theirs, ours.as_str())).collect();
    let sent = trial.forebay(&trial.words("demo-send", &places)).output().unwrap();
    assert!(sent.status.success(), "{}", said(&sent));
    for (service, _running, log, data) in &consumers {
        wait_until(&format!("{service} tells of streams that went live"), DEADLINE, || {
            fs::read_to_string(log).unwrap().contains("\"type\": \"WentLive\"")
        });
        // The health check of the service.
        let test = texts(&project()["services"][*service]["healthcheck"]["test"]);
        let status = Command::new(test[1])
            .args(
                test[2..]
                    .iter()
                    .map(|word| word.replace("/data", data.to_str().unwrap())),
            )
            .status();
        assert!(status.unwrap().success(), "{service}: {test:?}");
    }
    let metrics = http::request(trial.setup.admin, "GET", "/metrics", "", "")
        .unwrap()
        .body;
    assert!(metrics.contains("forebay_events_total{endpoint=\"demo\""), "{metrics}");
}

#[test]
fn the_script_for_docker_says_when_there_is_none() {
    let mut script = Command::new("sh");
    let nobody = format!("tcp://127.0.0.1:{}", free_port());
    let output = script
        .arg(root("tests/compose.sh"))
        .env("DOCKER_HOST", nobody)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
    assert!(said(&output).contains("NOT RUN: no Docker"), "{}", said(&output));
}
