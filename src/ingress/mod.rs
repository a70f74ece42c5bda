//! The public HTTP server: from a request's head to its answer.
//!
//! The sender never repeats a request and gives up on an endpoint that is slow, so the server takes what is authentic,
//! answers after the fsync, and spends on any one peer no more than it was allowed to: connections, heads, bodies and
//! time have limits, and nothing a peer can do holds one of them for ever.
//!
//! | what | limit | then |
//! |---|---|---|
//! | connections | `connections_max`, and what the process may have open | the one that is missed least is closed |
//! | connections of one client | `connections_per_client_max` | closed, or 429 |
//! | a head | 16 KiB, and 5 s from its first byte | 431 or 408, closed |
//! | between requests | `keep_alive` | closed |
//! | one body | `body_bytes_max` | 413, closed |
//! | all bodies that have come and are not on disk | `bodies_bytes_max` | 503 |
//! | from the head to the last byte | `body_deadline`, and a lowest rate (`body`) | 408, closed |
//! | the fsync | 2.5 s | 503; the record may still become durable |
//!
//! Those of connections and heads are kept by `http`. A connection stays open only after a request that was verified.
//! The order of the checks is the order of their cost: path, method, client, phase, the form of the signature, size,
//! memory, then the body, its signature, and only then what it says. It is HTTP/1.1 only; nothing decompresses a body,
//! for the signature is over its bytes as they came.

mod answer;
mod appends;
mod body;
mod budget;
mod endpoint;
mod lateness;
mod metrics;
mod other_accounts;
mod refused;
mod seen_ids;
mod service;
mod spans;
mod verification;

pub use crate::http::ServerMetrics;
pub(crate) use crate::http::files_for;
pub use crate::http::{BoundServer, BoundServerHandle};
pub use lateness::StreamLateness;
pub use metrics::IngressMetrics;
pub use refused::{RefusalInspector, RefusedRequests};

use std::{
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use crate::{
    config::{self, AllowList},
    event::Event,
    http::{self, ConnectionLimits, ConnectionMetrics, HEAD_BYTES_MAX, OpenConnectionSet, ServerOptions},
    lifecycle::ProcessLifecycle,
    senders::EndpointReceiver,
    spool::{AppendError, AppendReplies, RecordClass},
    telemetry::Traces,
};
use appends::WorkerAppends;
use budget::BodyBudget;
use service::{ServiceParts, WebhookService};
use verification::Verification;

/// Connections that wait for being accepted.
const BACKLOG_CONNECTIONS: u32 = 4096;
/// Unfinished heads may take so much memory together; a sender's head is complete with its first packet.
const HEADS_BYTES_MAX: u64 = 32 << 20;
/// How often the metrics of the memory for bodies are brought up to date.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);

/// A place where one sender's webhooks arrive.
#[derive(Clone)]
pub struct PublicEndpoint {
    /// Its name, in metrics and logs.
    pub name: String,
    /// Compared with a request's path byte for byte.
    pub path: String,
    pub receiver: Arc<EndpointReceiver>,
    /// How far back an event may have been sent, or its id have been seen, without being marked. Zero: any.
    pub replay_window: Duration,
    pub refused: Arc<RefusedRequests>,
    /// `None`: everybody may send.
    pub allow: Option<AllowList>,
}

/// Gives an event's record to the log, for whom the event is; the answer arrives at the desk, under the ticket.
pub type EventIntake =
    Arc<dyn Fn(&Event, Bytes, RecordClass, (&Arc<AppendReplies>, u64)) -> Result<(), AppendError> + Send + Sync>;

/// What can be changed of the server while it runs.
pub struct IngressSettings {
    service: Arc<WebhookService>,
    connections: Arc<OpenConnectionSet>,
    budget: BodyBudget,
}

impl IngressSettings {
    /// From the next request on these are the endpoints, and from the next connection on these are the limits. Of
    /// `config` the rest stays as it was at the start.
    pub fn change(&self, config: &config::ServerConfig, endpoints: Vec<PublicEndpoint>) {
        self.connections.limit(connection_limits(config));
        self.budget.limit(config.bodies_bytes_max, config.body_bytes_max);
        self.service.change(config, endpoints);
    }
}

fn connection_limits(config: &config::ServerConfig) -> ConnectionLimits {
    ConnectionLimits {
        connections_max: config.connections_max,
        per_client_max: config.connections_per_client_max,
        heads_bytes_max: HEADS_BYTES_MAX.min((config.connections_max * HEAD_BYTES_MAX) as u64),
        trusted_proxies: config.trusted_proxies.clone(),
    }
}

/// Why the server could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum IngressBindError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("a thread cannot be started: {0}; raise the limits of threads and memory")]
    Thread(io::Error),
}

/// Listens on `config.listen`, or takes over the socket that was handed to the process. Must be called within a tokio
/// runtime.
///
/// # Errors
///
/// The address cannot be listened on, or the process may start no thread.
pub fn bind(
    handed: Option<TcpListener>,
    config: &config::ServerConfig,
    endpoints: Vec<PublicEndpoint>,
    intake: EventIntake,
    lifecycle: Arc<ProcessLifecycle>,
    metrics: Arc<IngressMetrics>,
    traces: Traces,
) -> Result<(BoundServer, IngressSettings), IngressBindError> {
    let listen_error = |source| IngressBindError::Listen {
        address: config.listen,
        source,
    };
    let listener = http::listen(handed, config.listen, BACKLOG_CONNECTIONS).map_err(listen_error)?;
    let servers = metrics.servers.clone();
    let server_metrics = ConnectionMetrics::new(http::ServerLabel::Public, &metrics.servers);
    let connections = OpenConnectionSet::new(connection_limits(config), server_metrics);
    let options = ServerOptions {
        workers: std::thread::available_parallelism().map_or(1, usize::from),
        backlog_connections: BACKLOG_CONNECTIONS,
        keep_alive: config.keep_alive,
        proxy_protocol: config.proxy_protocol,
        shutdown_deadline: config.shutdown_deadline,
    };
    let budget = BodyBudget::new(config.bodies_bytes_max, config.body_bytes_max);
    let verification = Verification::start().map_err(IngressBindError::Thread)?;
    let parts = ServiceParts {
        intake,
        budget: budget.clone(),
        verification,
        lifecycle,
        metrics,
        traces,
    };
    let service = Arc::new(WebhookService::new(config, endpoints, parts));
    let settings = IngressSettings {
        service: service.clone(),
        connections: connections.clone(),
        budget: budget.clone(),
    };
    let bound = http::serve(listener, &options, connections, move || {
        let service = Arc::clone(&service);
        // Called on each worker's own thread.
        let appends = WorkerAppends::open();
        move |request, payload| {
            let (service, appends) = (Arc::clone(&service), Rc::clone(&appends));
            async move { service.answer(&appends, request, payload).await }
        }
    });
    let bound = bound.map_err(listen_error)?.beside(observe(budget, servers));
    Ok((bound, settings))
}

/// Keeps the metrics of the memory for bodies up to date.
async fn observe(budget: BodyBudget, metrics: Arc<ServerMetrics>) {
    let limit = |name| {
        let used = metrics.limit_used.with_label_values(&[name]);
        (used, metrics.limit_max.with_label_values(&[name]))
    };
    let (bytes, bytes_max) = limit("bodies_bytes");
    let (large_bytes, large_bytes_max) = limit("large_bodies_bytes");
    loop {
        let reading = budget.reading();
        http::observe_limit(&bytes, &bytes_max, reading.bytes, budget.bytes_max());
        http::observe_limit(
            &large_bytes,
            &large_bytes_max,
            reading.large_bytes,
            budget.large_bytes_max(),
        );
        tokio::time::sleep(OBSERVE_INTERVAL).await;
    }
}
