//! A server that has its address, and what stops it once it runs.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use actix_web::dev::ServerHandle;
use futures_util::future::{BoxFuture, FutureExt};
use tokio::net::TcpSocket;

/// A server, listening; connections wait in the backlog until it runs.
pub struct Bound {
    addresses: Vec<SocketAddr>,
    handle: Handle,
    serving: BoxFuture<'static, io::Result<()>>,
}

/// Stops a running server.
#[derive(Clone)]
pub struct Handle(ServerHandle);

impl Handle {
    /// Closes the listener, and lets requests that have begun finish, for at most the server's shutdown timeout.
    pub async fn stop(&self) {
        self.0.stop(true).await;
    }
}

impl Bound {
    /// `serving`: ends when `handle` stops the server.
    pub(crate) fn new(
        addresses: Vec<SocketAddr>,
        handle: ServerHandle,
        serving: impl Future<Output = io::Result<()>> + Send + 'static,
    ) -> Self {
        Self {
            addresses,
            handle: Handle(handle),
            serving: serving.boxed(),
        }
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

/// Listens on `address`, at once again after a restart.
pub(crate) fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)?.into_std()
}
