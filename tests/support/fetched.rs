//! What scripts of this repository fetch or build, once, into the cache of the tests.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The path that a script prints, of what it makes if it is not there. Its arguments are paths in the repository.
pub fn by(script: &str, paths: &[&str]) -> PathBuf {
    let root = Path::new(crate::ROOT);
    let mut command = Command::new(root.join(script));
    command.args(paths.iter().map(|path| root.join(path)));
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{script}: {}", output.status);
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// The directory of the jars that the `pom.xml` of a directory of this repository names.
pub fn jars(dir: &str) -> PathBuf {
    by("tests/jars.sh", &[dir])
}
