//! Prometheus' promtool, from the distribution.

use std::{path::Path, process::Command};

/// Runs promtool. `Err`: what it found.
pub fn promtool(dir: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("promtool, of the package prometheus, can be run");
    if output.status.success() {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(text(&output.stdout) + &text(&output.stderr))
}
