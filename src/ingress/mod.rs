//! The public HTTP server: from a request's head to its answer.
//!
//! The sender never repeats a request and gives up on an endpoint that is slow, so the server takes what is authentic,
//! answers after the fsync, and spends on any one peer no more than it was allowed to: connections, heads, bodies and
//! time have limits, and nothing a peer can do holds one of them for ever.
//!
//! | what | limit | then |
//! |---|---|---|
//! | connections | `connections_max`, and what the process may have open | wait in the backlog |
//! | the first head of a connection | 5 s | 408, closed |
//! | a later head | 13 s after the answer before it (`connections`) | closed |
//! | one body | `body_bytes_max` | 413, closed |
//! | all bodies that are being read | `bodies_bytes_max` | 503 |
//! | from the head to the last byte | `body_deadline`, and a lowest rate (`body`) | 408, closed |
//! | the fsync | 2.5 s | 503; the record may still become durable |
//!
//! The order of the checks is the order of their cost: path, method, phase, size, memory, then the body, its signature,
//! and only then what it says. It is HTTP/1.1 only; nothing decompresses a body, for the signature is over its bytes as they came.

mod answer;
mod appends;
mod body;
mod bound;
mod connections;
mod endpoint;
mod lateness;
mod limits;
mod other_accounts;
mod peer;
mod refused;
mod seen_ids;
mod service;
mod spans;

pub(crate) use answer::problem;
pub(crate) use bound::listen;
pub use bound::{Bound, Handle};
pub use lateness::Lateness;
pub use refused::RefusedRequests;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_web::{App, HttpServer, web};

use crate::{
    config,
    lifecycle::Lifecycle,
    provider::millicast::Receiver,
    spool::Spool,
    telemetry::{Metrics, Traces},
};
use appends::Appends;
use connections::Connections;
use service::Service;

/// Connections that wait for being accepted.
const BACKLOG_CONNECTIONS: u32 = 4096;
/// A connection's first head must be complete within this.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// How long a connection stays open between requests; longer than [`connections`] lets it be stuck.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long a peer that was refused may go on sending before its connection is reset.
const LINGER: Duration = Duration::from_secs(1);

/// A place where one sender's webhooks arrive.
#[derive(Clone)]
pub struct Endpoint {
    /// Its name, in metrics and logs.
    pub name: String,
    /// Compared with a request's path byte for byte.
    pub path: String,
    pub receiver: Arc<Receiver>,
    /// How far back an event may have been sent, or its id have been seen, without being marked. Zero: any.
    pub replay_window: Duration,
    pub refused: Arc<RefusedRequests>,
}

/// Why the server could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the process may open {allowed} files, too few for a single connection; raise its limit (ulimit -n)")]
    Files { allowed: u64 },
}

/// Listens on `config.listen`, or takes over the socket that was handed to the process. Must be called within a tokio runtime.
///
/// # Errors
///
/// The address cannot be listened on, or the process may open too few files.
pub fn bind(
    handed: Option<TcpListener>,
    config: &config::Server,
    endpoints: Vec<Endpoint>,
    spool: Spool,
    lifecycle: Arc<Lifecycle>,
    metrics: Arc<Metrics>,
    traces: Traces,
) -> Result<Bound, BindError> {
    let connections_max = limits::connections_max(config.connections_max)?;
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(connections_max);
    let listener = listen(handed, config.listen, BACKLOG_CONNECTIONS).map_err(|source| BindError::Listen {
        address: config.listen,
        source,
    })?;
    let connections = Arc::new(Connections::new(metrics.connections.clone()));
    let service = Arc::new(Service::new(config, endpoints, lifecycle, &metrics, traces));

    let registry = Arc::clone(&connections);
    let server = HttpServer::new(move || {
        let service = Arc::clone(&service);
        // Called on each worker's own thread.
        let appends = Appends::open(spool.clone());
        App::new().default_service(web::to(move |request, payload: web::Payload| {
            let (service, appends) = (Arc::clone(&service), Rc::clone(&appends));
            async move { service.answer(&appends, request, payload.into_inner()).await }
        }))
    })
    .workers(workers)
    .max_connections(connections_max / workers)
    .backlog(BACKLOG_CONNECTIONS)
    .client_request_timeout(HEAD_DEADLINE)
    .client_disconnect_timeout(LINGER)
    .keep_alive(KEEP_ALIVE)
    .tcp_nodelay(true)
    .on_connect(move |stream, extensions| registry.enter(stream, extensions))
    .disable_signals()
    .shutdown_timeout(config.shutdown_deadline.as_secs().max(1))
    .listen(listener)
    .map_err(|source| BindError::Listen {
        address: config.listen,
        source,
    })?;

    let addresses = server.addrs();
    let server = server.run();
    let watched = Arc::clone(&connections);
    let bound = Bound::new(addresses, server.handle(), async move {
        tokio::select! {
            result = server => result,
            () = watched.watch() => unreachable!("the guard of connections never ends"),
        }
    });
    Ok(bound.with_connections(connections))
}
