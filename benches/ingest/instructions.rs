//! How many instructions an event costs: a number that another load of the machine hardly changes.
//!
//! Two processes, one of which takes in more than the other; what the start and the end cost is in both. Each counts
//! all of its threads, from the request to Kafka's confirmation, without the kernel.

use std::{ffi::OsStr, fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{
    Bench,
    servers::{Kind, Target},
};

const CONNECTIONS: usize = 64;
const FEW_SECONDS: u64 = 3;
const MANY_SECONDS: u64 = 12;

/// What one process has done.
struct Counted {
    instructions: u64,
    events: f64,
}

impl Bench<'_> {
    /// Instructions per event of a Forebay.
    pub fn instructions(&self, kind: Kind, round: usize) -> Result<f64> {
        let few = self.counted(kind, &format!("{kind}-few-{round}"), FEW_SECONDS)?;
        let many = self.counted(kind, &format!("{kind}-many-{round}"), MANY_SECONDS)?;
        ensure!(many.events > few.events, "{kind}: it took in no more in a longer time");
        Ok((many.instructions as f64 - few.instructions as f64) / (many.events - few.events))
    }

    fn counted(&self, kind: Kind, name: &str, seconds: u64) -> Result<Counted> {
        let topic = self.topic(name);
        let target = Target {
            brokers: &self.brokers,
            topic: &topic,
        };
        let outputs = self.dir()?;
        let output = outputs.path().join("callgrind");
        let out_file = format!("--callgrind-out-file={}", output.display());
        let callgrind = ["valgrind", "--tool=callgrind", &out_file].map(OsStr::new);
        let server = self.launch(kind, &callgrind, target, self.dir()?)?;
        self.load.wrk(server.url(), CONNECTIONS, seconds)?;
        server.drained()?;
        let events = server.usage()?.published.context("a Forebay has metrics")?;
        server.stop()?;
        Ok(Counted {
            instructions: total(&output)?,
            events,
        })
    }
}

/// What callgrind has counted.
fn total(output: &Path) -> Result<u64> {
    let text = fs::read_to_string(output).context("is valgrind there? (Debian: valgrind)")?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.context("callgrind wrote no total")?;
    Ok(total.trim().parse()?)
}
