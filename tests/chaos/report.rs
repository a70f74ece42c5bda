//! The matrix of what was lost.

use std::{fs, path::Path, time::Duration};

use forebay_test_support::ROOT;

use super::{
    scenario::{Group, Scenario},
    simulators,
    subject::SubjectKind,
};

/// What a fault came to.
pub struct MatrixRow {
    pub fault: &'static str,
    pub broker: &'static str,
    pub subject: SubjectKind,
    pub due: usize,
    pub answered: usize,
    /// Events at the broker, each once.
    pub arrived: usize,
    pub dead_letters: usize,
    pub lost: usize,
    pub gone: usize,
    pub twice: usize,
    pub in_order: bool,
    pub back: Duration,
    pub cure: &'static str,
    pub saw: String,
    /// What Forebay has promised, and not kept.
    pub wrong: Vec<String>,
}

impl MatrixRow {
    pub fn line(&self) -> String {
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | **{}** | {} | {} | {} | {:.0} s | {} | {} |",
            self.fault,
            self.broker,
            self.subject.name(),
            self.due,
            self.answered,
            self.arrived,
            self.dead_letters,
            self.lost,
            self.gone,
            self.twice,
            if self.in_order { "kept" } else { "broken" },
            self.back.as_secs_f64(),
            if self.cure.is_empty() { "yes" } else { self.cure },
            self.saw,
        )
    }
}

const PAGE: &str = "docs/loss-matrix.md";

/// Puts rows of a group onto the page, in place of what it had of the same faults; the others stay. `all` is everything
/// that is tried in the group, in its order.
pub fn write(group: Group, rows: &[MatrixRow], all: &[Scenario]) {
    let before = section(&read_page(), &heading(group)).unwrap_or_default();
    let new: Vec<String> = rows.iter().map(MatrixRow::line).collect();
    let lines = all.iter().flat_map(|scenario| {
        let begins = format!("| {} | {} | ", scenario.name, scenario.broker.kind.name());
        let of = |lines: &[String]| -> Vec<String> {
            lines.iter().filter(|line| line.starts_with(&begins)).cloned().collect()
        };
        let old: Vec<String> = before.lines().map(str::to_owned).collect();
        match of(&new) {
            found if found.is_empty() => of(&old),
            found => found,
        }
    });
    let lines: String = lines.map(|line| line + "\n").collect();
    write_section(&heading(group), format!("{}{COLUMNS}{lines}\n", heading(group)));
}

/// Runs the simulators and puts what they did onto the page. Whether they found nothing.
pub fn write_simulators() -> bool {
    match simulators::run(&read_page()) {
        Some(text) => write_section(simulators::HEADING, text),
        None => return false,
    }
    true
}

fn read_page() -> String {
    fs::read_to_string(Path::new(ROOT).join(PAGE)).unwrap_or_default()
}

/// Puts a section onto the page, in place of the one with this heading.
fn write_section(heading: &str, text: String) {
    let before = read_page();
    let all = Group::ALL.map(self::heading);
    let headings = all.iter().map(String::as_str).chain([simulators::HEADING]);
    let sections = headings.filter_map(|one| match one == heading {
        true => Some(text.clone()),
        false => section(&before, one),
    });
    let page: String = std::iter::once(HEAD.to_owned()).chain(sections).collect();
    fs::write(Path::new(ROOT).join(PAGE), page.trim_end().to_owned() + "\n").unwrap();
}

fn heading(group: Group) -> String {
    format!("## {}\n\n", group.title())
}

/// What the page has below a heading, and that.
fn section(page: &str, heading: &str) -> Option<String> {
    let from = page.find(heading)?;
    let rest = &page[from..];
    let end = rest[2..].find("\n## ").map_or(rest.len(), |end| end + 3);
    Some(rest[..end].trim_end().to_owned() + "\n\n")
}

const COLUMNS: &str = "\
| fault | broker | what | due | 200 | arrived | dead letters | lost | gone | twice | order | back after | by itself | the sender saw |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
";

const HEAD: &str = "\
# What is lost when things fail

Made by `tests/chaos/run.sh --full`, group by group, with the release binary, real brokers, 200 webhooks a second on
connections of their own (more where a row says so), and a ledger of every answer; the method is at the top of
`tests/chaos/main.rs`.

- *Lost*: answered 200, and neither at the broker nor a dead letter. **0 is Forebay's promise wherever the disk
  survives.** Where the disk itself has destroyed a record that waits, that record is lost, and no other: it is counted
  (`forebay_spool_damage_total`), named in the log, and an alert tells of it.
- *Due*: what was to be sent in that time. *Gone*: due, and neither answered 200 nor at the broker: the sender does not
  send again, so that each second without a process costs what is due in it. That is what replicas and a socket that is
  handed over are for ([kubernetes](kubernetes.md), [systemd](systemd.md)).
- *Twice*: messages under the same id as one before, as [at least once](delivery-guarantees.md#at-least-once) allows.
- *Order*: of each stream's events in its partition or queue, as they are first seen there, from each replica.
- *Back after*: from the end of the load, two seconds after the fault has passed, until all was there. *By itself*:
  `yes`, or what somebody did.
- *Without a disk*: the bridge of `tests/chaos/naive.rs`, sixty lines that answer once Kafka has the event. It is tried
  beside Forebay, on the same broker, in the same minute. Other products are not in it: no package of Vector is to be
  had where this is run, and Redpanda Connect is under a licence that keeps it out.

";
