//! The part of the command line that every benchmark with turns has.

use std::time::Duration;

use anyhow::Result;

use super::quiet;

/// How long a turn waits for the machine to itself.
const QUIET_DEADLINE: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub struct Turns {
    /// How long each turn is measured.
    #[arg(long, default_value_t = 8)]
    pub seconds: u64,
    /// Measure even while something else uses the processors. The numbers then say little.
    #[arg(long)]
    noisy: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Turns {
    /// Waits until the machine is nearly idle, unless noise is fine.
    pub fn wait_until_quiet(&self) -> Result<()> {
        if self.noisy {
            return Ok(());
        }
        quiet::wait(QUIET_DEADLINE)
    }
}
