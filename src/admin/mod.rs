//! The operator's HTTP server, on a port of its own: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! Alive is a process that answers, whatever its disk and its brokers do. Ready is one that can accept and sync: it has
//! started, is not about to stop, its spool takes records, and the disk answers. A broker that is away makes nobody
//! unready.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        ConnectionType, Method, StatusCode,
        header::{self, HeaderValue},
    },
};
use serde_json::{Value, json};

use crate::{
    config,
    http::{self, BoundServer, ConnectionLimits, ConnectionMetrics, OpenConnectionSet, ServerMetrics, ServerOptions},
    lifecycle::{ProcessLifecycle, ProcessPhase},
    spool::{self, Spool},
    telemetry::Metrics,
};

const BACKLOG_CONNECTIONS: u32 = 128;
/// Unfinished heads may take so much memory together.
const HEADS_BYTES_MAX: u64 = 1 << 20;
/// How long a scraper's connection is kept. Probes get one each.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// `/livez` and `/readyz` must answer while the process stops; nothing of value is cut off at the end.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(1);
/// A write or sync that takes longer makes the replica unready: each event waits for it, and is answered 503 before.
const DISK_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Where the server learns what it tells.
#[derive(Clone)]
pub struct AdminSources {
    pub lifecycle: Arc<ProcessLifecycle>,
    pub spool: Spool,
    pub metrics: Arc<Metrics>,
    pub servers: Arc<ServerMetrics>,
    /// Refreshes what is only measured when somebody asks, before the metrics are gathered.
    pub collect: Arc<dyn Fn() + Send + Sync>,
    /// What `/status` tells.
    pub status: Arc<dyn Fn() -> Value + Send + Sync>,
}

/// Why the server could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct AdminBindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// Listens on `config.listen`, or takes over the socket that was handed to the process. Must be called within a tokio
/// runtime.
pub fn bind(
    handed: Option<TcpListener>,
    config: &config::AdminConfig,
    connections_max: usize,
    sources: AdminSources,
) -> Result<BoundServer, AdminBindError> {
    let failed = |source| AdminBindError {
        address: config.listen,
        source,
    };
    let listener = http::listen(handed, config.listen, BACKLOG_CONNECTIONS).map_err(failed)?;
    let limits = ConnectionLimits {
        connections_max,
        per_client_max: connections_max,
        heads_bytes_max: HEADS_BYTES_MAX,
        trusted_proxies: Vec::new(),
    };
    let metrics = ConnectionMetrics::new(http::ServerLabel::Admin, &sources.servers);
    let options = ServerOptions {
        workers: 1,
        backlog_connections: BACKLOG_CONNECTIONS,
        keep_alive: KEEP_ALIVE,
        proxy_protocol: false,
        shutdown_deadline: SHUTDOWN_DEADLINE,
    };
    http::serve(listener, &options, OpenConnectionSet::new(limits, metrics), move || {
        let sources = sources.clone();
        move |request, _| {
            let answer = sources.answer(&request);
            async move { answer }
        }
    })
    .map_err(failed)
}

impl AdminSources {
    fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let answer: fn(&Self) -> HttpResponse = match request.uri().path() {
            "/livez" => |_| once(text(StatusCode::OK, "ok\n".to_owned())),
            "/readyz" => |sources| once(sources.ready()),
            "/metrics" => Self::metrics,
            "/status" => |sources| json_text(StatusCode::OK, "application/json", &(sources.status)()),
            _ => {
                return problem(
                    StatusCode::NOT_FOUND,
                    "not_found",
                    "/livez, /readyz, /metrics or /status",
                );
            }
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "GET or HEAD");
            refused
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        answer(self)
    }

    fn ready(&self) -> HttpResponse {
        let reasons = self.unready();
        if reasons.is_empty() {
            return text(StatusCode::OK, "ok\n".to_owned());
        }
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let document = json!({
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": status.as_u16(),
            "code": "not_ready",
            "detail": reasons.join("; "),
            "reasons": reasons,
        });
        json_text(status, "application/problem+json", &document)
    }

    /// What keeps it from being ready; nothing when it is.
    fn unready(&self) -> Vec<String> {
        let phase = match self.lifecycle.phase() {
            ProcessPhase::Ready => None,
            phase => Some(phase.name().to_owned()),
        };
        let spool = self.spool.state();
        let refuses = spool.refuses.map(|error| error.to_string());
        phase.into_iter().chain(refuses).chain(stalled(spool)).collect()
    }

    fn metrics(&self) -> HttpResponse {
        (self.collect)();
        HttpResponse::Ok()
            .content_type("text/plain; version=0.0.4; charset=utf-8")
            .body(self.metrics.text())
    }
}

/// Whether the disk has not answered for so long that the events of another replica are better off.
fn stalled(spool: spool::LogState) -> Option<String> {
    let longest = spool.disk_works.max(spool.append_waits)?;
    (longest >= DISK_ANSWERS_WITHIN).then(|| format!("the disk has not answered for {} s", longest.as_secs()))
}

/// Of a probe, which comes with a connection of its own.
fn once(mut answer: HttpResponse) -> HttpResponse {
    answer.head_mut().set_connection_type(ConnectionType::Close);
    answer
}

fn text(status: StatusCode, text: String) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/plain; charset=utf-8")
        .body(text)
}

fn json_text(status: StatusCode, content_type: &'static str, document: &Value) -> HttpResponse {
    HttpResponse::build(status)
        .content_type(content_type)
        .body(format!("{document:#}\n"))
}

fn problem(status: StatusCode, code: &str, detail: &str) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("application/problem+json")
        .body(http::problem(status, code, detail))
}
