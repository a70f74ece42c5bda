//! A pod of the manifests, run here: its volumes are directories, its containers processes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use config::{Config, Environment, File};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    ROOT,
    forebay::SECRET,
    program::{self, Program},
};

/// The keys of the Secrets of which the manifests take all.
const KEYS: [(&str, &[&str]); 1] = [("webhooks", &["acme"])];

/// The manifest of a kind of which there is one.
pub fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    let mut found = manifests.iter().filter(|manifest| manifest["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    one
}

/// The pod that a manifest is or makes.
pub fn spec<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    let spec = &of_kind(manifests, kind)["spec"];
    match spec["template"].is_null() {
        true => spec,
        false => &spec["template"]["spec"],
    }
}

/// A container of it.
pub fn container<'a>(manifests: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let spec = spec(manifests, kind);
    let lists = ["initContainers", "containers"];
    let all = lists
        .iter()
        .flat_map(|list| spec[list].as_array().into_iter().flatten());
    let mut named = all.filter(|container| container["name"] == name);
    named.next().unwrap_or_else(|| panic!("no container {name}"))
}

pub fn seconds(value: &Value) -> Duration {
    Duration::from_secs(value.as_u64().unwrap_or(0))
}

/// The configuration that has every default.
pub fn documented() -> Config {
    let file = Path::new(ROOT).join("docs/examples/defaults.toml");
    let config = Config::builder().add_source(File::from(file)).build();
    config.unwrap_or_else(|error| panic!("{error}"))
}

/// A duration of a configuration.
pub fn duration(config: &Config, key: &str) -> Duration {
    humantime::parse_duration(&config.get_string(key).unwrap()).unwrap_or_else(|error| panic!("{key}: {error}"))
}

#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub text: String,
}

/// Where a pod is: its name and its volumes.
pub struct Node {
    dir: TempDir,
    pod: String,
    volumes: BTreeMap<String, PathBuf>,
}

impl Node {
    /// Makes the volumes of the pod of a manifest. `data`: what its claim is bound to.
    pub fn new(manifests: &[Value], kind: &str, pod: &str, data: &Path) -> Self {
        let mut node = Self {
            dir: TempDir::new().unwrap(),
            pod: pod.to_owned(),
            volumes: BTreeMap::new(),
        };
        if kind == "StatefulSet" {
            let claims = of_kind(manifests, kind)["spec"]["volumeClaimTemplates"]
                .as_array()
                .unwrap();
            assert_eq!(claims.len(), 1, "a claim each");
            let name = text(&claims[0]["metadata"]["name"]);
            node.volumes.insert(name.to_owned(), data.to_owned());
        }
        for volume in spec(manifests, kind)["volumes"].as_array().unwrap() {
            let path = match volume["persistentVolumeClaim"]["claimName"].as_str() {
                Some(claim) => {
                    assert_eq!(claim, format!("data-{pod}"), "the claim that the StatefulSet made");
                    data.to_owned()
                }
                None => node.make(volume, manifests),
            };
            node.volumes.insert(text(&volume["name"]).to_owned(), path);
        }
        node
    }

    /// The node of the first pod of the StatefulSet, with nothing on its volume.
    pub fn first(manifests: &[Value]) -> Self {
        let data = TempDir::new().unwrap();
        Self::new(manifests, "StatefulSet", "forebay-0", data.path())
    }

    fn make(&self, volume: &Value, manifests: &[Value]) -> PathBuf {
        let path = self.dir.path().join(text(&volume["name"]));
        fs::create_dir(&path).unwrap();
        if let Some(map) = volume["configMap"]["name"].as_str() {
            write_all(&path, &named(manifests, "ConfigMap", map)["data"]);
        }
        for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
            project(&path, &source["secret"], manifests);
        }
        path
    }

    /// What a container would run, with paths of this machine in place of the container's.
    pub fn command(&self, container: &Value) -> Program {
        let here = self.mounted(container);
        let arguments = container["args"].as_array().unwrap().iter();
        let mut command = program::forebay();
        command
            .args(arguments.map(|argument| here(text(argument))))
            .env_clear()
            .envs(self.env(container));
        command
    }

    /// Runs it to its end.
    pub fn run(&self, container: &Value) -> Output {
        let output = self.command(container).output().unwrap();
        Output {
            code: output.status.code().unwrap(),
            text: String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The configuration of Forebay in this container: its file, and over it the environment. What neither has is as
    /// documented.
    pub fn config(&self, container: &Value) -> Config {
        let file = self.mounted(container)("/etc/forebay/forebay.yaml");
        let variables = Environment::with_prefix("FOREBAY")
            .prefix_separator("__")
            .separator("__")
            .source(Some(self.env(container).into_iter().collect()));
        let sources = Config::builder()
            .add_source(documented())
            .add_source(File::from(Path::new(&file)))
            .add_source(variables);
        sources.build().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Mounts the volumes, and says where a path of the container is. The configuration names paths too: it is mounted
    /// as a copy.
    fn mounted(&self, container: &Value) -> impl Fn(&str) -> String {
        let mounts = container["volumeMounts"].as_array().unwrap();
        let mut places: Vec<(String, String)> = mounts
            .iter()
            .map(|mount| {
                let here = self.volumes[text(&mount["name"])].display().to_string();
                (text(&mount["mountPath"]).to_owned(), here)
            })
            .collect();
        let copy = self.dir.path().join("mounted");
        fs::create_dir_all(&copy).unwrap();
        let config = fs::read_to_string(self.volumes["config"].join("forebay.yaml")).unwrap();
        fs::write(copy.join("forebay.yaml"), replaced(&config, &places)).unwrap();
        for (there, here) in &mut places {
            if there == "/etc/forebay" {
                *here = copy.display().to_string();
            }
        }
        move |path: &str| replaced(path, &places)
    }

    /// The variables of a container. What comes from a Secret is a webhook's secret.
    fn env(&self, container: &Value) -> BTreeMap<String, String> {
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        for variable in container["env"].as_array().unwrap() {
            let from = &variable["valueFrom"];
            let value = if from["secretKeyRef"].is_object() {
                SECRET.to_owned()
            } else if from["fieldRef"]["fieldPath"] == "metadata.name" {
                self.pod.clone()
            } else {
                let known = env.iter().map(|(name, value)| (format!("$({name})"), value.clone()));
                replaced(text(&variable["value"]), &known.collect::<Vec<_>>())
            };
            env.insert(text(&variable["name"]).to_owned(), value);
        }
        env
    }
}

fn replaced(text: &str, pairs: &[(String, String)]) -> String {
    pairs
        .iter()
        .fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

fn named<'a>(manifests: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is = |manifest: &&Value| manifest["kind"] == kind && manifest["metadata"]["name"] == name;
    let mut found = manifests.iter().filter(is);
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
