//! How Forebay listens: servers of HTTP/1.1 on actix-web, whose connections nobody can use up.
//!
//! A request goes from the socket through [`stream`], which hands on one at a time and keeps the connection's times, to
//! actix-web, and from there to the server's handler. [`connections`] decides which connection goes when there are too
//! many. Both servers, the senders' and the operator's, are made by [`serve`].

mod client;
mod connections;
mod framing;
mod linger;
mod link;
mod metrics;
mod problem;
mod proxy_protocol;
mod server;
mod stream;

pub(crate) use client::client;
pub(crate) use connections::{ConnectionLimits, OpenConnectionSet, observe_limit};
pub(crate) use link::ConnectionLink;
pub use metrics::ServerMetrics;
pub(crate) use metrics::{ConnectionMetrics, ServerLabel};
pub(crate) use problem::problem;
pub use server::{BoundServer, BoundServerHandle};
pub(crate) use server::{ServerOptions, link, listen, serve};
pub(crate) use stream::HEAD_BYTES_MAX;

/// How many files of the process a server with so many connections may have open: each connection its socket, and those
/// that are closing theirs.
pub(crate) fn files_for(connections_max: usize) -> usize {
    connections_max.saturating_add(connections::closing_max(connections_max))
}
