//! Strangers who attack the front in every way at once, and an honest sender meanwhile.
//!
//! All of it goes to addresses of the loopback network, at rates that one client could have, and ends by itself.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::{
    forebay::PATH,
    sender::{sign, webhook},
};

/// A signature that could be right, and is not.
const WRONG: &str = "x-millicast-signature: sha1=0000000000000000000000000000000000000000";
/// Addresses that strangers have, beside one that the honest sender may share.
const STRANGERS: u8 = 200;

/// How many connections each kind of attack has.
#[derive(Clone, Copy)]
pub struct Strength {
    /// Silent, or with half a head.
    pub idle: usize,
    /// With pipelined requests whose answers nobody reads.
    pub pipelining: usize,
    /// With bodies of 16 MiB that are declared and dribble.
    pub declaring: usize,
    /// With large heads that do not end.
    pub heads: usize,
    /// With wrong signatures over 16 MiB.
    pub large: usize,
    /// With wrong signatures over little, as fast as they are answered.
    pub flood: usize,
    /// Halves of heads at the operator's port.
    pub admin: usize,
}

/// No attack but the few wrong signatures that are always there.
pub const NOBODY: Strength = Strength {
    idle: 0,
    pipelining: 0,
    declaring: 0,
    heads: 0,
    large: 0,
    flood: 0,
    admin: 0,
};

/// Attacks until it is dropped.
pub struct Siege {
    stop: Arc<AtomicBool>,
    attempts: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

/// Who attacks, and whom.
#[derive(Clone)]
struct Attacker {
    target: SocketAddr,
    /// `None`: the strangers' addresses in turn.
    source: Option<Ipv4Addr>,
    stop: Arc<AtomicBool>,
    attempts: Arc<AtomicU64>,
}

impl Siege {
    /// `source`: all strangers have this address, instead of one of their own each.
    pub fn begin(public: SocketAddr, admin: SocketAddr, strength: Strength, source: Option<Ipv4Addr>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let attempts = Arc::new(AtomicU64::new(0));
        let attacker = |target| Attacker {
            target,
            source,
            stop: Arc::clone(&stop),
            attempts: Arc::clone(&attempts),
        };
        let head = |lines: &str| format!("POST {PATH} HTTP/1.1\r\nhost: forebay\r\n{lines}");
        let pipelined = "GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(500);
        let declared = head(&format!("{WRONG}\r\ncontent-length: 16777216\r\n\r\n"));
        let large_head = head(&format!("x-filler: {}", "y".repeat(15_000)));
        let small_wrong = head(&format!("{WRONG}\r\ncontent-length: 2\r\n\r\n{{}}"));
        let not_found = "GET /nobody HTTP/1.1\r\nhost: a\r\n\r\n".to_owned();
        let every = Duration::from_millis;
        let threads = vec![
            attacker(public).hold(strength.idle, "", "", every(1000)),
            attacker(public).hold(strength.idle / 4, &head("x-half: "), "", every(1000)),
            attacker(public).hold(strength.pipelining, &pipelined, &pipelined, every(20)),
            attacker(public).hold(strength.declaring, &declared, &"x".repeat(1200), every(1000)),
            attacker(public).hold(strength.heads, &large_head, "", every(1000)),
            attacker(public).hold(strength.idle / 8, &not_found, &not_found, every(4000)),
            attacker(public).hold(2, &small_wrong, &small_wrong, every(10)),
            attacker(admin).hold(strength.admin, "GET /livez HTTP/1.1\r\nhost: ", "", every(1000)),
        ];
        let large = (0..strength.large).map(|_| attacker(public).send_large());
        let flood = (0..strength.flood).map(|_| attacker(public).flood(small_wrong.clone()));
        Self {
            threads: threads.into_iter().chain(large).chain(flood).collect(),
            stop,
            attempts,
        }
    }

    /// How often strangers have connected.
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Attacker {
    fn connect(&self, turn: usize) -> Option<TcpStream> {
        let own = Ipv4Addr::new(127, 0, 1, (turn % usize::from(STRANGERS)) as u8 + 1);
        let source = SocketAddr::from((self.source.unwrap_or(own), 0));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
        socket.bind(&source.into()).ok()?;
        socket
            .connect_timeout(&self.target.into(), Duration::from_millis(200))
            .ok()?;
        self.attempts.fetch_add(1, Ordering::Relaxed);
        Some(socket.into())
    }

    /// Keeps so many connections, each of which sends `first`, and `more` at each interval; reads nothing. One that is
    /// closed is replaced, no more than 20 in 100 ms.
    fn hold(self, count: usize, first: &str, more: &str, interval: Duration) -> JoinHandle<()> {
        let (first, more) = (first.to_owned().into_bytes(), more.to_owned().into_bytes());
        std::thread::spawn(move || {
            step_back();
            let mut held: Vec<TcpStream> = Vec::new();
            let mut turn = 0;
            let mut due = Instant::now() + interval;
            while !self.stop.load(Ordering::Relaxed) {
                held.retain(|stream| !has_ended(stream));
                for _ in 0..count.saturating_sub(held.len()).min(20) {
                    turn += 1;
                    let Some(mut stream) = self.connect(turn) else { break };
                    if stream.set_nonblocking(true).is_ok() && took(&stream.write(&first)) {
                        held.push(stream);
                    }
                }
                if !more.is_empty() && Instant::now() >= due {
                    due = Instant::now() + interval;
                    held.retain_mut(|stream| took(&stream.write(&more)));
                }
                sleep(interval.min(Duration::from_millis(100)));
            }
        })
    }

    /// Sends a body of 16 MiB with a wrong signature, again and again.
    fn send_large(self) -> JoinHandle<()> {
        std::thread::spawn(move || {
            step_back();
            let head = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\n{WRONG}\r\ncontent-length: 16777216\r\n\r\n");
            let piece = vec![b'x'; 1 << 20];
            let mut turn = 0;
            while !self.stop.load(Ordering::Relaxed) {
                turn += 1;
                sleep(Duration::from_millis(200));
                let Some(mut stream) = self.connect(turn) else { continue };
                let _ = stream.set_write_timeout(Some(Duration::from_secs(2)));
                let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
                let sent =
                    stream.write_all(head.as_bytes()).is_ok() && (0..16).all(|_| stream.write_all(&piece).is_ok());
                if sent {
                    let _ = stream.read(&mut [0; 100]);
                }
            }
        })
    }

    /// Sends a small request again and again, as fast as it is answered.
    fn flood(self, request: String) -> JoinHandle<()> {
        std::thread::spawn(move || {
            step_back();
            let mut turn = 0;
            while !self.stop.load(Ordering::Relaxed) {
                turn += 1;
                let Some(mut stream) = self.connect(turn) else { continue };
                let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
                while !self.stop.load(Ordering::Relaxed)
                    && stream.write_all(request.as_bytes()).is_ok()
                    && stream.read(&mut [0; 1000]).is_ok_and(|length| length > 0)
                {
                    self.attempts.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    }
}

/// Elsewhere strangers have processors of their own. Here their threads get what the others leave, so that what is
/// measured is what the server does about them.
fn step_back() {
    let _ = rustix::process::nice(19);
}

fn took(written: &std::io::Result<usize>) -> bool {
    match written {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Whether the server has closed it; its answer is not read.
fn has_ended(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// What came of an honest sender's webhooks.
#[derive(Default)]
pub struct Honest {
    /// From when each was due to its answer of 200, sorted.
    pub took: Vec<Duration>,
    /// Of those that were not answered 200, the answer or what went wrong.
    pub failures: Vec<String>,
}

impl Honest {
    /// The time within which so many of a thousand were answered.
    pub fn permille(&self, permille: usize) -> Duration {
        self.took
            .get(self.took.len() * permille / 1000)
            .copied()
            .unwrap_or_default()
    }
}

/// Eight honest connections that were verified before.
pub struct HonestSender {
    connections: Vec<TcpStream>,
    target: SocketAddr,
}

impl HonestSender {
    pub fn connect(target: SocketAddr) -> Self {
        let connect = || {
            let mut stream = TcpStream::connect(target).unwrap();
            stream.set_nodelay(true).unwrap();
            post(&mut stream, 0).unwrap();
            stream
        };
        let connections = (0..8).map(|_| connect()).collect();
        Self { connections, target }
    }

    /// Sends 200 a second for so long on the connections, and with `fresh` four a second more, each on a new one.
    pub fn send(&mut self, period: Duration, fresh: bool) -> Honest {
        let end = Instant::now() + period;
        let target = self.target;
        let outcomes: Vec<Honest> = std::thread::scope(|scope| {
            let kept = self.connections.iter_mut().enumerate().map(|(index, stream)| {
                scope.spawn(move || at_a_rate(index, Duration::from_millis(40), end, |number| post(stream, number)))
            });
            let mut threads: Vec<_> = kept.collect();
            if fresh {
                threads.push(scope.spawn(move || {
                    at_a_rate(8, Duration::from_millis(250), end, |number| {
                        let mut stream = TcpStream::connect(target).map_err(|error| error.to_string())?;
                        post(&mut stream, number)
                    })
                }));
            }
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut all = Honest::default();
        for outcome in outcomes {
            all.took.extend(outcome.took);
            all.failures.extend(outcome.failures);
        }
        all.took.sort();
        all
    }
}

fn at_a_rate(
    thread: usize,
    interval: Duration,
    end: Instant,
    mut post: impl FnMut(usize) -> Result<(), String>,
) -> Honest {
    let mut outcome = Honest::default();
    let mut due = Instant::now() + interval * thread as u32 / 8;
    let mut number = thread * 1_000_000;
    while due < end {
        sleep(due.saturating_duration_since(Instant::now()));
        number += 1;
        match post(number) {
            Ok(()) => outcome.took.push(due.elapsed()),
            Err(failure) => {
                outcome.failures.push(failure);
                if outcome.failures.len() > 100 {
                    break;
                }
            }
        }
        due += interval;
    }
    outcome
}

/// Sends a webhook and reads its answer, which must be 200.
fn post(stream: &mut TcpStream, number: usize) -> Result<(), String> {
    post_body(stream, PATH, &webhook(number % 100, &number.to_string()))
}

/// The same with a body of one's own, to an endpoint's path.
pub fn post_body(stream: &mut TcpStream, path: &str, body: &str) -> Result<(), String> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: forebay\r\nx-millicast-signature: {}\r\ncontent-length: {}\r\n\r\n{body}",
        sign(body.as_bytes()),
        body.len()
    );
    let failed = |error: std::io::Error| error.to_string();
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    // "OK" is all of a good answer's body.
    while !answer.ends_with(b"\r\n\r\nOK") {
        let mut piece = [0; 1024];
        let length = stream.read(&mut piece).map_err(failed)?;
        answer.extend_from_slice(&piece[..length]);
        if length == 0 {
            return Err(format!("closed after {:?}", String::from_utf8_lossy(&answer)));
        }
        if answer.len() > 12 && !answer.starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&answer).into_owned());
        }
    }
    Ok(())
}

/// The most memory that a process had resident, in bytes, by the kernel's count.
pub fn peak_resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}
