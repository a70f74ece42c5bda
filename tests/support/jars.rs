//! What is fetched once: jars, by Maven, and other servers.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The directory of the jars that the `pom.xml` of a directory of this repository names.
pub fn fetch(dir: &str) -> PathBuf {
    directory("tests/jars.sh", &[dir])
}

/// The directory that a script of this repository makes, once, and prints. Its arguments are paths in the repository.
pub fn directory(script: &str, paths: &[&str]) -> PathBuf {
    let root = Path::new(crate::ROOT);
    let mut command = Command::new(root.join(script));
    command.args(paths.iter().map(|path| root.join(path)));
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{script}: {}", output.status);
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}
