//! The matrix of what was lost.

use std::{fs, path::Path, time::Duration};

use forebay_test_support::ROOT;

use super::{scenario::Group, subject::SubjectKind};

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

/// Puts the rows of a group onto the page, in place of those that it had.
pub fn write(group: Group, rows: &[MatrixRow]) {
    let path = Path::new(ROOT).join(PAGE);
    let before = fs::read_to_string(&path).unwrap_or_default();
    let sections = Group::ALL.iter().filter_map(|one| match *one == group {
        true => Some(format!(
            "{}{COLUMNS}{}\n",
            heading(group),
            rows.iter().map(|row| row.line() + "\n").collect::<String>()
        )),
        false => section(&before, *one),
    });
    let page: String = std::iter::once(HEAD.to_owned()).chain(sections).collect();
    fs::write(path, page.trim_end().to_owned() + "\n").unwrap();
}

fn heading(group: Group) -> String {
    format!("## {}\n\n", group.title())
}

/// What the page has of a group.
fn section(page: &str, group: Group) -> Option<String> {
    let from = page.find(&heading(group))?;
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

- *Lost*: answered 200, and neither at the broker nor a dead letter. **0 is Forebay's promise wherever the disk survives.**
- *Due*: what was to be sent in that time. *Gone*: due, and neither answered 200 nor at the broker: the sender does not send
  again, so that each second without a process costs what is due in it. That is what replicas and a socket that is handed
  over are for ([kubernetes](kubernetes.md), [systemd](systemd.md)).
- *Twice*: messages under the same id as one before, as [at least once](delivery-guarantees.md#at-least-once) allows.
- *Order*: of each stream's events in its partition or queue, as they are first seen there, from each replica.
- *Back after*: from the end of the load, two seconds after the fault has passed, until all was there. *By itself*: `yes`, or what somebody did.
- *Without a disk*: the bridge of `tests/chaos/naive.rs`, sixty lines that answer once Kafka has the event. It is tried
  beside Forebay, on the same broker, in the same minute. Other products are not in it: no package of Vector is to be had
  where this is run, and Redpanda Connect is under a licence that keeps it out.

";
