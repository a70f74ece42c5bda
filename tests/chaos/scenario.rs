//! What is tried, and how it is judged.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use forebay_test_support::{
    disk::{Mount, make_image, scratch},
    forebay::Setup,
    kafka, rabbitmq,
    rng::Rng,
    sender::{Load, Outcome, Sender},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{
    broker::{Arrived, Broker, BrokerKind, BrokerPlan},
    report::MatrixRow,
    subject::{Subject, SubjectKind},
};

const RATE: usize = 200;
/// Before the fault, and after it.
pub const AROUND: Duration = Duration::from_secs(2);
const ARRIVED: Duration = Duration::from_secs(120);
/// What was on its way to the broker is there.
pub const LANDED: Duration = Duration::from_secs(1);
/// Nothing came for so long: nothing comes any more.
const QUIET: Duration = Duration::from_secs(3);

/// How long faults last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Quick,
    Full,
}

impl Scale {
    pub fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }

    /// How long a broker is away that will be missed.
    pub fn outage(self) -> Duration {
        self.pick(Duration::from_secs(6), Duration::from_secs(30))
    }
}

/// Where a scenario stands in the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Process,
    Kafka,
    RabbitMq,
    Disk,
    Front,
}

impl Group {
    pub const ALL: [Group; 5] = [Self::Process, Self::Kafka, Self::RabbitMq, Self::Disk, Self::Front];

    /// Of the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Kafka => "kafka",
            Self::RabbitMq => "rabbitmq",
            Self::Disk => "disk",
            Self::Front => "front",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Process => "The process",
            Self::Kafka => "Kafka",
            Self::RabbitMq => "RabbitMQ",
            Self::Disk => "The disk",
            Self::Front => "In front",
        }
    }
}

/// What may become a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowedLetters {
    None,
    /// The broker takes no large messages: those, and nothing else.
    Large,
    /// The broker has no place for what comes in a moment of the fault.
    Some,
}

/// A disk that a spool is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskPlan {
    Plain,
    /// An ext4 of its own that writes nothing of itself, whose device is a file.
    Image,
    /// In memory, of that size.
    Memory(&'static str),
}

/// A disk that is there.
pub struct Disk {
    // Before the directory that it is in.
    mount: Option<Mount>,
    pub scratch: TempDir,
}

impl Disk {
    fn new(plan: DiskPlan) -> Self {
        let scratch = scratch();
        let at = scratch.path().join("disk");
        let mount = match plan {
            DiskPlan::Plain => None,
            DiskPlan::Image => {
                let image = scratch.path().join("image");
                make_image(&image, "256M", &["-b", "4096"]);
                Some(Mount::image(&image, &at, "commit=600,noinit_itable,errors=continue"))
            }
            DiskPlan::Memory(size) => Some(Mount::tmpfs(&at, size)),
        };
        Self { mount, scratch }
    }

    /// The file that is its device.
    pub fn image(&self) -> PathBuf {
        self.scratch.path().join("image")
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        match &self.mount {
            Some(mount) => mount.path().to_owned(),
            None => self.scratch.path().join("disk"),
        }
    }
}

/// A fault.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub group: Group,
    pub name: &'static str,
    /// It is tried in a quick run too.
    pub quick: bool,
    pub broker: BrokerPlan,
    pub subjects: &'static [SubjectKind],
    /// What Forebay's configuration has for it.
    pub configure: fn(Setup) -> Setup,
    /// Where its spool is.
    pub disk: DiskPlan,
    pub load: Load,
    /// What Forebay may answer but 200.
    pub allowed: &'static [u16],
    /// Forebay's process is away at times, so that requests get no answer.
    pub goes_away: bool,
    pub dead_letters: AllowedLetters,
    /// A stream may move to another partition, and keeps its order in each.
    pub streams_move: bool,
    /// What somebody has to do for it to be over; nothing where it recovers by itself.
    pub cure: &'static str,
    pub cause: fn(&mut Stage),
}

impl Scenario {
    const fn new(group: Group, kind: BrokerKind) -> Self {
        Self {
            group,
            name: "none",
            quick: false,
            broker: BrokerPlan {
                kind,
                nodes: 1,
                login: false,
            },
            subjects: &[SubjectKind::Forebay],
            configure: |setup| setup,
            disk: DiskPlan::Plain,
            load: Load {
                keeps: false,
                ..Load::new(4, RATE, 40)
            },
            allowed: &[],
            goes_away: false,
            dead_letters: AllowedLetters::None,
            streams_move: false,
            cure: "",
            cause: |_| sleep(AROUND),
        }
    }

    pub const KAFKA: Self = Self::new(Group::Kafka, BrokerKind::Kafka(kafka::Version::Newest));
    pub const RABBITMQ: Self = Self::new(Group::RabbitMq, BrokerKind::RabbitMq(rabbitmq::Version::V4));
}

/// What a fault is done to.
pub struct Stage<'a> {
    pub runtime: &'a Runtime,
    pub broker: Broker,
    pub subjects: Vec<Subject>,
    pub scale: Scale,
    pub rng: Rng,
    pub senders: Vec<Sender>,
    /// What the row says beside what the sender saw.
    pub note: String,
    /// Records that the fault itself has made unreadable: so many may be lost, and are told of.
    pub unreadable: usize,
    // After whoever is on it.
    pub disk: Disk,
    /// What the brokers held, by subject, before it was deleted there, or read.
    taken: Vec<Vec<Arrived>>,
}

impl Stage<'_> {
    /// The one Forebay, where there is no other.
    pub fn forebay(&mut self) -> &mut Subject {
        &mut self.subjects[0]
    }

    /// Some moment between nothing and `most`.
    pub fn sleep_up_to(&mut self, most: Duration) {
        let micros = usize::try_from(most.as_micros()).unwrap();
        sleep(Duration::from_micros(self.rng.below(micros) as u64));
    }

    /// Keeps what the brokers hold for the oracle, since it is about to go.
    pub fn take_what_there_is(&mut self) {
        for index in 0..self.subjects.len() {
            let topic = self.subjects[index].kind.topic();
            let read = self.broker.read(self.runtime, topic);
            self.taken[index].extend(read);
        }
    }

    /// The feeds that are at the broker for the first subject.
    pub fn feeds_at_the_broker(&mut self) -> HashSet<String> {
        self.arrived(0).into_iter().map(|one| one.feed).collect()
    }

    /// Everything that ever was at the broker.
    fn arrived(&mut self, index: usize) -> Vec<Arrived> {
        let topic = self.subjects[index].kind.topic();
        let read = self.broker.read(self.runtime, topic);
        let taken = &mut self.taken[index];
        match self.broker.keeps_what_was_read() {
            true => taken.iter().cloned().chain(read).collect(),
            false => {
                taken.extend(read);
                taken.clone()
            }
        }
    }
}

/// Runs one scenario.
pub fn run(scenario: &Scenario, runtime: &Runtime, scale: Scale, seed: u64) -> Vec<MatrixRow> {
    let topics: Vec<&str> = scenario.subjects.iter().map(|kind| kind.topic()).collect();
    let broker = Broker::start(scenario.broker, runtime, &topics);
    let disk = Disk::new(scenario.disk);
    let start = |kind: &SubjectKind| Subject::start(*kind, &broker, runtime, &disk.path(), scenario.configure);
    let subjects: Vec<Subject> = scenario.subjects.iter().map(start).collect();
    let mut stage = Stage {
        runtime,
        taken: vec![Vec::new(); subjects.len()],
        broker,
        subjects,
        scale,
        rng: Rng::new(seed, 0),
        senders: Vec::new(),
        note: String::new(),
        unreadable: 0,
        disk,
    };
    let began = Instant::now();
    let begin = |subject: &Subject| Sender::begin(subject.address(), scenario.load);
    stage.senders = stage.subjects.iter().map(begin).collect();
    sleep(AROUND);
    for sender in &stage.senders {
        let before = sender.so_far();
        let is_well = before.count(200) > 0 && before.unanswered == 0;
        assert!(
            is_well,
            "it is not well before: {:?}, {}",
            before.answers, before.unanswered
        );
    }
    let caused = Instant::now();
    (scenario.cause)(&mut stage);
    let passed = Instant::now();
    sleep(AROUND);
    let due = (began.elapsed().as_secs_f64() * scenario.load.rate as f64) as usize;
    let outcomes: Vec<Outcome> = stage.senders.drain(..).map(Sender::stop).collect();
    let readings = all_that_arrives(&mut stage, &outcomes);
    let (note, unreadable) = (std::mem::take(&mut stage.note), stage.unreadable);
    let subjects = stage.subjects.iter_mut();
    let judge = |((outcome, reading), subject): ((&Outcome, Reading), &mut Subject)| {
        let trial = Trial {
            due,
            outcome,
            reading,
            dead_letters: subject.dead_letters(),
            fault: caused..passed,
            note: &note,
            unreadable,
        };
        trial.judge(scenario, subject.kind)
    };
    outcomes.iter().zip(readings).zip(subjects).map(judge).collect()
}

/// What a subject's topic had in the end.
#[derive(Default)]
struct Reading {
    arrived: Vec<Arrived>,
    /// When the last of it was seen, from the end of the load.
    back: Duration,
    /// All that was answered 200 is there.
    is_whole: bool,
}

/// Reads until all that was answered 200 is there, and nothing comes any more, or the time is over.
fn all_that_arrives(stage: &mut Stage, outcomes: &[Outcome]) -> Vec<Reading> {
    let began = Instant::now();
    let mut readings: Vec<Reading> = outcomes.iter().map(|_| Reading::default()).collect();
    while began.elapsed() < ARRIVED {
        for (index, reading) in readings.iter_mut().enumerate() {
            // What is read of a queue leaves it. A reader that came too early would give back what it got too much of,
            // at the end of the queue.
            if !stage.broker.keeps_what_was_read() && stage.subjects[index].backlog() > 0 {
                continue;
            }
            let now = stage.arrived(index);
            if now.len() != reading.arrived.len() {
                reading.back = began.elapsed();
            }
            let elsewhere = stage.subjects[index].dead_letters() + stage.unreadable;
            reading.is_whole = missing(&outcomes[index], &now).count() <= elsewhere;
            reading.arrived = now;
        }
        let over = |reading: &Reading| reading.is_whole && began.elapsed() > reading.back + QUIET;
        if readings.iter().all(over) {
            break;
        }
        sleep(Duration::from_millis(300));
    }
    readings
}

/// The feeds that were answered 200, and are not there.
fn missing<'a>(outcome: &'a Outcome, arrived: &'a [Arrived]) -> impl Iterator<Item = &'a String> {
    let there: HashSet<&String> = arrived.iter().map(|one| &one.feed).collect();
    outcome.acknowledged.iter().filter(move |feed| !there.contains(feed))
}

/// What came of one subject.
struct Trial<'a> {
    due: usize,
    outcome: &'a Outcome,
    reading: Reading,
    dead_letters: usize,
    /// From its beginning to its end.
    fault: Range<Instant>,
    note: &'a str,
    unreadable: usize,
}

impl Trial<'_> {
    fn judge(&self, scenario: &Scenario, kind: SubjectKind) -> MatrixRow {
        let mut seen = HashSet::new();
        let mut newest = HashMap::new();
        let mut places = HashMap::new();
        let mut in_order = true;
        for one in &self.reading.arrived {
            if !seen.insert(one.feed.as_str()) {
                continue;
            }
            let place = *places.entry(&one.stream).or_insert(&one.place);
            in_order &= scenario.streams_move || *place == one.place;
            // A sender's feeds of a stream have numbers that rise.
            let before = newest.insert((&one.place, &one.replica, &one.stream), &one.feed);
            in_order &= before.is_none_or(|before| *before < one.feed);
        }
        let outcome = self.outcome;
        let sent = outcome.answers.values().sum::<usize>() + outcome.unanswered;
        let due = self.due.max(sent);
        let missing: Vec<&String> = missing(outcome, &self.reading.arrived).collect();
        let may_be = |feed: &str| match scenario.dead_letters {
            AllowedLetters::None => false,
            AllowedLetters::Large => outcome.large.contains(feed),
            AllowedLetters::Some => true,
        };
        let refused = missing.iter().filter(|feed| may_be(feed));
        let refused = refused.count().min(self.dead_letters);
        let lost = missing.len() - refused;
        MatrixRow {
            fault: scenario.name,
            broker: scenario.broker.kind.name(),
            subject: kind,
            due,
            answered: outcome.count(200),
            arrived: seen.len(),
            dead_letters: self.dead_letters,
            lost,
            gone: due.saturating_sub(seen.len() + missing.len()),
            twice: self.reading.arrived.len() - seen.len(),
            in_order,
            back: self.reading.back,
            cure: scenario.cure,
            saw: self.saw(scenario),
            wrong: self.wrong(scenario, kind, lost, in_order),
        }
    }

    /// What Forebay has promised, and not kept.
    fn wrong(&self, scenario: &Scenario, kind: SubjectKind, lost: usize, in_order: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        if kind == SubjectKind::Naive {
            return wrong;
        }
        if lost > self.unreadable {
            wrong.push(format!("{lost} lost"));
        }
        if !in_order {
            wrong.push("an order is broken".into());
        }
        if !scenario.goes_away && self.outcome.unanswered > 0 {
            wrong.push(format!("{} got no answer", self.outcome.unanswered));
        }
        let allowed = |code: &u16| *code == 200 || scenario.allowed.contains(code);
        if !self.outcome.answers.keys().all(allowed) {
            wrong.push(format!("answers: {:?}", self.outcome.answers));
        }
        let wanted = match scenario.dead_letters {
            AllowedLetters::None => self.dead_letters == 0,
            AllowedLetters::Large => self.dead_letters > 0,
            AllowedLetters::Some => true,
        };
        if !wanted {
            wrong.push(format!("{} dead letters", self.dead_letters));
        }
        wrong
    }

    /// What the sender saw but 200.
    fn saw(&self, scenario: &Scenario) -> String {
        let outcome = self.outcome;
        let codes = outcome.answers.iter().filter(|(code, _)| **code != 200);
        let mut saw: Vec<String> = codes.map(|(code, count)| format!("{count} × {code}")).collect();
        if outcome.unanswered > 0 {
            saw.push(format!("{} without an answer", outcome.unanswered));
        }
        if !self.note.is_empty() {
            saw.push(self.note.to_owned());
        }
        if scenario.group == Group::Front {
            let before = p99(outcome, |at| at < self.fault.start);
            let during = p99(outcome, |at| self.fault.contains(&at));
            saw.push(format!("p99 {before:.1} ms before, {during:.1} ms during it"));
        }
        saw.join(", ")
    }
}

/// Milliseconds within which 99 of 100 answers of 200 came, of those that came then.
fn p99(outcome: &Outcome, then: impl Fn(Instant) -> bool) -> f64 {
    let mut took: Vec<Duration> = outcome
        .took
        .iter()
        .filter(|(at, _)| then(*at))
        .map(|(_, took)| *took)
        .collect();
    took.sort();
    took.get(took.len() * 99 / 100)
        .copied()
        .unwrap_or_default()
        .as_secs_f64()
        * 1000.0
}
