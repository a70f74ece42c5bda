//! The image's Dockerfile, as far as it can be judged without building it; `tests/image.sh` builds and runs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use crate::support::{ROOT, fetched};

const DOCKERFILES: [&str; 2] = ["deploy/Dockerfile", "deploy/compose/consumer.Dockerfile"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What hadolint has against a Dockerfile; nothing is what it should be.
fn lint(text: &str) -> String {
    static HADOLINT: LazyLock<PathBuf> = LazyLock::new(|| fetched::by("tests/hadolint.sh", &[]));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Dockerfile");
    fs::write(&path, text).unwrap();
    let output = Command::new(HADOLINT.as_path())
        .args(["--no-color"])
        .arg(&path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn hadolint_has_nothing_against_the_dockerfiles() {
    for path in DOCKERFILES {
        assert_eq!(lint(&read(path)), "", "{path}");
    }
    let careless = read(DOCKERFILES[0]).replace("SHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]\n", "");
    assert!(lint(&careless).contains("DL4006"));
}

#[test]
fn the_dependencies_of_every_crate_are_in_the_layer_that_stays() {
    let text = read(DOCKERFILES[0]);
    let crates = fs::read_dir(Path::new(ROOT).join("crates")).unwrap();
    let names: Vec<_> = crates.map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() > 5, "{names:?}");
    let crates = names.iter().map(|name| format!("crates/{}", name.to_str().unwrap()));
    for package in crates.chain(["fuzz/targets", "tests", "tests/support"].map(str::to_owned)) {
        let manifest = format!("{package}/Cargo.toml");
        let line = format!("COPY {manifest} {manifest}\n");
        assert!(text.contains(&line), "{line}");
    }
}

/// The instructions of the last stage.
fn last_stage(text: &str) -> &str {
    &text[text.rfind("\nFROM ").expect("a stage") + 1..]
}

#[test]
fn the_image_is_as_its_page_and_the_manifests_say() {
    let text = read(DOCKERFILES[0]);
    let image = last_stage(&text);
    for part in [
        "FROM scratch\n",
        "USER 10001:10001\n",
        "VOLUME [\"/var/lib/forebay\"]\n",
        "EXPOSE 8080 9464\n",
        "CMD [\"/usr/bin/forebay\", \"check\", \"--live\"]\n",
        "ENTRYPOINT [\"/usr/bin/forebay\"]\n",
    ] {
        assert!(image.contains(part), "{part}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        image.contains(&format!("ARG VERSION={version}\n")),
        "the version is that of Cargo.toml"
    );
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'));
    let channel = channel.expect("a channel");
    assert!(
        text.contains(&format!("/rust:{channel}-")),
        "the compiler is that of rust-toolchain.toml"
    );
}

/// What the sources read when they are compiled is in the context, and nothing that changes with every build.
#[test]
fn the_context_has_what_the_build_takes() {
    let ignore = read(".dockerignore");
    let taken: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let text = read(DOCKERFILES[0]);
    let copied = text
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|line| !line.starts_with("--"));
    for line in copied {
        let (sources, _) = line.rsplit_once(' ').unwrap();
        for source in sources.split(' ') {
            let is_taken = |all: &&str| source == *all || source.starts_with(&format!("{all}/"));
            assert!(taken.iter().any(is_taken), "COPY {source}: not in .dockerignore");
        }
    }
    for include in ["docs/ordering.md", "docs/schemas"] {
        assert!(taken.contains(&include), "{include}");
    }
}
