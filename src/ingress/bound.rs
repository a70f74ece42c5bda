//! A server that has its address, and what stops it once it runs.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::dev::ServerHandle;
use futures_util::future::{BoxFuture, FutureExt};
use tokio::{
    net::TcpSocket,
    time::{Instant, sleep},
};

use super::connections::Connections;

/// With no connection open for this long after accepting was paused, none is on its way from the acceptor to a worker.
const QUIET: Duration = Duration::from_millis(200);
const QUIET_INTERVAL: Duration = Duration::from_millis(20);
/// A connection that is let go may be silent for this long: what it is about to send is still answered.
const SILENT_MAX: Duration = Duration::from_secs(1);

/// A server, listening; connections wait in the backlog until it runs.
pub struct Bound {
    addresses: Vec<SocketAddr>,
    handle: Handle,
    serving: BoxFuture<'static, io::Result<()>>,
}

/// Stops a running server.
#[derive(Clone)]
pub struct Handle {
    server: ServerHandle,
    connections: Option<Arc<Connections>>,
}

impl Handle {
    /// Closes the listener, and lets requests that have begun finish, for at most the server's shutdown timeout.
    pub async fn stop(&self) {
        self.server.stop(true).await;
    }

    /// Stops accepting, and returns when every connection that was accepted has been answered and is closed: what connects from now on waits
    /// for whoever has the listening socket next.
    pub async fn let_go(&self) {
        self.server.pause().await;
        let Some(connections) = &self.connections else { return };
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < QUIET {
            sleep(QUIET_INTERVAL).await;
            if connections.any() {
                connections.close_idle_for(SILENT_MAX);
                quiet_since = Instant::now();
            }
        }
    }
}

impl Bound {
    /// `serving`: ends when `server` is stopped.
    pub(crate) fn new(
        addresses: Vec<SocketAddr>,
        server: ServerHandle,
        serving: impl Future<Output = io::Result<()>> + Send + 'static,
    ) -> Self {
        let connections = None;
        Self {
            addresses,
            handle: Handle { server, connections },
            serving: serving.boxed(),
        }
    }

    /// With its open connections, which [`Handle::let_go`] waits for.
    pub(super) fn with_connections(mut self, connections: Arc<Connections>) -> Self {
        self.handle.connections = Some(connections);
        self
    }

    /// The addresses that were bound; where port 0 was asked for, with the port that it became.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    ///
    /// The threads of the server could not be started.
    pub async fn run(self) -> io::Result<()> {
        self.serving.await
    }
}

/// The socket that was handed over, else one that listens on `address`.
pub(crate) fn listen(handed: Option<TcpListener>, address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    match handed {
        Some(socket) => Ok(socket),
        None => listen_on(address, backlog),
    }
}

/// Listens on `address`, at once again after a restart.
fn listen_on(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)?.into_std()
}
