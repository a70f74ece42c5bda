//! A Python with the clients of Kafka and RabbitMQ.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use super::fetched;

/// The one of `FOREBAY_TEST_PYTHON`, else the one that `tests/venv.sh` makes, once.
pub fn python() -> &'static Path {
    static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
        let given = std::env::var_os("FOREBAY_TEST_PYTHON").filter(|path| !path.is_empty());
        given.map_or_else(|| fetched::by("tests/venv.sh", &[]), PathBuf::from)
    });
    &PYTHON
}
