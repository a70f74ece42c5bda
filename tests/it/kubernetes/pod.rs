//! A pod of the manifests, run here: its volumes are directories, its containers processes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use forebay::config::Config;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::forebay::{SECRET, binary};

/// The keys of Secrets of which the manifests take all.
const KEYS: [(&str, &[&str]); 1] = [("webhooks", &["acme"])];
const POD: &str = "forebay-0";

/// The manifest of a kind of which there is one.
pub fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    let mut found = manifests.iter().filter(|manifest| manifest["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    one
}

/// A container of the pods that a manifest makes.
pub fn container<'a>(manifests: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let spec = &of_kind(manifests, kind)["spec"]["template"]["spec"];
    let all = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| spec[list].as_array().into_iter().flatten());
    let mut named = all.filter(|container| container["name"] == name);
    named.next().unwrap_or_else(|| panic!("no container {name}"))
}

pub fn seconds(value: &Value) -> Duration {
    Duration::from_secs(value.as_u64().unwrap_or(0))
}

#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub text: String,
}

/// Where the StatefulSet's pod is: its volumes.
pub struct Node {
    dir: TempDir,
    volumes: BTreeMap<String, PathBuf>,
    mounts: Vec<(String, PathBuf)>,
    env: BTreeMap<String, String>,
}

impl Node {
    /// Makes the volumes, and mounts them as the container `check` has them.
    pub fn new(manifests: &[Value]) -> Self {
        let mut node = Self {
            dir: TempDir::new().unwrap(),
            volumes: BTreeMap::new(),
            mounts: Vec::new(),
            env: BTreeMap::new(),
        };
        for volume in of_kind(manifests, "StatefulSet")["spec"]["template"]["spec"]["volumes"]
            .as_array()
            .unwrap()
        {
            node.volume(volume, manifests);
        }
        let container = container(manifests, "StatefulSet", "check");
        for mount in container["volumeMounts"].as_array().unwrap() {
            let (path, name) = (text(&mount["mountPath"]), text(&mount["name"]));
            node.mounts.push((path.to_owned(), node.volumes[name].clone()));
        }
        for variable in container["env"].as_array().unwrap() {
            let value = node.value(variable);
            node.env.insert(text(&variable["name"]).to_owned(), value);
        }
        node
    }

    fn volume(&mut self, volume: &Value, manifests: &[Value]) {
        let name = text(&volume["name"]);
        let path = self.dir.path().join(name);
        fs::create_dir(&path).unwrap();
        if let Some(map) = volume["configMap"]["name"].as_str() {
            write_all(&path, &named(manifests, "ConfigMap", map)["data"]);
        }
        for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
            project(&path, &source["secret"], manifests);
        }
        self.volumes.insert(name.to_owned(), path);
    }

    /// The value of a variable; what comes from a Secret is a webhook's secret.
    fn value(&self, variable: &Value) -> String {
        let from = &variable["valueFrom"];
        if from["secretKeyRef"].is_object() {
            return SECRET.to_owned();
        }
        if from["fieldRef"]["fieldPath"] == "metadata.name" {
            return POD.to_owned();
        }
        let value = text(&variable["value"]);
        self.env.iter().fold(value.to_owned(), |value, (name, known)| {
            value.replace(&format!("$({name})"), known)
        })
    }

    /// The text with paths of this machine in place of the container's.
    fn here(&self, text: &str) -> String {
        let replaced = |text: String, (there, here): &(String, PathBuf)| text.replace(there, here.to_str().unwrap());
        self.mounts.iter().fold(text.to_owned(), replaced)
    }

    /// Runs what a container would, and waits for its end.
    pub fn run(&self, container: &Value) -> Output {
        self.rewrite();
        let arguments = container["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|argument| self.here(text(argument)));
        let mut command = Command::new(binary());
        command.args(arguments).env_clear().envs(&self.env).stdin(Stdio::null());
        let output = command.output().unwrap();
        Output {
            code: output.status.code().unwrap(),
            text: String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The configuration as Forebay reads it in this pod.
    pub fn config(&self) -> Config {
        self.rewrite();
        let env = self.env.iter().map(|(name, value)| (name.clone(), value.clone()));
        Config::load(&self.volumes["config"].join("forebay.yaml"), env).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// The paths in the configuration are the container's.
    fn rewrite(&self) {
        let file = self.volumes["config"].join("forebay.yaml");
        let config = fs::read_to_string(&file).unwrap();
        fs::write(&file, self.here(&config)).unwrap();
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

fn named<'a>(manifests: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = manifests
        .iter()
        .filter(|manifest| manifest["kind"] == kind && manifest["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn write_all(dir: &Path, data: &Value) {
    for (file, content) in data.as_object().unwrap() {
        fs::write(dir.join(file), text(content)).unwrap();
    }
}

/// Puts a Secret's keys into a projected volume: those that the source names, else all.
fn project(dir: &Path, source: &Value, manifests: &[Value]) {
    let name = text(&source["name"]);
    if let Some(items) = source["items"].as_array() {
        for item in items {
            fs::write(dir.join(text(&item["path"])), SECRET).unwrap();
        }
        return;
    }
    match KEYS.iter().find(|(known, _)| *known == name) {
        Some((_, keys)) => keys.iter().for_each(|key| fs::write(dir.join(key), SECRET).unwrap()),
        None => write_all(dir, &named(manifests, "Secret", name)["stringData"]),
    }
}
