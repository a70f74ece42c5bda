//! The configuration that the chart renders: Forebay takes it, and it says what the chart computed with.

use std::{fs, time::Duration};

use config::Config;
use serde_json::Value;

use super::{
    COMPLETE, MORE, REPLICAS, combinations, fullest,
    pod::{Node, container, documented, duration, seconds, spec},
};
use crate::support::chart::{CHART, documents, render, root};

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
    let least = documented();
    for key in ["server", "routes", "spool.bytes_max", "spool.dir"] {
        let value = |config: &Config| config.get::<Value>(key).unwrap();
        assert_eq!(value(&of_chart), value(&least), "{key}");
    }
    // Scraper and probes come from outside the pod.
    assert_eq!(of_chart.get_string("admin.listen").unwrap(), "0.0.0.0:9464");
    assert_eq!(least.get_string("admin.listen").unwrap(), "127.0.0.1:9464");
    assert_eq!(of_chart.get_string("spool.replica").unwrap(), "forebay-0");
    assert_eq!(of_chart.get_string("sinks.main.type").unwrap(), "kafka");
}

/// Computed from the configuration that the pod has, not from the texts that the chart adds up.
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
        let config = Node::first(&manifests).config(container(&manifests, "StatefulSet", "check"));
        let [drain_delay, body_deadline, shutdown_deadline] = ["drain_delay", "body_deadline", "shutdown_deadline"]
            .map(|key| duration(&config, &format!("server.{key}")));
        let pod = spec(&manifests, "StatefulSet");
        let serving = container(&manifests, "StatefulSet", "forebay");
        let pre_stop = seconds(&serving["lifecycle"]["preStop"]["sleep"]["seconds"]);
        let grace = seconds(&pod["terminationGracePeriodSeconds"]);
        let deadlines = drain_delay + body_deadline + shutdown_deadline;
        assert!(
            grace >= pre_stop + deadlines + Duration::from_secs(10 + 5),
            "{files:?} {more:?}: {grace:?}"
        );
        assert!(pre_stop + drain_delay >= Duration::from_secs(5), "{files:?}");
        assert!(shutdown_deadline >= body_deadline + Duration::from_secs(5), "{files:?}");
    }
}

/// The chart computes with these, and can ask nobody for them.
#[test]
fn the_limits_that_the_chart_knows_are_those_of_the_code() {
    for (file, text) in [
        (
            "src/node/mod.rs",
            "SPOOL_CLOSE_DEADLINE: Duration = Duration::from_secs(10);",
        ),
        ("src/settings/mod.rs", "BYTES_MAX: u64 = 256 << 20;"),
        ("src/config/load.rs", "take_or(\"event_ids_max\", 200_000,"),
        ("src/node/spools.rs", "READERS_BYTES_MAX: usize = 128 << 20;"),
        ("src/node/spools.rs", "HOT_BYTES_MAX: usize = 64 << 20;"),
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
