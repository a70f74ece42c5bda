//! A Python with the clients of Kafka and RabbitMQ.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// The one of `FOREBAY_TEST_PYTHON`, else the one that `tests/venv.sh` makes, once.
pub fn python() -> &'static Path {
    static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
        let given = std::env::var_os("FOREBAY_TEST_PYTHON").filter(|path| !path.is_empty());
        given.map_or_else(make, PathBuf::from)
    });
    &PYTHON
}

fn make() -> PathBuf {
    let script = Path::new(crate::ROOT).join("tests/venv.sh");
    let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "tests/venv.sh: {}", output.status);
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}
