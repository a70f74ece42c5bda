//! Memory limits as a container has them.

use std::{fs, path::PathBuf};

/// A control group of memory, removed when dropped.
pub struct MemoryGroup {
    dir: PathBuf,
}

impl MemoryGroup {
    /// Kills what is in it above `bytes`. Fails where none can be made, unless `FOREBAY_TEST_NO_ROOT` allows that: then
    /// it is named, and `None`.
    #[allow(clippy::print_stderr, reason = "what is left out is said")]
    pub fn new(test: &str, bytes: u64) -> Option<Self> {
        let made = [
            ("/sys/fs/cgroup", "cgroup.controllers", "memory.max"),
            (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.limit_in_bytes",
            ),
        ]
        .into_iter()
        .find_map(|(root, known, limit)| {
            let root = PathBuf::from(root);
            root.join(known).exists().then_some(())?;
            let group = Self {
                dir: root.join(format!("forebay-test-{}-{test}", std::process::id())),
            };
            fs::create_dir(&group.dir).ok()?;
            fs::write(group.dir.join(limit), bytes.to_string()).ok()?;
            Some(group)
        });
        if made.is_none() {
            let allowed = std::env::var_os("FOREBAY_TEST_NO_ROOT").is_some();
            assert!(
                allowed,
                "{test}: no control group can be made here; FOREBAY_TEST_NO_ROOT=1 leaves it out"
            );
            eprintln!("left out: {test}: no control group can be made here");
        }
        made
    }

    /// A program, and its arguments, that runs what follows in the group.
    pub fn wrapper(&self) -> Vec<String> {
        let procs = self.dir.join("cgroup.procs");
        let script = format!("echo $$ >{} && exec \"$@\"", procs.display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It stays where a process is in it still.
        let _ = fs::remove_dir(&self.dir);
    }
}
