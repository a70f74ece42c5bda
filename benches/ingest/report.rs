//! Medians, and each server beside the bare handler.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::{Result, ensure};

use crate::{load::Vegeta, servers::Kind, support::median};

/// One load with so many connections.
#[derive(Debug)]
pub struct Sample {
    pub requests_per_second: f64,
    pub p99_ms: f64,
    pub failed: u64,
    /// Until all of it was published.
    pub cpu_us_per_event: f64,
    /// The share of the events that Kafka had confirmed when the load ended.
    pub published_meanwhile: Option<f64>,
    /// How long the rest took.
    pub drain: Duration,
}

/// One load at a fixed rate.
#[derive(Debug)]
pub struct Fixed {
    pub vegeta: Vegeta,
    pub cpu_us_per_event: f64,
}

/// One backlog that was published.
#[derive(Debug)]
pub struct Drain {
    pub events: f64,
    /// From the start of the process until all was confirmed.
    pub took: Duration,
    pub cpu: Duration,
}

impl Drain {
    fn rate(&self) -> f64 {
        self.events / self.took.as_secs_f64()
    }

    fn cpu_us_per_event(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.events
    }
}

#[derive(Debug, Default)]
pub struct Report {
    closed: BTreeMap<(usize, Kind), Vec<Sample>>,
    fixed: BTreeMap<Kind, Vec<Fixed>>,
    drains: BTreeMap<Kind, Vec<Drain>>,
    /// Per event.
    instructions: BTreeMap<Kind, Vec<f64>>,
}

impl Report {
    pub fn add(&mut self, kind: Kind, connections: usize, sample: Sample) {
        self.closed.entry((connections, kind)).or_default().push(sample);
    }

    pub fn add_fixed(&mut self, kind: Kind, fixed: Fixed) {
        self.fixed.entry(kind).or_default().push(fixed);
    }

    pub fn add_drain(&mut self, kind: Kind, drain: Drain) {
        self.drains.entry(kind).or_default().push(drain);
    }

    pub fn add_instructions(&mut self, kind: Kind, per_event: f64) {
        self.instructions.entry(kind).or_default().push(per_event);
    }

    /// A number about requests that failed says nothing.
    pub fn check(&self) -> Result<()> {
        for ((connections, kind), samples) in &self.closed {
            let failed: u64 = samples.iter().map(|sample| sample.failed).sum();
            ensure!(
                failed == 0,
                "{kind} with {connections} connections: {failed} requests failed"
            );
        }
        for (kind, samples) in &self.fixed {
            let success = samples.iter().all(|fixed| fixed.vegeta.success == 1.0);
            ensure!(success, "{kind} at a fixed rate: requests failed");
        }
        Ok(())
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0}/s, p99 {:.1} ms, {:.1} µs CPU per event, {} failed",
            self.requests_per_second, self.p99_ms, self.cpu_us_per_event, self.failed
        )?;
        match self.published_meanwhile {
            Some(share) => write!(
                f,
                ", {:.0} % published meanwhile, the rest in {:.1} s",
                share * 100.0,
                self.drain.as_secs_f64()
            ),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = &self.vegeta;
        write!(
            f,
            "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms, {:.1} µs CPU per event, {:.2} % answered 200",
            v.rate,
            v.p50_ms,
            v.p99_ms,
            v.max_ms,
            self.cpu_us_per_event,
            v.success * 100.0
        )
    }
}

impl fmt::Display for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, cpu) = (self.rate(), self.cpu_us_per_event());
        write!(f, "{:.0} events at {rate:.0}/s, {cpu:.1} µs CPU per event", self.events)
    }
}

impl Report {
    fn write_instructions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| server | instructions/event | lowest–highest |")?;
        writeln!(f, "|---|---|---|")?;
        for (kind, counted) in &self.instructions {
            let lowest = counted.iter().copied().fold(f64::NAN, f64::min);
            let highest = counted.iter().copied().fold(f64::NAN, f64::max);
            let median = median(counted.iter().copied());
            writeln!(f, "| {kind} | {median:.0} | {lowest:.0}–{highest:.0} |")?;
        }
        Ok(())
    }

    fn write_drains(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.drains.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n| server, backlog | events/s | lowest–highest | CPU µs/event |")?;
        writeln!(f, "|---|---|---|---|")?;
        for (kind, drains) in &self.drains {
            let mut rates: Vec<f64> = drains.iter().map(Drain::rate).collect();
            rates.sort_by(f64::total_cmp);
            writeln!(
                f,
                "| {kind} | {:.0} | {:.0}–{:.0} | {:.1} |",
                median(rates.iter().copied()),
                rates.first().copied().unwrap_or(f64::NAN),
                rates.last().copied().unwrap_or(f64::NAN),
                median(drains.iter().map(Drain::cpu_us_per_event)),
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.instructions.is_empty() {
            return self.write_instructions(f);
        }
        writeln!(
            f,
            "| connections | server | 200s/s | of bare | lowest–highest | p99 ms | CPU µs/event | published meanwhile |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for ((connections, kind), samples) in &self.closed {
            let rate = |samples: &[Sample]| median(samples.iter().map(|sample| sample.requests_per_second));
            let bare = self.closed.get(&(*connections, Kind::Bare)).map(|bare| rate(bare));
            let ratio = bare.map_or_else(|| "–".to_owned(), |bare| format!("{:.2}", rate(samples) / bare));
            let mut rates: Vec<f64> = samples.iter().map(|sample| sample.requests_per_second).collect();
            rates.sort_by(f64::total_cmp);
            let published = median(samples.iter().filter_map(|sample| sample.published_meanwhile));
            let published = if published.is_nan() {
                "–".to_owned()
            } else {
                format!("{:.0} %", published * 100.0)
            };
            writeln!(
                f,
                "| {connections} | {kind} | {:.0} | {ratio} | {:.0}–{:.0} | {:.1} | {:.1} | {published} |",
                rate(samples),
                rates.first().copied().unwrap_or(f64::NAN),
                rates.last().copied().unwrap_or(f64::NAN),
                median(samples.iter().map(|sample| sample.p99_ms)),
                median(samples.iter().map(|sample| sample.cpu_us_per_event)),
            )?;
        }
        if self.fixed.is_empty() {
            return self.write_drains(f);
        }
        writeln!(
            f,
            "\n| server, fixed rate | requests/s | p50 ms | p99 ms | max ms | CPU µs/event |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for (kind, samples) in &self.fixed {
            let of = |value: fn(&Fixed) -> f64| median(samples.iter().map(value));
            writeln!(
                f,
                "| {kind} | {:.0} | {:.2} | {:.2} | {:.1} | {:.1} |",
                of(|fixed| fixed.vegeta.rate),
                of(|fixed| fixed.vegeta.p50_ms),
                of(|fixed| fixed.vegeta.p99_ms),
                of(|fixed| fixed.vegeta.max_ms),
                of(|fixed| fixed.cpu_us_per_event),
            )?;
        }
        self.write_drains(f)
    }
}
