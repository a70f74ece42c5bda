//! The guard of connections.
//!
//! actix-web gives a connection's first head a deadline, and an idle connection one, but none to a later head of which
//! a part has come: such a connection would stay open for ever. From the outside it looks idle, for longer than an idle
//! connection may be; that is how it is recognised. Closing is by a second descriptor of the same socket.

use std::{
    any::Any,
    collections::HashMap,
    io,
    net::{Shutdown, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::dev::Extensions;
use parking_lot::Mutex;
use prometheus::IntGauge;

use super::KEEP_ALIVE;

/// No request for this long, and still open: stuck.
const IDLE_MAX: Duration = KEEP_ALIVE.saturating_add(Duration::from_secs(2));
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// In place of the time since when a connection is idle: it is not.
const BUSY: u64 = u64::MAX;

/// All open connections.
pub(super) struct Connections {
    epoch: Instant,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    gauge: IntGauge,
}

struct Connection {
    socket: TcpStream,
    /// Milliseconds from the epoch to the moment since when it is idle, or [`BUSY`].
    idle_since_ms: AtomicU64,
}

/// A connection's entry, for as long as the connection is open.
pub(super) struct Entry {
    id: u64,
    connection: Arc<Connection>,
    connections: Arc<Connections>,
}

/// A connection has a request in hand until this is dropped.
pub(super) struct Busy<'a>(&'a Entry);

impl Connections {
    pub fn new(gauge: IntGauge) -> Self {
        Self {
            epoch: Instant::now(),
            open: Mutex::default(),
            next: AtomicU64::new(0),
            gauge,
        }
    }

    /// Enters a new connection. One that cannot be entered gets no [`Entry`]: it must close after its first answer.
    pub fn enter(self: &Arc<Self>, stream: &dyn Any, extensions: &mut Extensions) {
        let stream = stream
            .downcast_ref::<tokio::net::TcpStream>()
            .expect("the server listens on plain TCP only");
        match stream.as_fd().try_clone_to_owned() {
            Ok(socket) => {
                extensions.insert(self.entry(socket));
            }
            Err(error) => tracing::warn!(%error, "a connection cannot be watched and closes after one request"),
        }
    }

    fn entry(self: &Arc<Self>, socket: OwnedFd) -> Entry {
        let connection = Arc::new(Connection {
            socket: TcpStream::from(socket),
            idle_since_ms: AtomicU64::new(self.now_ms()),
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(id, Arc::clone(&connection));
        self.gauge.inc();
        Entry {
            id,
            connection,
            connections: Arc::clone(self),
        }
    }

    /// Closes, for ever, what is stuck.
    pub async fn watch(&self) {
        let mut interval = tokio::time::interval(WATCH_INTERVAL);
        loop {
            interval.tick().await;
            let closed = self.close_idle_for(IDLE_MAX);
            if closed > 0 {
                tracing::info!(closed, "closed connections with half a request's head");
            }
        }
    }

    pub fn any(&self) -> bool {
        !self.open.lock().is_empty()
    }

    /// Closes those that have been idle for so long, and tells how many they were.
    pub fn close_idle_for(&self, idle_max: Duration) -> usize {
        let now_ms = self.now_ms();
        let idle_max_ms = u64::try_from(idle_max.as_millis()).unwrap_or(u64::MAX);
        let open = self.open.lock();
        open.values()
            .filter(|connection| {
                let since_ms = connection.idle_since_ms.load(Ordering::Relaxed);
                since_ms != BUSY && now_ms.saturating_sub(since_ms) >= idle_max_ms && connection.close().is_ok()
            })
            .count()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(BUSY - 1)
    }
}

impl Connection {
    fn close(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Both)
    }
}

impl Entry {
    pub fn busy(&self) -> Busy<'_> {
        self.connection.idle_since_ms.store(BUSY, Ordering::Relaxed);
        Busy(self)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let Entry {
            connection,
            connections,
            ..
        } = self.0;
        connection.idle_since_ms.store(connections.now_ms(), Ordering::Relaxed);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.id);
        self.connections.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, net::TcpListener};

    use super::*;

    fn connected() -> (Arc<Connections>, Entry, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let connections = Arc::new(Connections::new(IntGauge::new("connections", "open").unwrap()));
        let entry = connections.entry(OwnedFd::from(socket));
        (connections, entry, peer)
    }

    #[test]
    fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
        let (connections, entry, mut peer) = connected();
        let busy = entry.busy();
        assert_eq!(connections.close_idle_for(Duration::ZERO), 0);
        drop(busy);
        assert_eq!(connections.close_idle_for(Duration::from_secs(60)), 0);
        assert_eq!(connections.close_idle_for(Duration::ZERO), 1);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the peer sees the end");
    }

    #[test]
    fn a_connection_that_ended_is_forgotten() {
        let (connections, entry, _peer) = connected();
        assert_eq!(connections.gauge.get(), 1);
        drop(entry);
        assert_eq!(connections.gauge.get(), 0);
        assert!(connections.open.lock().is_empty());
    }
}
