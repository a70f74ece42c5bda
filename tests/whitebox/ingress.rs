//! The public server, over TCP: what every sender and every peer can get out of it.

mod answers;
mod clients;
mod connections;
mod framing;
mod limits;

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use forebay::{
    config::{self, AllowList},
    event::Event,
    ingress::{self, BoundServerHandle, IngressMetrics, PublicEndpoint, RefusalInspector, RefusedRequests},
    lifecycle::{ProcessLifecycle, ProcessPhase},
    senders::{EndpointReceiver, Secret, millicast::Millicast},
    spool::{Audience, LogObserver, LogOptions, Spool},
    telemetry::{Metrics, Traces},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const SECRET_DECODED: &[u8] = b"0123456789abcdef0123456789abcdef";
const PATH: &str = "/millicast/acme";
const FEEDS: &str = r#"{"type":"feeds","event":"started","timestamp":1638463486489,"data":{"feedId":"369e4a86-f937-4254-bd9f-99dc484d2bd6","accountId":"ZG6NWV","name":"sample_stream","streamId":"ZG6NWV/sample_stream","started":1638463486359,"active":true}}"#;
/// Nothing here takes longer, unless it says so.
const PATIENCE: Duration = Duration::from_secs(10);

struct Silent;

impl LogObserver for Silent {
    fn synced(&self, _: usize, _: Duration) {}
    fn damage(&self, _: &'static str) {}
}

const SPOOL_BYTES_MAX: u64 = 64 << 20;

pub fn spool(dir: &TempDir) -> Spool {
    spool_of(dir, SPOOL_BYTES_MAX)
}

fn spool_of(dir: &TempDir, bytes_max: u64) -> Spool {
    let options = LogOptions {
        dir: dir.path().to_owned(),
        bytes_max,
        bulk_share_max: 0.5,
        segment_bytes: 1 << 20,
        replica: String::new(),
        numbers_from: 0,
        record_bytes_max: 0,
        hot_bytes_max: 1 << 20,
        readers_bytes_max: 1 << 20,
    };
    Spool::open(options, Arc::new(Silent)).expect("an empty directory makes a spool")
}

/// A running server with one endpoint.
struct Server {
    runtime: Runtime,
    address: SocketAddr,
    handle: BoundServerHandle,
    spool: Spool,
    lifecycle: Arc<ProcessLifecycle>,
    metrics: Arc<IngressMetrics>,
    _dir: TempDir,
}

impl Server {
    fn start() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut config::ServerConfig)) -> Self {
        Self::build(SPOOL_BYTES_MAX, change)
    }

    fn of_account(account: &str) -> Self {
        Self::build_for(Some(account), SPOOL_BYTES_MAX, |_| {})
    }

    fn build(spool_bytes_max: u64, change: impl FnOnce(&mut config::ServerConfig)) -> Self {
        Self::serving(None, None, spool_bytes_max, change)
    }

    fn build_for(account: Option<&str>, spool_bytes_max: u64, change: impl FnOnce(&mut config::ServerConfig)) -> Self {
        Self::serving(account, None, spool_bytes_max, change)
    }

    fn allowing(allow: Option<AllowList>, change: impl FnOnce(&mut config::ServerConfig)) -> Self {
        Self::serving(None, allow, SPOOL_BYTES_MAX, change)
    }

    fn serving(
        account: Option<&str>,
        allow: Option<AllowList>,
        spool_bytes_max: u64,
        change: impl FnOnce(&mut config::ServerConfig),
    ) -> Self {
        let mut config = config::ServerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            body_bytes_max: 64 * 1024,
            bodies_bytes_max: 200_000,
            body_deadline: Duration::from_secs(8),
            connections_max: 64,
            connections_per_client_max: 1000,
            keep_alive: Duration::from_secs(75),
            health_path: None,
            proxy_protocol: false,
            streams_max: 100,
            event_ids_max: 100,
            drain_delay: Duration::ZERO,
            shutdown_deadline: Duration::from_secs(5),
            trusted_proxies: Vec::new(),
        };
        change(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let inside = runtime.enter();
        let dir = TempDir::new().unwrap();
        let spool = spool_of(&dir, spool_bytes_max);
        let lifecycle = Arc::new(ProcessLifecycle::starting());
        lifecycle.advance(ProcessPhase::Ready);
        let metrics = IngressMetrics::register(&Metrics::new());
        let receiver = Arc::new(EndpointReceiver::new(
            &Millicast,
            "acme",
            account,
            vec![Secret::from_base64(SECRET).unwrap()],
        ));
        let inspector = RefusalInspector::start().unwrap();
        inspector.know(vec![("acme".to_owned(), receiver.clone())]);
        let endpoint = PublicEndpoint {
            name: "acme".to_owned(),
            path: PATH.to_owned(),
            receiver,
            refused: RefusedRequests::new("acme", &inspector),
            replay_window: Duration::from_secs(600),
            allow,
        };
        let log = spool.clone();
        let (bound, _) = ingress::bind(
            None,
            &config,
            vec![endpoint],
            Arc::new(move |_, record, class, (desk, ticket)| {
                log.append_for(desk, ticket, record, class, Audience::default())
            }),
            Arc::clone(&lifecycle),
            Arc::clone(&metrics),
            Traces::off(),
        )
        .unwrap();
        let (address, handle) = (bound.addresses()[0], bound.handle());
        drop(inside);
        runtime.spawn(bound.run());
        Self {
            runtime,
            address,
            handle,
            spool,
            lifecycle,
            metrics,
            _dir: dir,
        }
    }

    fn connect(&self) -> Client {
        self.connect_from("127.0.0.1")
    }

    /// Connects from an address of the loopback network.
    fn connect_from(&self, source: &str) -> Client {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let source: SocketAddr = format!("{source}:0").parse().unwrap();
        socket.bind(&source.into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(BufReader::new(stream))
    }

    /// Sends one request on a connection of its own.
    fn answer(&self, request: &[u8]) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    fn limit_used(&self, limit: &str) -> i64 {
        self.metrics.servers.limit_used.with_label_values(&[limit]).get()
    }

    fn connections_closed(&self, reason: &str) -> u64 {
        self.metrics
            .servers
            .connections_closed
            .with_label_values(&["public", reason])
            .get()
    }

    /// The number of the newest record, which is how many there were.
    fn newest_record(&self) -> u64 {
        self.spool.state().head
    }

    fn newest_event(&self) -> Event {
        let mut records = Vec::new();
        let mut reader = self.spool.reader(self.newest_record());
        self.runtime.block_on(reader.next(1, 1, &mut records)).unwrap();
        Event::decode(&records[0].bytes).unwrap()
    }

    fn requests(&self, endpoint: &str, code: &str) -> u64 {
        self.metrics.requests.with_label_values(&[endpoint, code]).get()
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    fn answer(&mut self) -> Answer {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("an answer in time");
            assert!(!line.is_empty(), "closed in the head of an answer, after {head:?}");
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let status = head[0].split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer {
            status,
            headers: head.split_off(1),
            body: String::new(),
        };
        let mut body = vec![
            0;
            answer
                .header("content-length")
                .map_or(0, |length| length.parse().unwrap())
        ];
        self.0.read_exact(&mut body).unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// Whatever still comes until the connection is closed.
    fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection is still open: {error}"),
        }
        String::from_utf8_lossy(&rest).into_owned()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<String>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// Checks a problem document and returns its code.
    fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let document: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(document["status"], self.status);
        assert_eq!(document["reason"], document["code"]);
        assert!(document["title"].is_string() && document["detail"].is_string());
        document["code"].as_str().unwrap().to_owned()
    }
}

fn signature(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(SECRET_DECODED).unwrap();
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha1={hex}")
}

fn head(lines: &[&str]) -> String {
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: forebay\r\n{}\r\n\r\n",
        lines.join("\r\n")
    )
}

/// A request with these header lines and this body.
fn request(lines: &[&str], body: &[u8]) -> Vec<u8> {
    let length = format!("content-length: {}", body.len());
    let mut request = head(&[&[length.as_str()], lines].concat()).into_bytes();
    request.extend_from_slice(body);
    request
}

fn signed(body: &[u8]) -> Vec<u8> {
    request(&[&format!("x-millicast-signature: {}", signature(body))], body)
}

/// A header with a signature that could be right, and is not.
const WELL_FORMED: &str = "x-millicast-signature: sha1=0000000000000000000000000000000000000000";

fn within(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}
