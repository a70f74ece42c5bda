//! The Helm chart and the plain manifests: rendered by Helm itself, judged by the schemas of Kubernetes, the policy of Pod
//! Security, the types of the operators' own modules, and by Forebay, which must take the configuration that comes out.

mod life;
mod pod;
mod sources;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use forebay::config::{Config, SinkKind};
use tempfile::TempDir;

use crate::support::{
    chart::{CHART, documents, documents_of, helm, render, root, run, tool},
    prometheus::promtool,
};
use pod::{Node, container, of_kind, seconds, spec};

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

/// The init container, run as the pod would run it: its arguments, environment, configuration and secrets.
#[test]
fn forebay_takes_every_configuration_that_the_chart_renders() {
    for complete in COMPLETE {
        for more in [None].into_iter().chain(REPLICAS.into_iter().chain(MORE).map(Some)) {
            let files: Vec<&str> = [complete].into_iter().chain(more).collect();
            let manifests = documents(&render(CHART, &files, &[]).unwrap());
            let node = Node::first(&manifests);
            let output = node.run(container(&manifests, "StatefulSet", "check"));
            assert_eq!(output.code, 0, "{files:?}: {output:?}");
            assert!(!output.text.contains("warning"), "{files:?}: {output:?}");
        }
    }
}

#[test]
fn a_pod_whose_secret_is_missing_does_not_start() {
    let manifests = documents(
        &render(
            CHART,
            &[COMPLETE[2]],
            &["--set", "secrets.existing[0].items[0].path=other"],
        )
        .unwrap(),
    );
    let output = Node::first(&manifests).run(container(&manifests, "StatefulSet", "check"));
    assert_eq!(output.code, 64, "{output:?}");
    assert!(output.text.contains("endpoints.acme.secrets"), "{output:?}");
}

#[test]
fn the_charts_defaults_are_forebays() {
    let manifests = documents(&render(CHART, &[COMPLETE[0]], &[]).unwrap());
    let of_chart = Node::first(&manifests).config(container(&manifests, "StatefulSet", "check"));
    let dir = TempDir::new().unwrap();
    let least = dir.path().join("least.toml");
    let text = "[endpoints.acme]\npath = \"/millicast/acme\"\nsecrets = [\"base64:MDEy\"]\n[sinks.main]\ntype = \"kafka\"\nbrokers = [\"kafka\"]\n";
    fs::write(&least, text).unwrap();
    let least = Config::load(&least, std::iter::empty()).unwrap();
    assert_eq!(format!("{:?}", of_chart.server), format!("{:?}", least.server));
    assert_eq!(format!("{:?}", of_chart.admin), format!("{:?}", least.admin));
    assert_eq!(format!("{:?}", of_chart.routes), format!("{:?}", least.routes));
    assert_eq!(of_chart.spool.bytes_max, least.spool.bytes_max);
    assert_eq!(of_chart.spool.dir, least.spool.dir);
    assert_eq!(of_chart.spool.replica.as_deref(), Some("forebay-0"));
    assert!(matches!(of_chart.sinks[0].kind, SinkKind::Kafka(_)));
}

/// Computed from what Forebay itself reads in the configuration, not from the texts that the chart adds up.
#[test]
fn a_pod_has_the_time_for_all_that_its_stop_may_take() {
    let longer =
        "--set=config.server.body_deadline=1m,config.server.drain_delay=1500ms,config.server.shutdown_deadline=59m 59s";
    for (files, more) in combinations()
        .iter()
        .take(40)
        .map(|files| (files, &[][..]))
        .chain([(&fullest()[0], &[longer][..])])
    {
        let manifests = documents(&render(CHART, files, more).unwrap());
        let server = Node::first(&manifests)
            .config(container(&manifests, "StatefulSet", "check"))
            .server;
        let pod = spec(&manifests, "StatefulSet");
        let serving = container(&manifests, "StatefulSet", "forebay");
        let pre_stop = seconds(&serving["lifecycle"]["preStop"]["sleep"]["seconds"]);
        let grace = seconds(&pod["terminationGracePeriodSeconds"]);
        let deadlines = server.drain_delay + server.body_deadline + server.shutdown_deadline;
        assert!(
            grace >= pre_stop + deadlines + Duration::from_secs(10 + 5),
            "{files:?} {more:?}: {grace:?}"
        );
        assert!(pre_stop + server.drain_delay >= Duration::from_secs(5), "{files:?}");
        assert!(
            server.shutdown_deadline >= server.body_deadline + Duration::from_secs(5),
            "{files:?}"
        );
    }
}

/// The chart computes with these, and can ask nobody for them.
#[test]
fn the_limits_that_the_chart_knows_are_those_of_the_code() {
    for (file, text) in [
        (
            "src/app.rs",
            "SPOOL_CLOSE_DEADLINE: Duration = Duration::from_secs(10);",
        ),
        ("src/app.rs", "DEAD_LETTERS_BYTES_MAX: u64 = 1 << 30;"),
        ("src/app.rs", "HOT_BYTES_MAX: usize = 64 << 20;"),
        ("src/config/routes.rs", "IN_FLIGHT_BYTES_MAX: u64 = 64 * MIB;"),
        ("src/config/routes.rs", "REORDER_BYTES_MAX: u64 = 64 * MIB;"),
        (
            "src/ingress/service.rs",
            "ACK_DEADLINE: Duration = Duration::from_millis(2500);",
        ),
    ] {
        let code = fs::read_to_string(root().join(file)).unwrap();
        assert!(
            code.contains(text),
            "{file}: no {text}; look at templates/_config.tpl and _validate.tpl of the chart"
        );
    }
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

#[test]
fn the_chart_is_of_this_version() {
    let [chart] = documents_of(&root().join(CHART).join("Chart.yaml")).try_into().unwrap();
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_rules_of_the_chart_are_the_rules() {
    let manifests = documents(&render(CHART, &[COMPLETE[0], MORE[4]], &[]).unwrap());
    let spec = &of_kind(&manifests, "PrometheusRule")["spec"];
    let [rules] = documents_of(&root().join("deploy/prometheus/rules.yml"))
        .try_into()
        .unwrap();
    assert_eq!(*spec, rules);
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("rules.yml"), spec.to_string()).unwrap();
    promtool(dir.path(), &["check", "rules", "rules.yml"]).unwrap();
}

#[test]
fn dashboards_are_handed_to_grafana_as_they_are() {
    let (_dir, chart) = copy();
    let dashboards = chart.join("dashboards");
    // There may be none yet.
    let _ = fs::remove_dir_all(&dashboards);
    let rendered = |chart: &Path| {
        let enabled = [
            "--set",
            "dashboards.enabled=true",
            "--set",
            "dashboards.annotations.folder=Forebay",
        ];
        documents(&render(chart.to_str().unwrap(), &[COMPLETE[0]], &enabled).unwrap())
    };
    let none = rendered(&chart).len();
    fs::create_dir(&dashboards).unwrap();
    let text = "{\"title\": \"Forebay\", \"legendFormat\": \"{{ endpoint }}\"}\n";
    fs::write(dashboards.join("a.json"), text).unwrap();
    let manifests = rendered(&chart);
    assert_eq!(manifests.len(), none + 1);
    let found = manifests
        .iter()
        .find(|manifest| manifest["metadata"]["name"] == "forebay-dashboards")
        .unwrap();
    assert_eq!(found["data"], serde_json::json!({"a.json": text}));
    assert_eq!(found["metadata"]["labels"]["grafana_dashboard"], "1");
    assert_eq!(found["metadata"]["annotations"]["folder"], "Forebay");
    let disabled = documents(&render(chart.to_str().unwrap(), &[COMPLETE[0]], &[]).unwrap());
    assert_eq!(disabled.len(), none);
}

#[test]
fn what_is_derived_from_the_values_is_up_to_date() {
    let dir = TempDir::new().unwrap();
    let update = root().join("deploy/helm/update.sh");
    run(&update, &[dir.path().to_str().unwrap()]).unwrap();
    let made = sources::files(dir.path());
    for expected in [
        "deploy/helm/forebay/README.md",
        "deploy/helm/forebay/rules/forebay.yml",
        "deploy/kubernetes/forebay.yaml",
    ] {
        assert!(made.contains(expected), "{expected}: not in {made:?}");
    }
    assert_eq!(
        sources::different(dir.path(), root(), &made),
        Vec::<String>::new(),
        "run deploy/helm/update.sh"
    );
    let dashboards: BTreeSet<String> = made.into_iter().filter(|file| file.contains("/dashboards/")).collect();
    let kept = sources::files(&root().join(CHART).join("dashboards"));
    assert_eq!(
        kept.len(),
        dashboards.len(),
        "the chart has dashboards that deploy/grafana has not: {kept:?}"
    );

    fs::write(dir.path().join("deploy/kubernetes/forebay.yaml"), "changed").unwrap();
    let made = sources::files(dir.path());
    assert_eq!(
        sources::different(dir.path(), root(), &made),
        ["deploy/kubernetes/forebay.yaml"]
    );
}

#[test]
fn a_package_has_the_rules_and_leaves_the_tests_out() {
    let dir = TempDir::new().unwrap();
    helm(&["package", CHART, "--destination", dir.path().to_str().unwrap()]).unwrap();
    let package = dir.path().join(format!("forebay-{}.tgz", env!("CARGO_PKG_VERSION")));
    let list = run(Path::new("tar"), &["-tzf", package.to_str().unwrap()]).unwrap();
    let has = |name: &str| list.lines().any(|line| line == format!("forebay/{name}"));
    assert!(
        has("rules/forebay.yml") && has("values.schema.json") && has("templates/tests/send.yaml"),
        "{list}"
    );
    assert!(!list.contains("_test.yaml") && !list.contains("forebay/ci/"), "{list}");
}

/// Every `--set` of the documents is a value that there is.
#[test]
fn the_values_that_the_documents_set_exist() {
    let [values] = documents_of(&root().join(CHART).join("values.yaml"))
        .try_into()
        .unwrap();
    let leaves = sources::leaves(&values);
    for document in ["docs/kubernetes.md", "deploy/helm/forebay/README.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        assert_eq!(sources::unknown(&text, &leaves), Vec::<String>::new(), "{document}");
    }
    let found = sources::unknown("helm upgrade --set replicas=3 --set 'drain.ordinals={2}'", &leaves);
    assert_eq!(found, ["replicas"]);
}
