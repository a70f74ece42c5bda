//! What the stamps on an event cost, at 100,000 live streams.
//!
//! Method: *lateby* is `Lateness::observe`, called for 4 million events of 100,000 streams that come in no order of
//! streams, so that nearly each one finds its stream outside of the processor's caches; every fourth event is late. By
//! one thread, and by two at once, as two of the server's workers do. *Writing* is all stamps as text, in the form in
//! which an event carries them: `sequence`, `replica`, `time`, `senttime`, `recordedtime`, `lateby`. Each is run five
//! times; reported are the median and the highest, in ns of CPU per event: time that a thread waits for the other's
//! lock is not CPU of its own, and is therefore shown as the time that passes, too. Memory is what the process grew by
//! when the table was filled.
//!
//! `cargo bench --bench stamps`

#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use forebay::{
    event::{Time, text},
    ingress::StreamLateness,
};
use prometheus::IntGauge;
use rustix::time::{ClockId, clock_gettime};

const STREAMS: usize = 100_000;
const EVENTS: usize = 4_000_000;
const RUNS: usize = 5;
const NOW: i64 = 1_700_000_000_000;

fn main() -> anyhow::Result<()> {
    let keys: Vec<String> = (0..STREAMS).map(|stream| format!("ZG6NWV/stream-{stream}")).collect();
    let before = resident_bytes()?;
    let lateness = StreamLateness::new(2 * STREAMS, IntGauge::new("remembered", "streams")?);
    for key in &keys {
        lateness.observe(key, Time(NOW), Time(NOW));
    }
    let grown = resident_bytes()?.saturating_sub(before);
    println!("memory: {} bytes a stream", grown / STREAMS);

    measure("lateby, one thread", || observe(&lateness, &keys, 0));
    measure("lateby, two threads at once", || {
        thread::scope(|scope| {
            let other = scope.spawn(|| observe(&lateness, &keys, STREAMS / 2));
            let this = observe(&lateness, &keys, 0);
            (this + other.join().expect("it does not panic")) / 2
        })
    });
    measure("writing all stamps as text", || {
        let mut bytes = 0;
        let used = cpu(|| {
            for event in 0..EVENTS {
                let time = Time(NOW + event as i64);
                bytes += format!("{event:020}").len() + text::attribute("forebay-0").len();
                bytes += time.to_rfc3339().len() + time.to_rfc3339().len() + time.to_rfc3339().len();
                bytes += event.to_string().len();
            }
        });
        black_box(bytes);
        used
    });
    Ok(())
}

/// Takes in all events, beginning with another stream for another `offset`; returns the CPU time.
fn observe(lateness: &StreamLateness, keys: &[String], offset: usize) -> Duration {
    cpu(|| {
        for event in 0..EVENTS {
            // A prime that does not divide the number of streams: all of them come, far from each other.
            let stream = (offset + event * 7919) % STREAMS;
            let behind = if event % 4 == 0 { 500 } else { 0 };
            let time = Time(NOW + (event / STREAMS) as i64 - behind);
            black_box(lateness.observe(&keys[stream], time, Time(NOW)));
        }
    })
}

fn measure(what: &str, mut run: impl FnMut() -> Duration) {
    let mut runs: Vec<(f64, f64)> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            let used = run();
            (per_event(used), per_event(started.elapsed()))
        })
        .collect();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (median, highest) = (runs[RUNS / 2], runs[RUNS - 1]);
    println!(
        "{what}: {:.0} ns of CPU (highest {:.0}), {:.0} ns passed",
        median.0, highest.0, median.1
    );
}

fn per_event(time: Duration) -> f64 {
    time.as_nanos() as f64 / EVENTS as f64
}

/// The CPU time of this thread that `run` takes.
fn cpu(run: impl FnOnce()) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let started = now();
    run();
    now() - started
}

fn resident_bytes() -> anyhow::Result<usize> {
    let pages: usize = std::fs::read_to_string("/proc/self/statm")?
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .parse()?;
    Ok(pages * rustix::param::page_size())
}
