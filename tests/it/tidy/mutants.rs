//! What `tests/mutants/run.sh` breaks on purpose is still there to be broken, and told of in docs/testing.md.

use std::{fs, path::PathBuf, process::Command};

use super::{assert_none, read, root};

/// The patches, by name.
fn patches() -> Vec<PathBuf> {
    let files = fs::read_dir(root().join("tests/mutants")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "patch"))
        .collect()
}

#[test]
fn every_mutant_can_still_be_made_and_says_which_rule_it_breaks() {
    let document = read("docs/testing.md");
    let patches = patches();
    assert!(patches.len() >= 16, "only {} mutants", patches.len());
    for patch in &patches {
        let name = patch.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(patch).unwrap();
        let has = |head: &str| text.lines().take(2).any(|line| line.starts_with(head));
        assert!(
            has("Rule: ") && has("Red: "),
            "{name}: its first lines are Rule: and Red:"
        );
        assert!(
            document.contains(&format!("| `{name}` |")),
            "{name}: not in docs/testing.md"
        );
        let mut check = Command::new("git");
        let output = check
            .args(["apply", "--check"])
            .arg(patch)
            .current_dir(root())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{name}: make it anew, the code has changed: {said}"
        );
    }
    let listed = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let is_there = |name: &&str| patches.iter().any(|patch| patch.ends_with(format!("{name}.patch")));
    let gone: Vec<String> = listed.filter(|name| !is_there(name)).map(str::to_owned).collect();
    assert_none("told of in docs/testing.md, and not in tests/mutants", &gone);
}
