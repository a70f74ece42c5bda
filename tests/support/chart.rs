//! The Helm chart, and what renders and judges it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use serde_json::Value;

use super::fetched;

pub const CHART: &str = "deploy/helm/forebay";

pub fn root() -> &'static Path {
    Path::new(crate::ROOT)
}

/// What `tests/kubernetes.sh` builds, once: the directory of `FOREBAY_TEST_KUBERNETES`, else its own.
pub fn tool(name: &str) -> PathBuf {
    static TOOLS: LazyLock<PathBuf> = LazyLock::new(|| {
        let given = std::env::var_os("FOREBAY_TEST_KUBERNETES").filter(|path| !path.is_empty());
        given.map_or_else(|| fetched::by("tests/kubernetes.sh", &[]), PathBuf::from)
    });
    TOOLS.join(name)
}

/// Runs a command at the top of the repository. `Ok`: what it printed; `Err`: that, and what it said of its failure.
pub fn run(program: &Path, arguments: &[impl AsRef<str>]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments.iter().map(AsRef::as_ref)).current_dir(root());
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stdout) + &text(&output.stderr)),
    }
}

pub fn helm(arguments: &[&str]) -> Result<String, String> {
    run(&tool("helm"), arguments)
}

/// The manifests of a chart with these files of values: the release `forebay` in the namespace `forebay`.
pub fn render(chart: &str, values: &[&str], more: &[&str]) -> Result<String, String> {
    let mut arguments = vec!["template", "forebay", chart, "--namespace", "forebay"];
    for file in values {
        arguments.extend(["--values", file]);
    }
    arguments.extend(more);
    helm(&arguments)
}

/// The documents of a YAML file.
pub fn documents_of(file: &Path) -> Vec<Value> {
    let json = run(&tool("kubernetes"), &["json", file.to_str().unwrap()]);
    let json = json.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    json.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The documents of a YAML text.
pub fn documents(text: &str) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("documents.yaml");
    fs::write(&file, text).unwrap();
    documents_of(&file)
}
