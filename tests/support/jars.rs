//! Jars, fetched by Maven once.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The directory of the jars that the `pom.xml` of a directory of this repository names.
pub fn fetch(dir: &str) -> PathBuf {
    let root = Path::new(crate::ROOT);
    let mut command = Command::new(root.join("tests/jars.sh"));
    let output = command.arg(root.join(dir)).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "tests/jars.sh {dir}: {}", output.status);
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}
