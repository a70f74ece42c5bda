//! The last requests whose signature was refused, for the operator: never their bodies or signatures, but what may be
//! wrong with them.
//!
//! To find that out costs hashes and decompression, and whoever sends is a stranger. So it is done on a thread of its
//! own, for one request of an endpoint in [`INTERVAL`] at most, and never for a body above [`BODY_BYTES_MAX`].

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        mpsc::{Receiver as Queue, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;
use openssl::sha::sha256;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    senders::{Diagnosis, EndpointReceiver, HeaderLookup, SignatureError, SignatureHeaders, header_form},
    telemetry::LogThrottle,
};

/// Requests that are remembered for each endpoint.
const REQUESTS_MAX: usize = 32;
/// A larger body is not looked into.
const BODY_BYTES_MAX: usize = 256 << 10;
/// A body up to here is hashed where it came: the signature cost as much.
const HASHED_BYTES_MAX: usize = 64 << 10;
/// One request of an endpoint in this time is looked into.
const INTERVAL: Duration = Duration::from_secs(1);
/// Requests of all endpoints that wait to be looked into.
const WAITING_MAX: usize = 16;
/// What was found is logged once in this time for an endpoint.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The refused requests of one endpoint.
pub struct RefusedRequests {
    endpoint: String,
    requests: Mutex<RememberedRequests>,
    queue: SyncSender<SuspectRequest>,
    due: LogThrottle,
    /// When something was logged of what was found.
    logged: LogThrottle,
}

/// The thread that looks into the refused requests of all endpoints. It ends when nobody has this, nor any of them.
pub struct RefusalInspector {
    queue: SyncSender<SuspectRequest>,
    endpoints: Arc<Mutex<NamedReceivers>>,
}

/// By the names of their endpoints.
type NamedReceivers = Vec<(String, Arc<EndpointReceiver>)>;

#[derive(Default)]
struct RememberedRequests {
    newest: VecDeque<RefusedRequest>,
    /// How many there ever were.
    count: u64,
}

/// What is remembered of one.
struct RefusedRequest {
    number: u64,
    time: Timestamp,
    client: Option<IpAddr>,
    reason: SignatureError,
    /// Of the header, without what is in it.
    form: String,
    length: Option<usize>,
    sha256: Option<[u8; 32]>,
    verdict: RefusalVerdict,
}

/// How far the search for what is wrong has come.
enum RefusalVerdict {
    Pending,
    Found(Diagnosis),
    /// Why nobody looked.
    NotTried(&'static str),
}

/// What is kept of a refused body: one that is too large to be looked into is only as long as it was.
pub(super) struct RefusedBody {
    length: usize,
    bytes: Option<Bytes>,
}

impl From<Bytes> for RefusedBody {
    fn from(bytes: Bytes) -> Self {
        Self {
            length: bytes.len(),
            bytes: (bytes.len() <= BODY_BYTES_MAX).then_some(bytes),
        }
    }
}

/// A request to look into.
struct SuspectRequest {
    of: Arc<RefusedRequests>,
    number: u64,
    headers: SignatureHeaders,
    body: Bytes,
}

impl RefusedRequests {
    /// Of the endpoint of this name, of which nothing was refused yet.
    pub fn new(endpoint: &str, inspector: &RefusalInspector) -> Arc<Self> {
        Arc::new(Self {
            endpoint: endpoint.to_owned(),
            requests: Mutex::default(),
            queue: inspector.queue.clone(),
            due: LogThrottle::new(INTERVAL),
            logged: LogThrottle::new(LOG_INTERVAL),
        })
    }

    /// Remembers a request whose signature was refused. Without a `body` it was refused for its header, before the body
    /// came.
    pub(super) fn refused(
        self: &Arc<Self>,
        client: impl Into<Option<IpAddr>>,
        reason: SignatureError,
        receiver: &EndpointReceiver,
        headers: &dyn HeaderLookup,
        body: Option<RefusedBody>,
    ) {
        let headers = SignatureHeaders::from_headers(receiver.sender(), headers);
        let length = body.as_ref().map(|body| body.length);
        let bytes = body.and_then(|body| body.bytes);
        let verdict = match length {
            _ if reason != SignatureError::Wrong => {
                RefusalVerdict::NotTried("the header has no signature that could be right")
            }
            None => RefusalVerdict::NotTried("the body was not read"),
            Some(length) if length > BODY_BYTES_MAX => RefusalVerdict::NotTried("the body is too large"),
            Some(_) if self.due.due(Instant::now()).is_none() => {
                RefusalVerdict::NotTried("another one was looked into in the same second")
            }
            Some(_) => RefusalVerdict::Pending,
        };
        let hashed = bytes.as_ref().filter(|bytes| bytes.len() <= HASHED_BYTES_MAX);
        let sha256 = hashed.map(|bytes| sha256(bytes));
        let suspect = bytes.filter(|_| matches!(verdict, RefusalVerdict::Pending));
        let number = self.remember(RefusedRequest {
            number: 0,
            time: Timestamp::now(),
            client: client.into(),
            reason,
            form: header_form(headers.signature(receiver.sender())),
            length,
            sha256,
            verdict,
        });
        if let Some(body) = suspect {
            let suspect = SuspectRequest {
                of: Arc::clone(self),
                number,
                headers,
                body,
            };
            if self.queue.try_send(suspect).is_err() {
                self.found(
                    number,
                    None,
                    RefusalVerdict::NotTried("too many wait to be looked into"),
                );
            }
        }
    }

    /// The newest first.
    pub fn status(&self) -> Vec<Value> {
        self.requests
            .lock()
            .newest
            .iter()
            .rev()
            .map(RefusedRequest::status)
            .collect()
    }

    fn remember(&self, mut request: RefusedRequest) -> u64 {
        let mut remembered = self.requests.lock();
        remembered.count += 1;
        request.number = remembered.count;
        if remembered.newest.len() == REQUESTS_MAX {
            remembered.newest.pop_front();
        }
        remembered.newest.push_back(request);
        remembered.count
    }

    fn found(&self, number: u64, sha256: Option<[u8; 32]>, verdict: RefusalVerdict) {
        let mut remembered = self.requests.lock();
        // Unless it made room for newer ones meanwhile.
        if let Some(request) = remembered.newest.iter_mut().find(|request| request.number == number) {
            request.sha256 = request.sha256.or(sha256);
            request.verdict = verdict;
        }
    }
}

impl RefusedRequest {
    fn status(&self) -> Value {
        let (diagnosis, text) = match &self.verdict {
            RefusalVerdict::Pending => ("pending", None),
            RefusalVerdict::Found(diagnosis) => (diagnosis.name(), Some(diagnosis.to_string())),
            RefusalVerdict::NotTried(why) => ("not_tried", Some((*why).to_owned())),
        };
        let reason = match self.reason {
            SignatureError::Missing => "missing",
            SignatureError::Malformed => "malformed",
            SignatureError::Wrong => "wrong",
        };
        json!({
            "time": format!("{:.3}", self.time),
            "client": self.client.map(|client| client.to_string()),
            "reason": reason,
            "header": self.form,
            "length": self.length,
            "sha256": self.sha256.map(hex),
            "diagnosis": diagnosis,
            "text": text,
        })
    }
}

fn hex(digest: [u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl RefusalInspector {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The process may start no thread.
    pub fn start() -> io::Result<Self> {
        let (sender, queue) = sync_channel(WAITING_MAX);
        let endpoints = Arc::<Mutex<NamedReceivers>>::default();
        let shared = endpoints.clone();
        std::thread::Builder::new()
            .name("forebay-refused".to_owned())
            .spawn(move || look_into(&queue, &shared))?;
        Ok(Self {
            queue: sender,
            endpoints,
        })
    }

    /// From here on these are the endpoints: what was refused by one may be right for another.
    pub fn know(&self, endpoints: Vec<(String, Arc<EndpointReceiver>)>) {
        *self.endpoints.lock() = endpoints;
    }
}

/// Looks into what comes, until nothing can come any more.
fn look_into(queue: &Queue<SuspectRequest>, endpoints: &Mutex<NamedReceivers>) {
    for suspect in queue {
        let endpoints = endpoints.lock().clone();
        // A bug in here must not end the thread: whatever comes after would be looked into by nobody.
        let looked = std::panic::catch_unwind(AssertUnwindSafe(|| diagnose(&suspect, &endpoints)));
        let (sha256, verdict) = match looked {
            Ok((sha256, diagnosis)) => {
                if diagnosis != Diagnosis::NoneOfThese
                    && let Some(more) = suspect.of.logged.due(Instant::now())
                {
                    let (endpoint, diagnosis) = (&suspect.of.endpoint, diagnosis.name());
                    tracing::warn!(
                        endpoint,
                        diagnosis,
                        more,
                        "a refused signature would have been right otherwise; see /status"
                    );
                }
                (Some(sha256), RefusalVerdict::Found(diagnosis))
            }
            Err(_) => (None, RefusalVerdict::NotTried("a bug")),
        };
        suspect.of.found(suspect.number, sha256, verdict);
    }
}

fn diagnose(suspect: &SuspectRequest, endpoints: &[(String, Arc<EndpointReceiver>)]) -> ([u8; 32], Diagnosis) {
    let (own, others): (Vec<_>, Vec<_>) = endpoints.iter().partition(|(name, _)| *name == suspect.of.endpoint);
    let others: Vec<(&str, &EndpointReceiver)> = others
        .iter()
        .map(|(name, receiver)| (name.as_str(), &**receiver))
        .collect();
    let diagnosis = own.first().map_or(Diagnosis::NoneOfThese, |(_, receiver)| {
        receiver.diagnose(&others, &suspect.headers, &suspect.body)
    });
    (sha256(&suspect.body), diagnosis)
}
