//! Whether anybody else uses the processors.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

/// An idle Kafka takes a few per cent.
const BUSY_SHARE_MAX: f64 = 0.15;

/// Waits until the processors are nearly idle for a second.
pub fn wait(within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let (busy_before, all_before) = ticks()?;
        sleep(Duration::from_secs(1));
        let (busy, all) = ticks()?;
        let share = (busy - busy_before) as f64 / (all - all_before).max(1) as f64;
        if share <= BUSY_SHARE_MAX {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "something else uses {:.0} % of the processors, for {within:?}: stop it, or measure with --noisy",
            share * 100.0
        );
    }
}

/// Busy and all ticks of all processors, of proc(5).
fn ticks() -> Result<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in user already.
    let fields = line.split_whitespace().skip(1).take(8).map(str::parse::<u64>);
    let fields = fields.collect::<Result<Vec<u64>, _>>()?;
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    let all: u64 = fields.iter().sum();
    Ok((all - idle, all))
}
