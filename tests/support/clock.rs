//! A clock of the machine that steps, for a process that is started with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What libfaketime tells a process: the time, and an offset that can be changed while it runs.
pub struct SteppingClock {
    file: PathBuf,
}

impl SteppingClock {
    /// With the right time. `dir` is where its offset is kept.
    pub fn new(dir: &Path) -> Self {
        let clock = Self {
            file: dir.join("clock"),
        };
        clock.step("+0");
        clock
    }

    /// Changes the offset, which is as in `+5y`.
    pub fn step(&self, offset: &str) {
        fs::write(&self.file, offset).unwrap();
    }

    /// Variables of the environment, for `env`. What measures time goes on as it is: only the calendar steps.
    ///
    /// A process that has librdkafka does not end in order with them: libfaketime changes the time that its threads
    /// read, and not how long they wait for it.
    pub fn variables(&self) -> [String; 4] {
        let library = ["x86_64", "aarch64"]
            .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"))
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("libfaketime is installed (tests/run.sh installs it)");
        [
            format!("LD_PRELOAD={library}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            "FAKETIME_NO_CACHE=1".into(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
        ]
    }
}
