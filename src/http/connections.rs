//! The open connections of a server: how many there may be, and which one goes when one more comes.
//!
//! The sender's connections must never be shut out by a stranger's, and a stranger cannot make a verified request. So
//! at the limit the new connection is let in, and the one that has never carried a verified request and was idle for
//! longest is closed for it; a connection that has carried one goes only when there is no other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, RwLock};
use prometheus::IntGauge;

use super::metrics::{CloseReason, ConnectionMetrics};
use crate::config::IpNetwork;

/// In place of the time since when a connection is idle: it is not.
const BUSY: u64 = u64::MAX;
/// Of the connections that could go, so many of the oldest are compared.
const CANDIDATES_MAX: usize = 64;
/// Beside a server's connections there may be some that were told to close and have not yet, one for so many; with more
/// of them a new one is refused.
const CONNECTIONS_PER_CLOSING: usize = 8;
const CLOSING_MIN: usize = 16;

/// How many connections there may be.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimits {
    pub connections_max: usize,
    /// Of one client, `trusted_proxies` not counted.
    pub per_client_max: usize,
    /// Bytes of unfinished heads, of all connections together.
    pub heads_bytes_max: u64,
    pub trusted_proxies: Vec<IpNetwork>,
}

/// All open connections of a server.
pub(crate) struct OpenConnectionSet {
    limits: RwLock<ConnectionLimits>,
    metrics: ConnectionMetrics,
    epoch: Instant,
    open: Mutex<OpenConnections>,
    heads_bytes: AtomicU64,
    stopping: AtomicBool,
}

#[derive(Default)]
struct OpenConnections {
    next_id: u64,
    all: HashMap<u64, Arc<OpenConnection>>,
    /// Those that have never carried a verified request, oldest first.
    unverified: BTreeMap<u64, Arc<OpenConnection>>,
    /// Of clients that come through no trusted proxy, or are named by one.
    clients: HashMap<IpAddr, ClientConnections>,
    closing: usize,
}

/// The connections of one client.
#[derive(Default)]
struct ClientConnections {
    count: usize,
    /// Those that are its own, not a proxy's, and have never carried a verified request.
    unverified: BTreeSet<u64>,
}

/// What is known of an open connection on every thread.
pub(crate) struct OpenConnection {
    /// Milliseconds from the epoch to the moment since when it is idle, or [`BUSY`].
    idle_since_ms: AtomicU64,
    verified: AtomicBool,
    closing: AtomicBool,
    waker: AtomicWaker,
}

/// A connection's place among the open ones, for as long as it is open.
pub(crate) struct ConnectionPlace {
    id: u64,
    connection: Arc<OpenConnection>,
    connections: Arc<OpenConnectionSet>,
    /// Whose connection it is counted as.
    client: Mutex<Option<IpAddr>>,
}

/// The client has as many connections as one may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientFull;

impl OpenConnectionSet {
    pub fn new(limits: ConnectionLimits, metrics: ConnectionMetrics) -> Arc<Self> {
        metrics.limits(&limits);
        Arc::new(Self {
            limits: RwLock::new(limits),
            metrics,
            epoch: Instant::now(),
            open: Mutex::default(),
            heads_bytes: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        })
    }

    /// From here on these limits hold, for connections that come.
    pub fn limit(&self, limits: ConnectionLimits) {
        self.metrics.limits(&limits);
        *self.limits.write() = limits;
    }

    fn connections_max(&self) -> usize {
        self.limits.read().connections_max
    }

    fn per_client_max(&self) -> usize {
        self.limits.read().per_client_max
    }

    pub fn is_trusted(&self, address: IpAddr) -> bool {
        self.limits
            .read()
            .trusted_proxies
            .iter()
            .any(|network| network.contains(address))
    }

    /// Gives a new connection a place, for which another one may have to go. `None`: there is none, and it is closed.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionPlace> {
        let client = (!self.is_trusted(peer)).then(|| client_key(peer));
        let mut open = self.open.lock();
        if let Some(client) = client
            && open.count(client) >= self.per_client_max()
        {
            let victim = open.least_missed_of(client);
            if !self.make_room(&mut open, victim) {
                self.metrics.closed(CloseReason::ClientLimit);
                return None;
            }
        } else if open.all.len() - open.closing >= self.connections_max() {
            let victim = open.least_missed();
            if !self.make_room(&mut open, victim) {
                self.metrics.closed(CloseReason::Refused);
                return None;
            }
        }
        let connection = Arc::new(OpenConnection {
            idle_since_ms: AtomicU64::new(self.now_ms()),
            verified: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let id = open.next_id;
        open.next_id += 1;
        open.all.insert(id, Arc::clone(&connection));
        open.unverified.insert(id, Arc::clone(&connection));
        if let Some(client) = client {
            let own = open.clients.entry(client).or_default();
            own.count += 1;
            own.unverified.insert(id);
        }
        self.metrics.open(open.all.len());
        Some(ConnectionPlace {
            id,
            connection,
            connections: Arc::clone(self),
            client: Mutex::new(client),
        })
    }

    /// Has this connection closed, if there is one, and not too many are closing already.
    fn make_room(&self, open: &mut OpenConnections, victim: Option<Arc<OpenConnection>>) -> bool {
        let Some(victim) = victim.filter(|_| open.closing < closing_max(self.connections_max())) else {
            return false;
        };
        if victim.close() {
            open.closing += 1;
            self.metrics.closed(CloseReason::MadeRoom);
        }
        true
    }

    /// Counts bytes of an unfinished head. Over the limit, the connection that is missed least goes.
    pub(super) fn add_head_bytes(&self, bytes: u64) {
        let before = self.heads_bytes.fetch_add(bytes, Ordering::Relaxed);
        let heads_bytes_max = self.limits.read().heads_bytes_max;
        if before + bytes > heads_bytes_max {
            let mut open = self.open.lock();
            let victim = open.least_missed();
            self.make_room(&mut open, victim);
        }
    }

    pub(super) fn remove_head_bytes(&self, bytes: u64) {
        self.heads_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn close_reason(&self, reason: CloseReason) {
        self.metrics.closed(reason);
    }

    /// Brings the metrics of the limits up to date.
    pub fn observe(&self) {
        let open = self.open.lock();
        self.metrics.open(open.all.len());
        let busiest = open.clients.values().map(|client| client.count).max().unwrap_or(0);
        self.metrics.busiest_client.set(as_gauge(busiest));
        let heads_bytes = self.heads_bytes.load(Ordering::Relaxed);
        self.metrics.heads_bytes.set(as_gauge(heads_bytes));
    }

    pub fn any(&self) -> bool {
        !self.open.lock().all.is_empty()
    }

    /// Closes those that have been idle for so long.
    pub fn close_idle_for(&self, idle_max: Duration) {
        let now_ms = self.now_ms();
        let idle_max_ms = u64::try_from(idle_max.as_millis()).unwrap_or(u64::MAX);
        let mut open = self.open.lock();
        let closed = (open.all.values())
            .filter(|connection| {
                let since_ms = connection.idle_since_ms();
                since_ms != BUSY && now_ms.saturating_sub(since_ms) >= idle_max_ms && connection.close()
            })
            .count();
        open.closing += closed;
    }

    /// From now on a connection that ends does not wait for its peer to read the answer.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        for connection in self.open.lock().all.values() {
            connection.waker.wake();
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(BUSY - 1)
    }
}

impl OpenConnections {
    fn count(&self, client: IpAddr) -> usize {
        self.clients.get(&client).map_or(0, |client| client.count)
    }

    /// The connection `id` is this client's no more.
    fn forget(&mut self, client: IpAddr, id: u64) {
        if let Some(own) = self.clients.get_mut(&client) {
            own.count -= 1;
            own.unverified.remove(&id);
            if own.count == 0 {
                self.clients.remove(&client);
            }
        }
    }

    /// The oldest of a client's own connections that were never verified, if it is idle; else the oldest of them.
    fn least_missed_of(&self, client: IpAddr) -> Option<Arc<OpenConnection>> {
        let own = self.clients.get(&client)?.unverified.iter();
        let open = own
            .filter_map(|id| self.unverified.get(id))
            .filter(|connection| !connection.is_closing());
        let mut candidates = open.take(CANDIDATES_MAX).peekable();
        let oldest = candidates.peek().copied();
        let idle = candidates.find(|connection| connection.idle_since_ms() != BUSY);
        idle.or(oldest).map(Arc::clone)
    }

    /// Of those that were never verified the one that is idle for longest, else the oldest that is not idle; then, of
    /// all others, the one that is idle for longest.
    fn least_missed(&self) -> Option<Arc<OpenConnection>> {
        let open = |connection: &&Arc<OpenConnection>| !connection.is_closing();
        let idle = |connection: &&Arc<OpenConnection>| connection.idle_since_ms() != BUSY;
        let longest_idle = |connections: &mut dyn Iterator<Item = &Arc<OpenConnection>>| {
            connections
                .min_by_key(|connection| connection.idle_since_ms())
                .map(Arc::clone)
        };
        let mut unverified = self.unverified.values().filter(open);
        longest_idle(&mut self.unverified.values().filter(open).filter(idle).take(CANDIDATES_MAX))
            .or_else(|| unverified.next().map(Arc::clone))
            .or_else(|| longest_idle(&mut self.all.values().filter(open).filter(idle)))
    }
}

impl OpenConnection {
    fn idle_since_ms(&self) -> u64 {
        self.idle_since_ms.load(Ordering::Relaxed)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Has the connection closed by the thread that serves it; whether it was open.
    fn close(&self) -> bool {
        let was_open = !self.closing.swap(true, Ordering::Relaxed);
        self.waker.wake();
        was_open
    }

    /// Wakes this task when the connection is to close.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

impl ConnectionPlace {
    pub(super) fn connection(&self) -> &OpenConnection {
        &self.connection
    }

    pub(super) fn connections(&self) -> &Arc<OpenConnectionSet> {
        &self.connections
    }

    pub fn is_verified(&self) -> bool {
        self.connection.verified.load(Ordering::Relaxed)
    }

    /// The connection has carried a verified request.
    pub fn verified(&self) {
        if !self.connection.verified.swap(true, Ordering::Relaxed) {
            let mut open = self.connections.open.lock();
            open.unverified.remove(&self.id);
            if let Some(client) = *self.client.lock()
                && let Some(own) = open.clients.get_mut(&client)
            {
                own.unverified.remove(&self.id);
            }
        }
    }

    pub(super) fn busy(&self) {
        self.connection.idle_since_ms.store(BUSY, Ordering::Relaxed);
    }

    pub(super) fn idle(&self) {
        let now_ms = self.connections.now_ms();
        self.connection.idle_since_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Counts the connection as this client's, whom a trusted proxy names.
    pub fn attribute(&self, client: IpAddr) -> Result<(), ClientFull> {
        let client = client_key(client);
        if *self.client.lock() == Some(client) {
            return Ok(());
        }
        let mut open = self.connections.open.lock();
        let mut counted = self.client.lock();
        if open.count(client) >= self.connections.per_client_max() {
            return Err(ClientFull);
        }
        open.clients.entry(client).or_default().count += 1;
        if let Some(before) = counted.replace(client) {
            open.forget(before, self.id);
        }
        Ok(())
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        open.all.remove(&self.id);
        open.unverified.remove(&self.id);
        if self.connection.is_closing() {
            open.closing -= 1;
        }
        if let Some(client) = *self.client.lock() {
            open.forget(client, self.id);
        }
        self.connections.metrics.open(open.all.len());
    }
}

/// How many connections may be closing beside so many that are open.
pub(super) fn closing_max(connections_max: usize) -> usize {
    CLOSING_MIN + connections_max / CONNECTIONS_PER_CLOSING
}

/// Whom an address counts as: itself, and of IPv6 its network of 64 bits, which is what one host has.
fn client_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address @ IpAddr::V4(_) => address,
    }
}

pub(super) fn as_gauge(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// A limit and its use, as metrics.
pub(crate) fn observe_limit(used: &IntGauge, max: &IntGauge, now: u64, limit: u64) {
    used.set(as_gauge(now));
    max.set(as_gauge(limit));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        http::metrics::{ServerLabel, ServerMetrics},
        telemetry::Metrics,
    };

    fn connections(connections_max: usize, per_client_max: usize) -> Arc<OpenConnectionSet> {
        let limits = ConnectionLimits {
            connections_max,
            per_client_max,
            heads_bytes_max: 100,
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        };
        OpenConnectionSet::new(
            limits,
            ConnectionMetrics::new(ServerLabel::Public, &ServerMetrics::register(&Metrics::new())),
        )
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn at_the_limit_the_unverified_one_that_is_idle_for_longest_goes() {
        let connections = connections(3, 10);
        let admit = || connections.admit(address("192.0.2.1")).unwrap();
        let (verified, early, late) = (admit(), admit(), admit());
        verified.verified();
        early.connection.idle_since_ms.store(50, Ordering::Relaxed);
        late.connection.idle_since_ms.store(40, Ordering::Relaxed);
        verified.connection.idle_since_ms.store(0, Ordering::Relaxed);

        let third = admit();
        assert!(late.connection.is_closing(), "it was idle for longest");
        third.busy();
        let fourth = admit();
        assert!(early.connection.is_closing());
        fourth.busy();
        let _fifth = admit();
        assert!(third.connection.is_closing(), "of those that are not idle the oldest");
        assert!(!verified.connection.is_closing());
    }

    #[test]
    fn a_verified_connection_goes_when_there_is_no_other() {
        let connections = connections(1, 10);
        let verified = connections.admit(address("192.0.2.1")).unwrap();
        verified.verified();
        let newcomer = connections.admit(address("192.0.2.2"));
        assert!(newcomer.is_some() && verified.connection.is_closing());
    }

    #[test]
    fn those_that_are_closing_are_bounded() {
        let connections = connections(1, 1000);
        let places: Vec<_> = (0..200).map(|_| connections.admit(address("192.0.2.1"))).collect();
        let admitted = places.iter().flatten().count();
        assert_eq!(admitted, 1 + closing_max(1));
        drop(places);
        assert!(!connections.any());
        assert_eq!(connections.open.lock().closing, 0);
        assert!(connections.admit(address("192.0.2.1")).is_some());
    }

    #[test]
    fn one_client_has_only_so_many_and_a_trusted_proxy_any_number() {
        let connections = connections(100, 2);
        let admit = |text| connections.admit(address(text));
        let held = [admit("192.0.2.1").unwrap(), admit("192.0.2.1").unwrap()];
        let third = admit("192.0.2.1").unwrap();
        assert!(held[0].connection.is_closing() && !held[1].connection.is_closing());
        held[1].verified();
        third.verified();
        assert!(admit("192.0.2.1").is_none(), "those that were verified stay");
        assert!(admit("192.0.2.2").is_some());
        let v6 = [admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap()];
        v6.iter().for_each(ConnectionPlace::verified);
        assert!(admit("2001:db8::3").is_none(), "the same network of 64 bits");
        assert!(admit("2001:db8:0:1::3").is_some());
        drop((held, third, v6));
        assert!(admit("192.0.2.1").is_some());

        let proxied: Vec<_> = (0..3).map(|_| admit("10.1.1.1").unwrap()).collect();
        let client = address("203.0.113.5");
        assert_eq!(proxied[0].attribute(client), Ok(()));
        assert_eq!(proxied[1].attribute(client), Ok(()));
        assert_eq!(proxied[0].attribute(client), Ok(()), "it is counted once");
        assert_eq!(proxied[2].attribute(client), Err(ClientFull));
        assert_eq!(proxied[1].attribute(address("203.0.113.6")), Ok(()));
        assert_eq!(
            proxied[2].attribute(client),
            Ok(()),
            "the other one serves somebody else"
        );
    }

    #[test]
    fn unfinished_heads_are_bounded_together() {
        let connections = connections(10, 10);
        let place = connections.admit(address("192.0.2.1")).unwrap();
        connections.add_head_bytes(100);
        assert!(!place.connection.is_closing());
        connections.add_head_bytes(1);
        assert!(place.connection.is_closing());
    }
}
