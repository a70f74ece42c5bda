//! Sends signed webhooks at a steady rate and remembers which were acknowledged.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit, Mac};

use super::forebay::{PATH, SECRET};

/// What became of a run.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// The feed ids of the webhooks that were answered 200.
    pub acknowledged: HashSet<String>,
    pub answers: BTreeMap<u16, usize>,
    /// Requests that got no answer: refused, reset, timed out.
    pub unanswered: usize,
    /// Answers of 503 that did not say when to come again.
    pub without_retry_after: usize,
    /// How long the slowest answer took.
    pub slowest: Duration,
    /// Of each answer of 200: when it came, and how long after its request was due.
    pub took: Vec<(Instant, Duration)>,
    /// The feed ids of the large ones among those that were answered 200.
    pub large: HashSet<String>,
}

impl Outcome {
    pub fn count(&self, code: u16) -> usize {
        self.answers.get(&code).copied().unwrap_or(0)
    }

    fn add(&mut self, other: &Self) {
        self.acknowledged.extend(other.acknowledged.iter().cloned());
        self.unanswered += other.unanswered;
        self.without_retry_after += other.without_retry_after;
        self.slowest = self.slowest.max(other.slowest);
        self.took.extend_from_slice(&other.took);
        self.large.extend(other.large.iter().cloned());
        for (code, count) in &other.answers {
            *self.answers.entry(*code).or_default() += count;
        }
    }
}

/// What a [`Sender`] sends.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub path: &'static str,
    /// Threads, each with a connection, that share the rate and the streams.
    pub connections: usize,
    /// A second.
    pub rate: usize,
    pub streams: usize,
    /// Connections are kept for the next request.
    pub keeps: bool,
    /// Each so-many-th webhook of a connection has so many bytes more.
    pub large: Option<(usize, usize)>,
}

impl Load {
    pub const fn new(connections: usize, rate: usize, streams: usize) -> Self {
        Self {
            path: PATH,
            connections,
            rate,
            streams,
            keeps: true,
            large: None,
        }
    }
}

/// A running sender.
pub struct Sender {
    stop: Arc<AtomicBool>,
    threads: Vec<(JoinHandle<()>, Arc<Mutex<Outcome>>)>,
}

/// How long it may take until as many are acknowledged as are waited for.
const ACKNOWLEDGED: Duration = Duration::from_secs(300);

/// Part of every feed id, so that no two senders use the same.
static SENDERS: AtomicUsize = AtomicUsize::new(0);

/// `feeds started` of one stream, with a feed id that no other has.
pub fn webhook(stream: usize, feed_id: &str) -> String {
    format!(
        r#"{{"type":"feeds","event":"started","timestamp":1638463486489,"data":{{"feedId":"{feed_id}","accountId":"ZG6NWV","name":"stream-{stream}","streamId":"ZG6NWV/stream-{stream}","started":1638463486359,"active":true}}}}"#
    )
}

/// The same, with a field of so many bytes more.
fn large_webhook(stream: usize, feed_id: &str, bytes: usize) -> String {
    let mut body = webhook(stream, feed_id);
    body.truncate(body.len() - 2);
    body + r#","padding":""# + &"x".repeat(bytes) + r#""}}"#
}

/// The value of the signature header.
pub fn sign(body: &[u8]) -> String {
    sign_with(SECRET, body)
}

/// The same, with another secret, in base64.
pub fn sign_with(secret: &str, body: &[u8]) -> String {
    use base64::Engine;
    let secret = base64::engine::general_purpose::STANDARD
        .decode(secret)
        .expect("base64");
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(&secret).expect("any length");
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha1={hex}")
}

impl Sender {
    /// Starts `connections` threads that together send `rate` webhooks a second to `streams` streams, each stream from
    /// one thread.
    pub fn start(to: SocketAddr, connections: usize, rate: usize, streams: usize) -> Self {
        Self::begin(to, Load::new(connections, rate, streams))
    }

    /// The same, to an endpoint at another path.
    pub fn start_at(to: SocketAddr, path: &'static str, connections: usize, rate: usize, streams: usize) -> Self {
        let load = Load::new(connections, rate, streams);
        Self::begin(to, Load { path, ..load })
    }

    /// The same, with a connection of its own for every request.
    pub fn start_reconnecting(to: SocketAddr, threads: usize, rate: usize, streams: usize) -> Self {
        let load = Load::new(threads, rate, streams);
        Self::begin(to, Load { keeps: false, ..load })
    }

    pub fn begin(to: SocketAddr, load: Load) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sender = SENDERS.fetch_add(1, Ordering::Relaxed);
        let threads = (0..load.connections)
            .map(|thread| {
                let run = Run {
                    to,
                    load,
                    sender,
                    thread,
                    stop: stop.clone(),
                    outcome: Arc::default(),
                };
                let outcome = run.outcome.clone();
                (thread::spawn(move || run.run()), outcome)
            })
            .collect();
        Self { stop, threads }
    }

    /// What became of it up to now.
    pub fn so_far(&self) -> Outcome {
        let mut all = Outcome::default();
        for (_, outcome) in &self.threads {
            all.add(&outcome.lock().expect("no panic under the lock"));
        }
        all
    }

    /// How many were answered 200 up to now.
    pub fn acknowledged(&self) -> usize {
        let of_one =
            |outcome: &Arc<Mutex<Outcome>>| outcome.lock().expect("no panic under the lock").acknowledged.len();
        self.threads.iter().map(|(_, outcome)| of_one(outcome)).sum()
    }

    /// Sends until so many were acknowledged.
    pub fn wait_until_acknowledged(&self, count: usize) {
        let deadline = Instant::now() + ACKNOWLEDGED;
        while self.acknowledged() < count {
            let so_far = self.acknowledged();
            assert!(
                Instant::now() < deadline,
                "{so_far} of {count} acknowledged within {ACKNOWLEDGED:?}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn stop(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for (thread, outcome) in self.threads.drain(..) {
            thread.join().expect("a sender does not panic");
            all.add(&outcome.lock().expect("no panic under the lock"));
        }
        all
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What one thread does.
struct Run {
    to: SocketAddr,
    load: Load,
    sender: usize,
    thread: usize,
    stop: Arc<AtomicBool>,
    outcome: Arc<Mutex<Outcome>>,
}

impl Run {
    fn run(&self) {
        let (thread, threads) = (self.thread, self.load.connections);
        let pause = Duration::from_secs_f64(threads as f64 / self.load.rate as f64);
        let mut connection = None;
        let mut due = Instant::now();
        let mut count = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let stream = (count * threads + thread) % self.load.streams.max(threads) / threads * threads + thread;
            let feed_id = format!("{thread:08x}-{:04x}-4000-8000-{count:012x}", self.sender);
            count += 1;
            let large = self.load.large.filter(|(every, _)| count % every == 0);
            let body = match large {
                None => webhook(stream, &feed_id),
                Some((_, bytes)) => large_webhook(stream, &feed_id, bytes),
            };
            let began = Instant::now();
            let answer = post(&mut connection, self.to, self.load.path, body.as_bytes());
            let mut outcome = self.outcome.lock().expect("no panic under the lock");
            match answer {
                Ok(answer) => {
                    *outcome.answers.entry(answer.code).or_default() += 1;
                    outcome.slowest = outcome.slowest.max(began.elapsed());
                    outcome.without_retry_after += usize::from(answer.code == 503 && !answer.retry_after);
                    if answer.code == 200 {
                        outcome.took.push((Instant::now(), due.elapsed()));
                        if large.is_some() {
                            outcome.large.insert(feed_id.clone());
                        }
                        outcome.acknowledged.insert(feed_id);
                    }
                    if !self.load.keeps {
                        connection = None;
                    }
                }
                Err(_) => {
                    connection = None;
                    outcome.unanswered += 1;
                }
            }
            drop(outcome);
            due += pause;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

struct Answer {
    code: u16,
    retry_after: bool,
}

type Connection = Option<BufReader<TcpStream>>;

/// One request over a connection that is kept.
fn post(connection: &mut Connection, to: SocketAddr, path: &str, body: &[u8]) -> io::Result<Answer> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(15)))?;
            stream.set_nodelay(true)?;
            connection.insert(BufReader::new(stream))
        }
    };
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: forebay\r\nContent-Type: application/json\r\nX-Millicast-Signature: {}\r\nContent-Length: {}\r\n\r\n",
        sign(body),
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    stream.get_mut().write_all(&request)?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let code = line
        .get(9..12)
        .and_then(|code| code.parse().ok())
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut length = 0;
    let mut closes = false;
    let mut retry_after = false;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        }
        retry_after |= header.starts_with("retry-after:");
        closes |= header == "connection: close";
    }
    stream.read_exact(&mut vec![0; length])?;
    if closes {
        *connection = None;
    }
    Ok(Answer { code, retry_after })
}
