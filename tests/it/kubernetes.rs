//! The Helm chart and the plain manifests: rendered by Helm itself, judged by the schemas of Kubernetes, the policy of
//! Pod Security, the types of the operators' own modules, and by Forebay, which must take the configuration that comes
//! out.

mod configuration;
mod copies;
mod life;
mod pod;
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use tempfile::TempDir;

use crate::support::chart::{CHART, documents, documents_of, helm, render, root, run, tool};
use pod::of_kind;

/// Values that are complete: a broker of each kind, and those of the plain manifests.
const COMPLETE: [&str; 3] = [
    "deploy/helm/forebay/ci/kafka-values.yaml",
    "deploy/helm/forebay/ci/rabbitmq-values.yaml",
    "deploy/kubernetes/values.yaml",
];
/// Values that go on top of them. Of the first two one at most.
const REPLICAS: [&str; 2] = ["tests/kubernetes/values/many.yaml", "tests/kubernetes/values/one.yaml"];
const MORE: [&str; 5] = [
    "tests/kubernetes/values/decorated.yaml",
    "tests/kubernetes/values/drained.yaml",
    "tests/kubernetes/values/open.yaml",
    "tests/kubernetes/values/secrets.yaml",
    "tests/kubernetes/values/watched.yaml",
];
/// The oldest that the chart takes, the first with a stable `preStop.sleep`, and the newest.
const VERSIONS: [&str; 3] = ["1.30.0", "1.34.0", "1.37.0"];
/// Kinds that no cluster has by itself.
const OPERATORS_KINDS: [&str; 4] = ["ClientSettingsPolicy", "HTTPRoute", "PrometheusRule", "ServiceMonitor"];

/// Each combination of files of values.
fn combinations() -> Vec<Vec<&'static str>> {
    let mut combinations = Vec::new();
    for complete in [COMPLETE[0], COMPLETE[1]] {
        for replicas in [None, Some(REPLICAS[0]), Some(REPLICAS[1])] {
            for chosen in 0..1 << MORE.len() {
                let more = MORE.iter().enumerate().filter(|(at, _)| chosen & (1 << at) != 0);
                let files = [complete].into_iter().chain(replicas);
                combinations.push(files.chain(more.map(|(_, file)| *file)).collect());
            }
        }
    }
    combinations
}

/// Those that have everything at once.
fn fullest() -> Vec<Vec<&'static str>> {
    let all = combinations();
    let most = all.iter().map(Vec::len).max().unwrap();
    all.into_iter().filter(|files| files.len() == most).collect()
}

/// Renders each combination into a file of its own.
fn render_into(dir: &Path, combinations: &[Vec<&'static str>]) -> Vec<String> {
    let halves: Vec<_> = combinations
        .chunks(combinations.len().div_ceil(2))
        .enumerate()
        .collect();
    thread::scope(|scope| {
        let threads = halves.into_iter().map(|(half, combinations)| {
            scope.spawn(move || {
                let written = combinations.iter().enumerate().map(|(at, files)| {
                    let text = render(CHART, files, &[]).unwrap_or_else(|error| panic!("{files:?}: {error}"));
                    let file = dir.join(format!("{half}-{at}.yaml"));
                    fs::write(&file, text).unwrap();
                    file.to_str().unwrap().to_owned()
                });
                written.collect::<Vec<_>>()
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn judge(files: &[String]) -> Result<String, String> {
    let arguments: Vec<&str> = ["check"].into_iter().chain(files.iter().map(String::as_str)).collect();
    run(&tool("kubernetes"), &arguments)
}

/// What `kubernetes-validate` says of the files.
fn validate(version: &str, files: &[String]) -> Result<String, String> {
    let program = tool("venv/bin/kubernetes-validate");
    // What it could not check is said on stderr, and is no failure to it: so both are read.
    let mut command = vec![
        "-c",
        r#""$0" "$@" 2>&1"#,
        program.to_str().unwrap(),
        "--kubernetes-version",
        version,
        "--strict",
    ];
    command.extend(files.iter().map(String::as_str));
    run(Path::new("sh"), &command)
}

/// A copy of the chart that a test may break.
fn copy() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    run(Path::new("cp"), &["-r", CHART, dir.path().to_str().unwrap()]).unwrap();
    let chart = dir.path().join("forebay");
    (dir, chart)
}

#[test]
fn helm_finds_nothing_wrong_with_the_chart() {
    helm(&["lint", "--strict", CHART]).unwrap();
    for files in COMPLETE.map(|file| vec![file]).into_iter().chain(fullest()) {
        let values = files.iter().flat_map(|file| ["--values", file]);
        let arguments: Vec<&str> = ["lint", "--strict", CHART].into_iter().chain(values).collect();
        helm(&arguments).unwrap();
    }
    let wrong = helm(&["lint", "--strict", CHART, "--set", "replicaCount=two"]).unwrap_err();
    assert!(wrong.contains("replicaCount"), "{wrong}");
}

#[test]
fn each_manifest_is_what_the_unit_tests_say() {
    // It leaves a directory behind.
    let (_dir, chart) = copy();
    run(&tool("helm-unittest"), &["--strict", chart.to_str().unwrap()]).unwrap();
}

#[test]
fn every_value_is_set_in_a_unit_test() {
    let [values] = documents_of(&root().join(CHART).join("values.yaml"))
        .try_into()
        .unwrap();
    let suites = sources::suites();
    assert!(suites.len() > 7, "only {} suites", suites.len());
    let (leaves, set) = (sources::leaves(&values), sources::set_by(&suites));
    assert!(leaves.len() > 70, "only {leaves:?}");
    let unset = sources::unset(&leaves, &set);
    // Of a dashboard of their own: `dashboards_are_handed_to_grafana_as_they_are`.
    let elsewhere = [
        "dashboards.annotations",
        "dashboards.enabled",
        "dashboards.labels.grafana_dashboard",
    ];
    assert_eq!(unset, elsewhere);
}

#[test]
fn a_value_that_no_unit_test_sets_is_found() {
    let values = serde_json::json!({"a": {"b": 1, "c": {}}, "d": [1], "e": null});
    let leaves = sources::leaves(&values);
    assert_eq!(leaves, ["a.b", "a.c", "d", "e"]);
    let suites = [serde_json::json!({"tests": [
        {"set": {"a.c": {"x": 1}, "d": [2]}, "asserts": [{"equal": {}}]},
        {"set": {"e": 1}, "asserts": [{"failedTemplate": {}}]},
    ]})];
    assert_eq!(sources::unset(&leaves, &sources::set_by(&suites)), ["a.b", "e"]);
}

#[test]
fn a_unit_test_that_is_wrong_fails() {
    let (_dir, chart) = copy();
    let pdb = chart.join("templates/pdb.yaml");
    let text = fs::read_to_string(&pdb).unwrap();
    fs::write(&pdb, text.replace("maxUnavailable: 1", "maxUnavailable: 2")).unwrap();
    let failed = run(&tool("helm-unittest"), &["--strict", chart.to_str().unwrap()]).unwrap_err();
    assert!(failed.contains("lets nodes be drained one pod at a time"), "{failed}");
}

#[test]
fn pod_security_allows_the_pods_of_every_combination_of_values() {
    let dir = TempDir::new().unwrap();
    let combinations = combinations();
    let files = render_into(dir.path(), &combinations);
    assert_eq!(files.len(), 192);
    let said = judge(&files).unwrap();
    let allowed = |kind: &str| {
        said.lines()
            .filter(|line| line.contains(kind) && line.ends_with(": allowed"))
            .count()
    };
    assert_eq!(allowed(": StatefulSet/"), 192);
    assert_eq!(allowed(": Pod/"), 192);
    // Two in every combination that has them, which is every other one.
    assert_eq!(allowed(": Job/"), 192);
}

#[test]
fn a_pod_that_is_not_restricted_is_refused() {
    let text = render(CHART, &fullest()[0], &[]).unwrap();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("manifests.yaml");
    for (right, wrong, why) in [
        (
            "allowPrivilegeEscalation: false",
            "privileged: true",
            "must not set securityContext.privileged=true",
        ),
        (
            "allowPrivilegeEscalation: false",
            "allowPrivilegeEscalation: true",
            "allowPrivilegeEscalation=false",
        ),
        ("drop: [ALL]", "drop: [NET_RAW]", "capabilities.drop=[\"ALL\"]"),
        ("runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"),
        ("type: RuntimeDefault", "type: Unconfined", "seccompProfile"),
        ("emptyDir: {}", "hostPath: {path: /}", "hostPath"),
        ("restartPolicy: Never", "hostNetwork: true", "hostNetwork=true"),
    ] {
        assert!(text.contains(right), "{right}");
        fs::write(&file, text.replace(right, wrong)).unwrap();
        let refused = judge(&[file.to_str().unwrap().to_owned()]).unwrap_err();
        assert!(
            refused.contains(": refused: ") && refused.contains(why),
            "{wrong}: {refused}"
        );
    }
}

#[test]
fn every_manifest_is_one_that_kubernetes_and_the_operators_know() {
    let dir = TempDir::new().unwrap();
    let mut files = render_into(dir.path(), &fullest());
    files.push(
        root()
            .join("deploy/kubernetes/forebay.yaml")
            .to_str()
            .unwrap()
            .to_owned(),
    );
    files.push(
        root()
            .join("deploy/kubernetes/namespace.yaml")
            .to_str()
            .unwrap()
            .to_owned(),
    );
    judge(&files).unwrap();
    for version in VERSIONS {
        let said = validate(version, &files).unwrap();
        let passed = said.lines().filter(|line| line.starts_with("INFO ")).count();
        assert!(passed > 40, "{version}: {said}");
        let unchecked = said.lines().filter(|line| !line.starts_with("INFO "));
        for line in unchecked {
            let kind = line
                .split_once("find schema for kind ")
                .and_then(|(_, rest)| rest.split(' ').next());
            assert!(
                kind.is_some_and(|kind| OPERATORS_KINDS.contains(&kind)),
                "{version}: {line}"
            );
        }
    }
}

#[test]
fn a_manifest_that_nobody_knows_is_refused() {
    let text = render(CHART, &fullest()[0], &[]).unwrap();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("manifests.yaml");
    let files = [file.to_str().unwrap().to_owned()];
    for (right, wrong, of_kubernetes) in [
        ("unhealthyPodEvictionPolicy: ", "unhealthyPodEviction: ", true),
        ("replicas: ", "replicas: x", true),
        ("honorLabels: ", "honourLabels: ", false),
        ("parentRefs:", "parents:", false),
    ] {
        assert!(text.contains(right), "{right}");
        fs::write(&file, text.replace(right, wrong)).unwrap();
        assert!(judge(&files).is_err(), "{wrong}");
        if of_kubernetes {
            assert!(validate(VERSIONS[1], &files).is_err(), "{wrong}");
        }
    }
    // A field that came after the oldest version.
    let too_new = text.replace("enableServiceLinks: false", "hostnameOverride: a");
    fs::write(&file, too_new).unwrap();
    validate("1.37.0", &files).unwrap();
    assert!(validate("1.30.0", &files).is_err());
}

#[test]
fn another_configuration_makes_other_pods_and_another_secret_does_not() {
    let template = |more: &str| {
        let files = [COMPLETE[0], MORE[3]];
        let manifests = documents(&render(CHART, &files, &["--set", more]).unwrap());
        of_kind(&manifests, "StatefulSet")["spec"]["template"].clone()
    };
    let before = template("secrets.create.acme=MDEy");
    assert_eq!(template("secrets.create.acme=MDEz"), before);
    assert_ne!(template("config.server.connections_max=100"), before);
}
