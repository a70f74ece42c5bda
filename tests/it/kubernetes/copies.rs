//! What the chart carries of other files, and what other files say of it: rules, dashboards, manifests, documents.

use std::{collections::BTreeSet, fs, path::Path};

use tempfile::TempDir;

use super::{COMPLETE, MORE, copy, pod::of_kind, sources};
use crate::support::{
    chart::{CHART, documents, documents_of, helm, render, root, run},
    prometheus::promtool,
};

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
