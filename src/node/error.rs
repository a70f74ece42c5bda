//! Why Forebay does not start, or ends.

use std::{io, path::PathBuf};

use crate::{admin, ingress, spool::OpenError, telemetry::traces::SetupError};

/// Why Forebay did not start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("failed to open the spool: {0}")]
    Spool(#[from] OpenError),
    #[error("failed to keep {path}: {source}")]
    KeptFile { path: PathBuf, source: io::Error },
    #[error(
        "the spool {dir} holds what route {route:?} has not published, and the configuration has no such route; either \
         put the route back, or give that up: spool.abandon_routes = [{route:?}]"
    )]
    CursorWithoutRoute { dir: PathBuf, route: String },
    #[error(
        "route {route:?} has {records} records that it cannot publish ({reason}), and the configuration has no such route; \
         either put the route back, or give that up: spool.abandon_routes = [{route:?}]"
    )]
    RouteCannotEnd {
        route: String,
        records: u64,
        reason: &'static str,
    },
    #[error(
        "route {0:?} is paused: it is drained once it goes on; `forebay routes resume {0}` with the same configuration"
    )]
    RoutePaused(String),
    #[error("endpoint {endpoint}: no secret can be read: {text}")]
    Secret { endpoint: String, text: String },
    #[error(
        "the process may open {allowed} files, and {routes} routes, the log and a few connections need more than {needed}; raise the limit \
         (LimitNOFILE=, ulimit -n), or have fewer routes"
    )]
    Descriptors { allowed: u64, needed: u64, routes: usize },
    #[error("failed to listen: {0}")]
    Ingress(#[from] ingress::IngressBindError),
    #[error("failed to listen for the operator: {0}")]
    Admin(#[from] admin::AdminBindError),
    #[error("failed to set up sink {sink:?}: {text}")]
    Sink { sink: String, text: String },
    #[error("failed to set up tracing: {0}")]
    Tracing(#[from] SetupError),
    #[error("failed to listen for signals: {0}")]
    Signals(io::Error),
    #[error("failed to start a thread: {0}")]
    Thread(io::Error),
    #[error("spool.dir: there is no spool in {0}: nothing was ever taken in there")]
    NoSpool(PathBuf),
}

/// Why a running Forebay ended before it was told to, or not as it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the disk failed: {0}; everything acknowledged is on it, and the next start recovers it")]
    Disk(String),
    #[error("{0} ended, which is a bug")]
    Bug(String),
    #[error("told to stop a second time; what is not published stays in the spool")]
    StoppedAtOnce,
}
