//! What the architecture promises and a machine can check. How the code reads, people judge.
//!
//! A rule is a function of a source, so that each is also shown a source that breaks it.

mod dependencies;
pub mod documents;
mod mutants;
mod names;
mod rules;
mod source;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use source::{Source, walk, walk_all};

use crate::support::{ROOT, program};

fn root() -> &'static Path {
    Path::new(ROOT)
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn assert_none(what: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{what}:\n{}", findings.join("\n"));
}

#[test]
fn every_source_keeps_the_rules() {
    let sources = walk_all(root());
    assert!(
        sources.len() > 100 && source::crates(root()).len() >= 3,
        "only {} sources: is this the repository?",
        sources.len()
    );
    for (name, rule) in rules::RULES {
        let findings: Vec<String> = sources.iter().flat_map(rule).collect();
        assert_none(name, &findings);
    }
}

#[test]
fn types_are_called_by_more_than_one_word_and_each_name_stands_in_one_module() {
    let sources = walk_all(root());
    let types = names::types(&sources);
    assert!(types.len() > 400, "only {} types", types.len());
    let (one_word, several) = names::shares(&types);
    assert!(one_word <= names::ONE_WORD_MAX, "{one_word} % have names of one word");
    assert!(
        several <= names::IN_SEVERAL_MODULES_MAX,
        "{several} % of the names stand in several modules"
    );

    let source = |path, text| source::Source::new(path, text);
    let sources = [
        source(
            "src/a.rs",
            "pub struct One;\npub(crate) enum TwoWords<T> {}\n// struct Not;\n    struct Inner;\n",
        ),
        source(
            "src/b.rs",
            "trait One {}\ntype ThreeWordsHere = ();\n#[cfg(test)]\nmod tests {\nstruct Tested;\n}\n",
        ),
    ];
    let types = names::types(&sources);
    assert_eq!(types.keys().collect::<Vec<_>>(), ["One", "ThreeWordsHere", "TwoWords"]);
    assert_eq!(names::shares(&types), (50, 34));
}

#[test]
fn every_rule_finds_what_breaks_it() {
    for (name, path, text, found) in rules::BROKEN {
        let (_, rule) = rules::RULES
            .iter()
            .find(|(rule, _)| rule == name)
            .expect("the rule exists");
        let findings = rule(&Source::new(path, text));
        assert!(
            findings.len() == 1 && findings[0].contains(found),
            "{name}: {path} with {text:?} must give one finding with {found:?}, gives {findings:?}"
        );
    }
    for (name, _) in rules::RULES {
        let shown = rules::BROKEN.iter().any(|(broken, ..)| broken == name);
        assert!(shown, "nothing shows that the rule can fail: {name}");
    }
}

#[test]
fn what_keeps_the_rules_is_let_through() {
    for (path, text) in rules::SOUND {
        for (name, rule) in rules::RULES {
            assert_none(
                &format!("{name}: {path} with {text:?}"),
                &rule(&Source::new(path, text)),
            );
        }
    }
}

#[test]
fn no_test_is_ignored() {
    let findings: Vec<String> = ["src", "crates", "fuzz/targets", "tests", "benches", "examples"]
        .iter()
        .flat_map(|dir| every_file(dir))
        .filter(|(path, _)| path.ends_with(".rs"))
        .flat_map(|(path, text)| rules::ignored(&path, &text))
        .collect();
    assert_none("ignored tests", &findings);
    assert_eq!(rules::ignored("src/a.rs", "#[test]\n#[ignore]\nfn a() {}").len(), 1);
    assert_eq!(
        rules::ignored("src/a.rs", "    #[ignore = \"slow\"]\nfn a() {}").len(),
        1
    );
}

#[test]
fn no_test_sleeps_for_luck() {
    let findings: Vec<String> = ["tests", "crates", "fuzz/targets"]
        .iter()
        .flat_map(|dir| every_file(dir))
        .filter(|(path, _)| path.ends_with(".rs") && !path.starts_with("tests/it/tidy"))
        .flat_map(|(path, text)| rules::long_sleeps(&path, &text))
        .collect();
    assert_none("sleeps of a second or more", &findings);
    for (text, count) in [
        ("sleep(Duration::from_secs(2)).await;", 1),
        ("std::thread::sleep(std::time::Duration::from_millis(1_500));", 1),
        ("sleep(\n    Duration::from_secs(1),\n)", 1),
        ("sleep(Duration::from_millis(999));", 0),
        ("last_for(Duration::from_secs(60)).await;", 0),
        ("sleep(OUTAGE)", 0),
    ] {
        assert_eq!(rules::long_sleeps("tests/it/a.rs", text).len(), count, "{text}");
    }
}

#[test]
fn whoever_starts_the_binary_keeps_what_it_says() {
    let findings: Vec<String> = every_file("tests")
        .into_iter()
        .filter(|(path, _)| path != "tests/support/program.rs")
        .flat_map(|(path, text)| rules::unkept(&path, &text))
        .collect();
    assert_none("output that is not searched for secrets", &findings);
    let starts = concat!("a\nCommand::new(", "binary())");
    assert_eq!(rules::unkept("tests/it/a.rs", starts).len(), 1);
    let starts = concat!("env!(\"CARGO_BIN_", "EXE_forebay\")");
    assert_eq!(rules::unkept("tests/it/a.rs", starts).len(), 1);
}

#[test]
fn whoever_leaves_something_to_do_signs_it() {
    let findings: Vec<String> = ["src", "crates", "docs", "fuzz/targets", "tests", "benches", "examples"]
        .iter()
        .flat_map(|dir| every_file(dir))
        .filter(|(path, _)| !path.starts_with("tests/it/tidy"))
        .flat_map(|(path, text)| rules::unowned(&path, &text))
        .collect();
    assert_none("left to do, by nobody", &findings);
    assert_eq!(rules::unowned("docs/a.md", "a\nTODO: later").len(), 1);
    assert_eq!(rules::unowned("src/a.rs", "// FIXME").len(), 1);
    assert!(rules::unowned("src/a.rs", "// TODO(ada): later").is_empty());
}

#[test]
fn comments_and_documents_are_wrapped() {
    let mut files = documents();
    for dir in ["src", "crates", "fuzz/targets", "tests", "benches"] {
        let sources = every_file(dir).into_iter();
        files.extend(sources.filter(|(path, _)| path.ends_with(".rs") || path.ends_with(".md")));
    }
    let findings: Vec<String> = (files.iter())
        .flat_map(|(path, text)| documents::unwrapped(path, text))
        .collect();
    assert_none("longer than a line may be", &findings);

    let long = "word ".repeat(30);
    assert_eq!(
        documents::unwrapped("docs/a.md", &format!("a\n- {long}")),
        ["docs/a.md:2"]
    );
    assert_eq!(documents::unwrapped("src/a.rs", &format!("    /// {long}")).len(), 1);
    let shown = format!("| {long} |\n```sh\n{long}\n```\n<https://{long}>");
    assert_eq!(documents::unwrapped("docs/a.md", &shown), [""; 0]);
    assert_eq!(
        documents::unwrapped("src/a.rs", &format!("let a = \"{long}\";")),
        [""; 0]
    );
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let mut names = Vec::new();
    for (dir, least) in [("src", 50), ("crates/kafka/src", 7), ("crates/rabbitmq/src", 3)] {
        let found = documents::metrics(&walk(root(), dir));
        assert!(found.len() >= least, "found only {found:?} in {dir}");
        names.extend(found);
    }
    let text = read("docs/metrics.md");
    assert_none("not in docs/metrics.md", &documents::missing(&names, &text));
    assert_none("in docs/metrics.md only", &documents::unknown_metrics(&names, &text));
}

#[test]
fn every_error_label_is_documented() {
    for (name, document) in [("kafka", "docs/kafka.md"), ("rabbitmq", "docs/rabbitmq.md")] {
        let labels = documents::labels(&walk(root(), &format!("crates/{name}/src")), &format!("{name}_"));
        assert!(labels.len() > 5, "found only {labels:?}");
        let missing = documents::missing(&labels, &read(document));
        assert_none(&format!("not in {document}"), &missing);
    }
}

#[test]
fn every_configuration_key_is_documented() {
    let read_by = ["src/config", "crates/kafka/src", "crates/rabbitmq/src"];
    let keys: Vec<_> = read_by.iter().flat_map(|dir| walk(root(), dir)).collect();
    let keys = documents::keys(&keys);
    assert!(keys.len() > 50, "found only {keys:?}");
    assert_none(
        "not in docs/configuration.md",
        &documents::missing(&keys, &read("docs/configuration.md")),
    );
}

#[test]
fn every_field_of_the_log_is_documented_and_every_documented_field_exists() {
    let mut fields = documents::log_fields(&walk_all(root()));
    assert!(fields.len() > 20, "found only {fields:?}");
    // What every line has, and the last one of a process that failed.
    fields.extend(["timestamp", "level", "target", "message", "exit_code"].map(str::to_owned));
    fields.sort();
    assert_eq!(fields, documents::first_column(&read("docs/logging.md")));
}

#[test]
fn what_the_code_names_is_found_and_missed_in_a_document() {
    let source = |text| [Source::new("src/a.rs", text)];
    let names = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };

    let registered = source("fn a() { r.counters(\n    \"a_total\", \"\", &[]); r.gauge(\"b\", \"\") }");
    assert_eq!(documents::metrics(&registered), ["forebay_a_total", "forebay_b"]);
    let registered = source("fn a() { gauge(\"forebay_c\", \"\"); Opts::new(\"forebay_d\", \"\"); Thing::new(\"e\") }");
    assert_eq!(documents::metrics(&registered), ["forebay_c", "forebay_d"]);
    let metrics = names(&["forebay_a_seconds", "forebay_b"]);
    let text = "`forebay_a_seconds_bucket`, `forebay_bb`";
    assert_eq!(documents::missing(&metrics, text), metrics);
    assert_eq!(documents::unknown_metrics(&metrics, text), ["forebay_bb"]);

    let label = source("const A: &str = \"kafka_a\"; // \"kafka_b\"");
    assert_eq!(documents::labels(&label, "kafka_"), ["kafka_a"]);
    assert_eq!(documents::missing(&names(&["kafka_a"]), "`kafka_ab`"), ["kafka_a"]);
    assert!(documents::missing(&names(&["kafka_a"]), "`kafka_a`").is_empty());

    let logged = source(
        "fn a() { tracing::warn!(a, b = f(x, y), %c, d = ?e, f = \"g, h\", \"i {}, {j}\", k); tracing::info!(\"l\") }",
    );
    assert_eq!(documents::log_fields(&logged), ["a", "b", "c", "d", "f"]);
    let table = "| field | what |\n|---|---|\n| `a` | `b` |\n| `c`, `d` | e |\n";
    assert_eq!(documents::first_column(table), ["a", "c", "d"]);

    let keys = source("fn a() { t.take_or(\n    \"a_max\", 1); t.table(\"b\"); t.problem(\"c\", d) }");
    assert_eq!(documents::keys(&keys), ["a_max", "b"]);
}

#[test]
fn the_links_of_the_documents_lead_somewhere() {
    let exists = |path: &str| root().join(path.trim_start_matches('/')).exists();
    let findings: Vec<String> = (documents().iter())
        .flat_map(|(path, text)| documents::broken_links(path, text, exists))
        .collect();
    assert_none("broken links", &findings);

    let text = "[a](b.md#c), [d](#e), [f](https://g), [h](../i.md)";
    let broken = documents::broken_links("docs/a.md", text, |path| path == "docs/b.md");
    assert_eq!(broken, ["docs/a.md: no file ../i.md"]);
}

#[test]
fn the_commands_in_the_documents_exist() {
    let recipes = documents::recipes(&read("justfile"));
    let exists = |path: &str| root().join(path).is_file();
    for path in ["README.md", "CONTRIBUTING.md", "docs/benchmarks.md"] {
        let findings = documents::wrong_commands(path, &read(path), &recipes, exists, help);
        assert_none(path, &findings);
    }
}

#[test]
fn a_command_that_does_not_exist_is_found() {
    let help = |subcommand: &str| (subcommand == "serve").then(|| "Options: --config <FILE>, --json".to_owned());
    let wrong = |block: &str| {
        let text = format!("text\n```sh\n{block}\n```\ntext, and just gone");
        documents::wrong_commands("a.md", &text, &["dev".to_owned()], |path| path == "tests/run.sh", help)
    };
    for (command, finding) in [
        ("just gone", "no recipe gone"),
        ("tests/gone.sh", "no file tests/gone.sh"),
        ("A=b forebay gone", "no subcommand gone"),
        ("forebay serve \\\n  --gone=x", "no option --gone"),
        ("cargo run --release -- serve --conf x", "no option --conf"),
    ] {
        let findings = wrong(command);
        assert!(
            findings.len() == 1 && findings[0].ends_with(finding),
            "{command}: {findings:?}"
        );
    }
    for right in [
        "just dev # no",
        "tests/run.sh",
        "forebay serve --config=x",
        "# just gone",
        "kcat -b x",
    ] {
        assert_none(right, &wrong(right));
    }
}

/// What the binary says of a subcommand, if it has it.
fn help(subcommand: &str) -> Option<String> {
    let output = program::forebay().args([subcommand, "--help"]).output();
    let output = output.expect("the binary starts");
    let found = output.status.success() && !output.stdout.is_empty();
    found.then(|| String::from_utf8(output.stdout).expect("help is text"))
}

#[test]
fn http_2_and_decompression_are_not_compiled_in() {
    let features = cargo_tree(&["--edges", "features", "--invert", "actix-http"]);
    assert!(features.contains("actix-http v"), "{features}");
    for off in ["http2", "compress-gzip", "compress-brotli", "compress-zstd"] {
        assert!(
            !has_feature(&features, "actix-http", off),
            "actix-http has {off}:\n{features}"
        );
    }
    assert!(has_feature("├── actix-http feature \"http2\"", "actix-http", "http2"));
}

#[test]
fn there_is_one_crypto_stack() {
    let tree = cargo_tree(&["--prefix", "none", "--format", "{p}"]);
    let count = |name: &str| {
        let mut versions: Vec<&str> = tree
            .lines()
            .filter(|line| line.split(' ').next() == Some(name))
            .map(|line| line.split(' ').nth(1).expect("a version"))
            .collect();
        versions.sort_unstable();
        versions.dedup();
        versions.len()
    };
    assert_eq!(count("openssl-sys"), 1, "{tree}");
    assert_eq!(count("rdkafka-sys"), 1, "{tree}");
    for other in ["rustls", "ring", "aws-lc-sys", "boring-sys", "mbedtls"] {
        assert_eq!(count(other), 0, "{other} is in the tree beside OpenSSL");
    }
}

/// What they ask of Forebay they ask as its users do.
#[test]
fn the_tests_of_the_binary_link_neither_the_package_nor_a_brokers_crate() {
    let crates = |name: &str| {
        let tree = cargo_tree(&["--package", name, "--edges", "normal,build,dev", "--prefix", "none"]);
        let names = tree.lines().filter_map(|line| line.split(' ').next());
        names.map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let (binary, tests) = (crates("forebay"), crates("forebay-tests"));
    for linked in ["forebay", "forebay-http-client", "forebay-kafka", "forebay-rabbitmq"] {
        assert!(binary.contains(linked), "{linked}: {binary:?}");
        assert!(!tests.contains(linked), "{linked}");
    }
}

/// A consumer that uses the kit wants neither a web server nor a broker client, nor the minutes that they take to
/// compile.
#[test]
fn the_kit_has_no_server_and_no_broker_client() {
    let crates = |arguments: &[&str]| -> BTreeSet<String> {
        let tree = cargo_tree(&[&["--prefix", "none", "--format", "{p}"], arguments].concat());
        let names = tree.lines().filter_map(|line| line.split(' ').next());
        names.map(str::to_owned).collect()
    };
    let heavy = |name: &String| {
        let begins = [
            "actix", "clap", "hyper", "lapin", "openssl", "rdkafka", "reqwest", "tokio", "tracing",
        ];
        begins.iter().any(|begin| name.starts_with(begin))
    };
    let (with, without) = (crates(&[]), crates(&["--package", "forebay-consumer"]));
    assert!(with.iter().filter(|name| heavy(name)).count() >= 9, "{with:?}");
    let found: Vec<&String> = without.iter().filter(|name| heavy(name)).collect();
    assert!(found.is_empty(), "{found:?}");
    assert!(
        without.contains("serde_json") && without.len() < 50,
        "{} crates: {without:?}",
        without.len()
    );
}

fn has_feature(tree: &str, name: &str, feature: &str) -> bool {
    tree.contains(&format!("{name} feature \"{feature}\""))
}

/// What is linked into the binary, on this platform.
fn cargo_tree(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--offline", "--locked", "--manifest-path"]);
    command.arg(root().join("Cargo.toml"));
    if !arguments.contains(&"--edges") {
        command.args(["--edges", "normal,build"]);
    }
    if !arguments
        .iter()
        .any(|argument| matches!(*argument, "--package" | "--workspace"))
    {
        command.args(["--package", "forebay"]);
    }
    let output = command.args(arguments).output().expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("a tree is text")
}

/// What is written for those who use it, and for those who change it.
fn documents() -> Vec<(String, String)> {
    let at_the_top = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
    ];
    let mut documents: Vec<_> = at_the_top.map(|path| (path.to_owned(), read(path))).into();
    for dir in ["crates", "docs", "examples", "deploy", "fuzz"] {
        documents.extend(every_file(dir).into_iter().filter(|(path, _)| path.ends_with(".md")));
    }
    documents
}

fn every_file(dir: &str) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    source::list(root(), dir, &mut paths);
    paths.sort();
    // What is not text is a fixture.
    let text = |path: &String| fs::read_to_string(root().join(path)).ok();
    paths
        .into_iter()
        .filter_map(|path| text(&path).map(|text| (path, text)))
        .collect()
}

#[test]
fn every_module_of_tests_is_in_one_group_by_what_it_needs() {
    let script = read("tests/run.sh");
    let group = |name: &str| -> Vec<String> {
        let begin = format!("\n{name}=\"");
        let (_, behind) = script.split_once(&begin).unwrap_or_else(|| panic!("no group {name}"));
        let (modules, _) = behind.split_once('"').unwrap();
        modules.split_whitespace().map(str::to_owned).collect()
    };
    let groups = ["fast", "no_broker", "kafka", "rabbitmq", "both", "deploy"];
    let mut grouped: Vec<String> = groups.iter().flat_map(|name| group(name)).collect();
    grouped.sort();
    let programs = ["tests/it/main.rs", "tests/whitebox/main.rs"].map(read);
    let modules = programs.iter().flat_map(|main| main.lines());
    let mut modules: Vec<_> = modules
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    modules.sort_unstable();
    assert_eq!(grouped, modules, "each once");
}
