//! Raw bytes at the front: requests in every form that HTTP allows, and in forms that it does not, several to a
//! connection. `tests/it/raw_http/README.md` says how.

mod requests;

use std::{
    collections::{HashMap, HashSet},
    env,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use self::requests::{Case, Expected};
use crate::support::{
    forebay::Setup,
    kafka::{self, create_topic},
    rng::Rng,
    topic,
};

const SEED: u64 = 1;
/// Of the suite's run.
const CASES: usize = 1600;
/// Of one process and topic, in a run of a given time.
const LIFE_CASES: usize = 100_000;
const CLIENTS: usize = 8;
/// Cases that were answered wrongly once, as seed and number: they go first, each time.
const KEPT: &[(u64, u64)] = &[];
/// Longer than whatever the server waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of some cases.
#[derive(Default)]
struct Tally {
    cases: u64,
    requests: usize,
    answers: HashMap<u16, usize>,
    /// The marks of requests that had to be taken, and of those that must never be.
    taken: HashSet<String>,
    never: HashSet<String>,
    wrong: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.requests += other.requests;
        for (status, count) in other.answers {
            *self.answers.entry(status).or_default() += count;
        }
        self.taken.extend(other.taken);
        self.never.extend(other.never);
        self.wrong.extend(other.wrong);
    }

    /// Sends a case and holds the answers against what it is.
    fn try_case(&mut self, to: SocketAddr, seed: u64, number: u64) {
        let case = requests::case(&mut Rng::new(seed, number), seed, number);
        let mut wrong = |what: String| {
            let bytes = String::from_utf8_lossy(&case.bytes).escape_debug().to_string();
            let what = format!(
                "seed {seed}, case {number}: {what}\n{}",
                &bytes[..bytes.len().min(4000)]
            );
            self.wrong.push(what);
        };
        match exchange(to, &case) {
            Ok(statuses) => {
                // What precedes the first request that is not in order is answered whatever follows.
                let honest = statuses
                    .iter()
                    .take(case.honest)
                    .filter(|status| **status == 200)
                    .count();
                if honest != case.honest {
                    wrong(format!("{} requests are in order, answered: {statuses:?}", case.honest));
                }
                if statuses.len() > case.expected.len() && !case.is_damaged {
                    wrong(format!("{} requests, answered: {statuses:?}", case.expected.len()));
                }
                if statuses.contains(&500) {
                    wrong(format!("answered: {statuses:?}"));
                }
                for status in statuses {
                    *self.answers.entry(status).or_default() += 1;
                }
            }
            Err(error) => wrong(error),
        }
        self.cases += 1;
        self.requests += case.expected.len();
        for (at, expected) in case.expected.into_iter().enumerate() {
            match expected {
                Expected::Taken(mark) if at < case.honest => drop(self.taken.insert(mark)),
                Expected::Taken(_) | Expected::Perhaps => {}
                Expected::Never(mark) => drop(self.never.insert(mark)),
            }
        }
    }
}

/// Sends a case's bytes in its pieces, and returns the statuses of the answers.
fn exchange(to: SocketAddr, case: &Case) -> Result<Vec<u16>, String> {
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let mut stream = TcpStream::connect(to).map_err(|error| failed("connect", error))?;
    stream.set_nodelay(true).map_err(|error| failed("nodelay", error))?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .map_err(|error| failed("timeout", error))?;
    for piece in case.pieces() {
        // What was refused may not be read to its end.
        if stream.write_all(piece).is_err() {
            break;
        }
        if case.pauses {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let mut answers = Answers::default();
    let mut half_closed = false;
    loop {
        let statuses = answers.statuses()?;
        if !half_closed && statuses.len() >= case.honest {
            // Whatever is unfinished will not come any more.
            let _ = stream.shutdown(Shutdown::Write);
            half_closed = true;
        }
        let mut buffer = [0; 16 << 10];
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(statuses),
            Ok(read) => answers.bytes.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                return Ok(statuses);
            }
            Err(error) => return Err(format!("after {statuses:?}: {error}")),
        }
    }
}

/// What a connection has answered.
#[derive(Default)]
struct Answers {
    bytes: Vec<u8>,
}

impl Answers {
    /// The statuses of the answers that are whole, without those that are for the time being. `Err`: it is no HTTP.
    fn statuses(&self) -> Result<Vec<u16>, String> {
        let mut statuses = Vec::new();
        let mut rest = &self.bytes[..];
        while !rest.is_empty() {
            let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") else {
                break;
            };
            let head = std::str::from_utf8(&rest[..end]).map_err(|_| "an answer that is no text".to_owned())?;
            let status = head
                .strip_prefix("HTTP/1.")
                .and_then(|line| line.get(2..5)?.parse().ok());
            let status: u16 = status.ok_or_else(|| format!("no status line: {head:?}"))?;
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse::<usize>().ok())?
            });
            if length.is_none() && !(100..200).contains(&status) && status != 204 {
                return Err(format!("an answer without a length: {head:?}"));
            }
            let Some(after) = rest.get(end + 4 + length.unwrap_or(0)..) else {
                break;
            };
            rest = after;
            if status >= 200 {
                statuses.push(status);
            }
        }
        Ok(statuses)
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "what was tried is said")]
fn whatever_bytes_come_no_authentic_request_is_lost_and_no_other_is_taken() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("FOREBAY_FUZZ_SEED").unwrap_or(SEED);
    let lasts = number("FOREBAY_FUZZ_SECONDS").map(Duration::from_secs);
    let began = Instant::now();
    let is_over = || lasts.is_none_or(|lasts| began.elapsed() >= lasts);
    let (mut all, mut next) = (Tally::default(), 0);
    loop {
        let mut numbers: Vec<(u64, u64)> = KEPT.to_vec();
        let count = if lasts.is_some() { LIFE_CASES } else { CASES } as u64;
        numbers.extend((next..next + count).map(|number| (seed, number)));
        next += count;
        let tally = one_life(&numbers, is_over);
        all.add(tally);
        if is_over() {
            break;
        }
    }
    eprintln!(
        "seed {seed}: {} cases with {} requests in {:?}, answered {:?}",
        all.cases,
        all.requests,
        began.elapsed(),
        all.answers
    );
}

/// Tries cases with a process and a topic of their own, and judges what came of it.
fn one_life(cases: &[(u64, u64)], is_over: impl Fn() -> bool + Sync) -> Tally {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let topic = runtime.block_on(create_topic(&kafka::shared(), "raw-http", 4, &[]));
    let setup = Setup::new(&kafka::shared(), &topic);
    let mut forebay = setup.start();
    let to = setup.public;
    let tried = |client: usize| {
        let mut tally = Tally::default();
        for (at, (seed, number)) in cases.iter().enumerate().filter(|(at, _)| at % CLIENTS == client) {
            if !tally.wrong.is_empty() || (at >= CASES && is_over()) {
                break;
            }
            tally.try_case(to, *seed, *number);
        }
        tally
    };
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || tried(client))).collect();
        clients.into_iter().for_each(|client| tally.add(client.join().unwrap()));
    });
    let wrong = tally.wrong.len();
    assert_eq!(wrong, 0, "of these\n{}", tally.wrong[0]);

    forebay.wait_until_drained(Duration::from_secs(120));
    let mut published: HashMap<String, usize> = HashMap::new();
    for record in topic::read_to_end(&kafka::shared(), &topic) {
        let body = String::from_utf8(record.value).unwrap();
        *published.entry(requests::mark_in(&body)).or_default() += 1;
    }
    let mut lost = tally.taken.iter().filter(|mark| !published.contains_key(*mark));
    assert_eq!(lost.next(), None, "lost");
    let mut smuggled = tally.never.iter().filter(|mark| published.contains_key(*mark));
    assert_eq!(smuggled.next(), None, "smuggled");
    let twice = published.iter().find(|(_, count)| **count > 1);
    assert_eq!(twice, None);
    assert!(published.len() >= tally.answers[&200], "each 200 is an event");
    assert!(tally.taken.len() as u64 > tally.cases / 2 && !tally.never.is_empty());
    let log = forebay.log();
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(forebay.terminate(Duration::from_secs(60)).code(), Some(0));
    tally.taken.clear();
    tally.never.clear();
    tally
}
