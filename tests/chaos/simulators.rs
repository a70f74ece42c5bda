//! The simulators of the log and of the way out: random work and faults on a fake disk, seed after seed.
//!
//! Each run goes on where the page says that the last one ended, and adds itself to it.

use std::process::Command;

use forebay_test_support::ROOT;

/// A simulator, and what is known of it.
struct Simulator {
    name: &'static str,
    /// Of `cargo test`.
    arguments: &'static [&'static str],
    seeds: u64,
}

/// What was tried of one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct SimulatorTotals {
    seeds: u64,
    power_lost: u64,
    killed: u64,
}

const SIMULATORS: [Simulator; 2] = [
    Simulator {
        name: "log",
        arguments: &["-p", "forebay-log", "--lib", "tests::sim::whatever"],
        seeds: 20_000,
    },
    Simulator {
        name: "way out",
        arguments: &["-p", "forebay", "--lib", "job::tests::sim::whatever"],
        seeds: 10_000,
    },
];

/// What stands above the section's rows.
pub const HEADING: &str = "## The simulators\n\n";

/// Runs the seeds that come next, and returns the section with them added. `None`: one of them failed, and was told.
pub fn run(page: &str) -> Option<String> {
    let mut text = format!(
        "{HEADING}Seeds that were run so far, all without a finding in the end, and the moments at which they cut the \
         power or\nkilled the process ([contributing](../CONTRIBUTING.md) says what they are).\n\n\
         | simulator of the | seeds | power cuts | kills |\n|---|---|---|---|\n"
    );
    for simulator in &SIMULATORS {
        let before = totals(page, simulator.name);
        let added = simulator.run_from(before.seeds)?;
        text += &format!(
            "| {} | {} | {} | {} |\n",
            simulator.name,
            before.seeds + added.seeds,
            before.power_lost + added.power_lost,
            before.killed + added.killed
        );
    }
    Some(text + "\n")
}

impl Simulator {
    #[allow(clippy::print_stdout, reason = "it is what the program is for")]
    fn run_from(&self, from: u64) -> Option<SimulatorTotals> {
        println!("simulator of the {}: {} seeds from {from} on …", self.name, self.seeds);
        let output = Command::new(env!("CARGO"))
            .current_dir(ROOT)
            .args(["test", "--release", "--locked"])
            .args(self.arguments)
            .args(["--", "--nocapture"])
            .env("FOREBAY_SIM_FROM", from.to_string())
            .env("FOREBAY_SIM_SEEDS", self.seeds.to_string())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !told.contains("1 passed") {
            println!("{told}{}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(SimulatorTotals {
            seeds: self.seeds,
            power_lost: count(&told, "power lost"),
            killed: count(&told, "process killed"),
        })
    }
}

/// How often something happened, as a simulator tells it.
fn count(told: &str, what: &str) -> u64 {
    let number = |line: &str| {
        line.trim()
            .strip_prefix(&format!("\"{what}\": "))?
            .trim_end_matches(',')
            .parse()
            .ok()
    };
    told.lines().find_map(number).unwrap_or_default()
}

/// What the page has of a simulator.
fn totals(page: &str, name: &str) -> SimulatorTotals {
    let rows = page.find(HEADING).map_or("", |at| &page[at..]);
    let row = rows.lines().find_map(|line| line.strip_prefix(&format!("| {name} | ")));
    let numbers: Vec<u64> = row
        .into_iter()
        .flat_map(|row| row.split(" | "))
        .filter_map(|cell| cell.trim_end_matches(" |").parse().ok())
        .collect();
    match numbers[..] {
        [seeds, power_lost, killed] => SimulatorTotals {
            seeds,
            power_lost,
            killed,
        },
        _ => SimulatorTotals::default(),
    }
}
