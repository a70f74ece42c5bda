//! The matrix of what was lost.

use std::{fs, path::Path, time::Duration};

use forebay_test_support::ROOT;

use super::subject::SubjectKind;

/// What a fault came to.
pub struct MatrixRow {
    pub fault: &'static str,
    pub subject: SubjectKind,
    pub due: usize,
    pub answered: usize,
    /// Events in the topic, each once.
    pub arrived: usize,
    pub lost: usize,
    pub gone: usize,
    pub twice: usize,
    pub in_order: bool,
    pub back: Duration,
    pub saw: String,
}

impl MatrixRow {
    /// Whether Forebay has broken its promise.
    pub fn is_wrong(&self) -> bool {
        self.subject == SubjectKind::Forebay && (self.lost > 0 || !self.in_order)
    }

    pub fn line(&self) -> String {
        format!(
            "| {} | {} | {} | {} | {} | **{}** | {} | {} | {} | {:.0} s | {} |",
            self.fault,
            self.subject.name(),
            self.due,
            self.answered,
            self.arrived,
            self.lost,
            self.gone,
            self.twice,
            if self.in_order { "kept" } else { "broken" },
            self.back.as_secs_f64(),
            self.saw,
        )
    }
}

/// The page that the matrix stands on.
pub fn write(rows: &[MatrixRow]) {
    let lines: Vec<String> = rows.iter().map(MatrixRow::line).collect();
    let page = format!("{HEAD}{}\n", lines.join("\n"));
    fs::write(Path::new(ROOT).join("docs/loss-matrix.md"), page).unwrap();
}

const HEAD: &str = "\
# What is lost when things fail

Made by `tests/chaos/run.sh --full`, with the binary, a real Kafka, 200 webhooks a second on connections of their own,
and a ledger of every answer; the method is at the top of `tests/chaos/main.rs`. *Lost*: answered 200, and not in the
topic: 0 is Forebay's promise. *Due*: what was to be sent in that time. *Gone*: due, and neither answered 200 nor in
the topic; the sender does not send again, so that each second without a process costs what is due in it: that is what
replicas and a socket that is handed over are for ([kubernetes](kubernetes.md), [systemd](systemd.md)). *Twice*: under
the same id, as [at least once](delivery-guarantees.md#at-least-once) allows. *Order*: of each stream's events, as
they are first seen. *Back after*: from the end of the fault until all was there. The bridge without a disk is
`tests/chaos/naive.rs`: sixty lines that answer once Kafka has the event.

| fault | what | due | 200 | arrived | lost | gone | twice | order | back after | the sender saw |
|---|---|---|---|---|---|---|---|---|---|---|
";
