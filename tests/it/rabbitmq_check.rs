//! `forebay check --connect` on RabbitMQ.

use crate::support::{forebay::SECRET, program, rabbitmq as server};

#[tokio::test]
async fn the_command_says_it_and_exits_by_the_worst() {
    let vhost = server::shared().vhost("check-command");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("forebay.toml");
    let toml = format!(
        "spool.dir = \"{}\"\nspool.bytes_max = \"1GiB\"\n[endpoints.acme]\npath = \"/a\"\nsecrets = [\"base64:{SECRET}\"]\n\
         [sinks.rabbit]\ntype = \"rabbitmq\"\nuri = \"{}\"\nmanagement = \"{}\"\nexchange = \"live\"\n",
        dir.path().display(),
        vhost.uri(),
        vhost.broker.management()
    );
    std::fs::write(&file, toml).unwrap();
    let run = || {
        let output = program::forebay()
            .args(["check", "--connect", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = run();
    assert_eq!(code, Some(69), "{said}");
    assert!(
        said.contains("problem   sink 'rabbit': exchange 'live' is not there"),
        "{said}"
    );
    assert!(!said.contains(&vhost.broker.password), "{said}");
    vhost.topology("live", 8, "quorum");
    let (code, said) = run();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains(
            "warning   queues 'live.00', 'live.01', 'live.02', 'live.03' and 4 more: no dead-letter exchange"
        ),
        "{said}"
    );
}
