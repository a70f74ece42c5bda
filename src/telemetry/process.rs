//! The process's own metrics, by the names that every Prometheus client uses, from `/proc`.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus::{Counter, Gauge, IntGauge};

use super::metrics::MetricsRegister;

/// Ticks per second in `/proc`, on every architecture of Linux.
const USER_HZ: f64 = 100.0;

/// Refreshed when somebody asks. On a system without `/proc` they stay at zero.
pub(super) struct ProcessMetrics {
    cpu_seconds: Counter,
    open_fds: IntGauge,
    max_fds: IntGauge,
    resident_memory_bytes: IntGauge,
    threads: IntGauge,
}

impl ProcessMetrics {
    pub fn new(register: &MetricsRegister<'_>) -> Self {
        let start_time_seconds = register.register(Gauge::new(
            "process_start_time_seconds",
            "When the process started, in seconds since the Unix epoch.",
        ));
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        start_time_seconds.set(since_epoch.as_secs_f64());
        Self {
            cpu_seconds: register.register(Counter::new(
                "process_cpu_seconds_total",
                "User and system CPU time spent, in seconds.",
            )),
            open_fds: register.register(IntGauge::new("process_open_fds", "Open file descriptors.")),
            max_fds: register.register(IntGauge::new(
                "process_max_fds",
                "File descriptors that the process may open.",
            )),
            resident_memory_bytes: register.register(IntGauge::new(
                "process_resident_memory_bytes",
                "Resident memory, in bytes.",
            )),
            threads: register.register(IntGauge::new("process_threads", "Threads of the process.")),
        }
    }

    pub fn refresh(&self) {
        if let Ok(stat) = fs::read_to_string("/proc/self/stat")
            && let Some(seconds) = cpu_seconds(&stat)
        {
            self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            if let Some(kib) = field(&status, "VmRSS:") {
                self.resident_memory_bytes.set(kib * 1024);
            }
            if let Some(threads) = field(&status, "Threads:") {
                self.threads.set(threads);
            }
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            self.open_fds.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.max_fds
            .set(limit.map_or(-1, |files| i64::try_from(files).unwrap_or(i64::MAX)));
    }
}

/// The first number of a line of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The 14th and 15th field; the second is the command, in parentheses, and may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / USER_HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_whatever_the_command_is_called() {
        let stat = "17 (a (b) c) S 1 17 17 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 3 0 99 1000 12";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("nonsense"), None);
        assert_eq!(field("Name:\tx\nVmRSS:\t   12 kB\nThreads:\t3\n", "VmRSS:"), Some(12));
        assert_eq!(field("Name:\tx\n", "VmRSS:"), None);
    }
}
