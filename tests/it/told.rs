//! What Forebay says to an operator is so, what he must know is said, and a password in a wrong place is not.

use crate::support::{
    forebay::{Setup, kafka_route},
    program,
    secrets::MISPLACED,
};

fn check(setup: &Setup, env: &[(&str, &str)]) -> String {
    let output = program::forebay()
        .args(["check", "--config"])
        .arg(setup.config())
        .envs(env.iter().copied())
        .output()
        .unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn a_variable_that_is_nearly_a_keys_is_warned_of_with_the_right_name() {
    let setup = Setup::publishing(&kafka_route("events", "127.0.0.1:1", "none"));
    let said = check(
        &setup,
        &[("FOREBAY_SPOOL_DIR", "/elsewhere"), ("FOREBAY_LOG_LEVEL", "debug")],
    );
    for line in [
        "FOREBAY_SPOOL_DIR: is not read; the variable of spool.dir is FOREBAY__SPOOL__DIR",
        "FOREBAY_LOG_LEVEL: is not read; did you mean FOREBAY_LOG",
    ] {
        assert!(said.contains(line), "{said}");
    }
    // Where something is wrong, it may be just that.
    let said = check(
        &Setup::publishing("[sinks.main]\ntype = \"kafka\"\n"),
        &[("FOREBAY_SINKS_MAIN_BROKERS", "kafka:9092")],
    );
    for line in ["sinks.main.brokers: missing", "FOREBAY__SINKS__MAIN__BROKERS"] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn a_password_in_a_wrong_place_is_in_no_output() {
    let kafka = |brokers: &str| kafka_route("events", brokers, "none");
    let away = kafka("127.0.0.1:1");
    for (routes, expected) in [
        (kafka(&format!("user:{MISPLACED}@127.0.0.1:1")), "has a user"),
        (
            kafka(&format!("SASL_SSL://user:{MISPLACED}@127.0.0.1:1")),
            "has a protocol",
        ),
        (
            format!("{away}\n[tracing]\nendpoint = \"http://collector/?token={MISPLACED}\""),
            "expected a URL",
        ),
        (
            format!("{away}\n[tracing]\nendpoint = \"http://u:{MISPLACED}@collector\""),
            "has a user",
        ),
        (
            format!("{away}\n[tracing]\nendpoint = \"http://127.0.0.1:1/ingest/{MISPLACED}\""),
            "traces    to http://127.0.0.1:1/…",
        ),
        (
            format!("{away}\n[sinks.main.properties]\n\"security.protocol\" = \"{MISPLACED}\""),
            "Invalid value for configuration property",
        ),
    ] {
        let said = check(&Setup::publishing(&routes), &[]);
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains(MISPLACED), "{said}");
    }

    let brokers = format!("user:{MISPLACED}@127.0.0.1:1");
    let (amqp, url) = (
        format!("amqp://u:{MISPLACED}@127.0.0.1:notaport"),
        format!("http://u:{MISPLACED}@127.0.0.1:1/?token={MISPLACED}"),
    );
    let not_a_url = format!("u:{MISPLACED}@host");
    for arguments in [
        &["tail", "--brokers", &brokers, "--topic", "none"][..],
        &["verify", "--brokers", &brokers, "--topic", "none"],
        &["tail", "--amqp", &amqp, "--exchange", "none"],
        &["verify", "--amqp", &amqp, "--queue", "none"],
        &[
            "tail",
            "--amqp",
            "amqp://127.0.0.1:1",
            "--exchange",
            "none",
            "--management",
            &url,
        ],
        &[
            "verify",
            "--amqp",
            "amqp://127.0.0.1:1",
            "--queue",
            "none",
            "--management",
            &url,
        ],
        &["dev", "--amqp", &amqp],
        &["send", "--url", &url, "--secret", "b3RoZXI=", "--count", "1"],
        &["send", "--url", &url, "--secret", "b3RoZXI=", "--count", "1", "--json"],
        &["send", "--url", &not_a_url, "--secret", "b3RoZXI="],
        &["send", "--url", "http://127.0.0.1:1", "--secret", &not_a_url],
        &[
            "send",
            "--url",
            "http://127.0.0.1:1",
            "--secret",
            "b3RoZXI=",
            "--metrics",
            &url,
        ],
        &[
            "send",
            "--url",
            "http://127.0.0.1:1",
            "--secret",
            "b3RoZXI=",
            "--metrics",
            &not_a_url,
        ],
    ] {
        let output = program::forebay().args(arguments).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!output.status.success() && !said.is_empty(), "{arguments:?}: {said}");
        assert!(!said.contains(MISPLACED), "{arguments:?}: {said}");
    }
}

#[test]
fn a_secret_on_the_command_line_is_warned_of() {
    let warning = "stands in the list of processes";
    let (amqp, guest) = ("amqp://u:other@127.0.0.1:1", "amqp://guest:guest@127.0.0.1:1");
    for (arguments, warned) in [
        (
            &[
                "send",
                "--url",
                "http://127.0.0.1:1",
                "--count",
                "1",
                "--secret",
                "b3RoZXI=",
            ][..],
            true,
        ),
        (
            &[
                "send",
                "--url",
                "http://127.0.0.1:1",
                "--count",
                "1",
                "--secret",
                "env:OTHER",
            ],
            false,
        ),
        (&["tail", "--exchange", "none", "--amqp", amqp], true),
        (&["tail", "--exchange", "none", "--amqp", guest], false),
        (&["tail", "--exchange", "none", "--amqp", "env:OTHER_URI"], false),
        (&["verify", "--queue", "none", "--amqp", amqp], true),
        (&["dev", "--amqp", amqp], true),
        (&["dev", "--amqp", "env:OTHER_URI"], false),
    ] {
        let output = program::forebay()
            .args(arguments)
            .env("OTHER", "b3RoZXI=")
            .env("OTHER_URI", amqp)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.contains(warning), warned, "{arguments:?}: {said}");
    }
}

#[test]
fn the_version_names_the_revision() {
    let output = program::forebay().arg("--version").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let version = concat!("forebay ", env!("CARGO_PKG_VERSION"), " (revision ");
    assert!(said.starts_with(version) && said.ends_with(")\n"), "{said}");
}
