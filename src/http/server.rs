//! A server that has its address, and what stops it once it runs.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_http::{HttpService, KeepAlive};
use actix_server::{Server, ServerHandle};
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::{
    App, HttpRequest, HttpResponse,
    dev::{AppConfig, Payload},
    http::{
        ConnectionType,
        header::{HeaderName, HeaderValue},
    },
    web,
};
use futures_util::future::{BoxFuture, FutureExt, ready};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep},
};

use super::{connections::OpenConnectionSet, link::ConnectionLink, stream::GuardedStream};

/// With no connection open for this long after accepting was paused, none is on its way from the acceptor to a worker.
const QUIET: Duration = Duration::from_millis(200);
const QUIET_INTERVAL: Duration = Duration::from_millis(20);
/// A connection that is let go may be silent for this long: what it is about to send is still answered.
const SILENT_MAX: Duration = Duration::from_secs(1);
/// How often the metrics of the limits are brought up to date.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);
/// An answer promises to keep the connection for this much less than it is kept.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// How a server treats its connections.
#[derive(Debug, Clone)]
pub(crate) struct ServerOptions {
    pub workers: usize,
    /// Connections that wait for being accepted.
    pub backlog_connections: u32,
    /// How long a connection is kept between an answer and the next request.
    pub keep_alive: Duration,
    /// Trusted proxies begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// How long a stop waits for requests that have begun.
    pub shutdown_deadline: Duration,
}

/// A server, listening; connections wait in the backlog until it runs.
pub struct BoundServer {
    addresses: Vec<SocketAddr>,
    handle: BoundServerHandle,
    serving: BoxFuture<'static, io::Result<()>>,
}

/// Stops a running server.
#[derive(Clone)]
pub struct BoundServerHandle {
    server: ServerHandle,
    connections: Arc<OpenConnectionSet>,
}

impl BoundServerHandle {
    /// Closes the listener, and lets requests that have begun finish, for at most the server's shutdown deadline.
    pub async fn stop(&self) {
        self.connections.stop();
        self.server.stop(true).await;
    }

    /// Stops accepting, and returns when every connection that was accepted has been answered and is closed: what
    /// connects from now on waits for whoever has the listening socket next.
    pub async fn let_go(&self) {
        self.server.pause().await;
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < QUIET {
            sleep(QUIET_INTERVAL).await;
            if self.connections.any() {
                self.connections.close_idle_for(SILENT_MAX);
                quiet_since = Instant::now();
            }
        }
    }
}

impl BoundServer {
    /// The addresses that were bound; where port 0 was asked for, with the port that it became.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Has `task` run while the server does.
    pub(crate) fn beside(self, task: impl Future<Output = ()> + Send + 'static) -> Self {
        let serving = self.serving;
        let serving = async move {
            tokio::select! {
                result = serving => result,
                () = task => unreachable!("what runs beside a server does not end"),
            }
        };
        Self {
            serving: serving.boxed(),
            ..self
        }
    }

    pub fn handle(&self) -> BoundServerHandle {
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

/// A server on `listener` that answers by what `handler` makes, which it calls on each worker's own thread.
///
/// A request is in hand until the handler's future ends; the next one of its connection is not read before.
///
/// # Errors
///
/// The socket cannot be listened on.
pub(crate) fn serve<M, H, F>(
    listener: TcpListener,
    options: &ServerOptions,
    connections: Arc<OpenConnectionSet>,
    handler: M,
) -> io::Result<BoundServer>
where
    M: Fn() -> H + Clone + Send + 'static,
    H: Fn(HttpRequest, Payload) -> F + Clone + 'static,
    F: Future<Output = HttpResponse> + 'static,
{
    let builder = Server::build()
        .workers(options.workers)
        // How many connections there are is decided when they are here, not by leaving them in the backlog.
        .max_concurrent_connections(usize::MAX >> 8)
        .backlog(options.backlog_connections)
        .disable_signals()
        .shutdown_timeout(options.shutdown_deadline.as_secs().max(1));
    let shutdown = builder.graceful_shutdown_signal();
    let address = listener.local_addr()?;
    let registry = Arc::clone(&connections);
    let (keep_alive, proxy_protocol) = (options.keep_alive, options.proxy_protocol);
    let builder = builder.listen(format!("http {address}"), listener, move || {
        let handler = handler();
        let hint = keep_alive_hint(keep_alive);
        let app = App::new().default_service(web::to(move |request: HttpRequest, payload: web::Payload| {
            let (link, hint) = (link(&request), hint.clone());
            let answering = link.answering();
            let answer = handler(request, payload.into_inner());
            async move {
                let mut response = answer.await;
                if response.head().connection_type() == ConnectionType::KeepAlive
                    && let Some(hint) = hint
                {
                    response.headers_mut().insert(KEEP_ALIVE, hint);
                }
                drop(answering);
                response
            }
        }));
        let app = app.into_factory().map_err(|error| error.error_response());
        let shutdown = shutdown.clone();
        // Times and pipelining are the stream's to hold, so actix-web's own are off.
        let http = HttpService::<GuardedStream, _, _>::build()
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(Duration::ZERO)
            .local_addr(address)
            .graceful_shutdown_signal(move || {
                let signal = shutdown.clone();
                async move { signal.notified().await }
            })
            .on_connect_ext(|stream: &GuardedStream, extensions| {
                extensions.insert(stream.link());
            })
            .h1(map_config(app, |()| AppConfig::default()));
        let registry = Arc::clone(&registry);
        fn_service(move |tcp: TcpStream| {
            let accepted = accept(tcp, &registry, keep_alive, proxy_protocol);
            ready(accepted.ok_or(()))
        })
        .and_then(http.map_err(|error| tracing::debug!(%error, "a connection ended")))
    })?;
    let server = builder.run();
    let handle = BoundServerHandle {
        server: server.handle(),
        connections: Arc::clone(&connections),
    };
    let bound = BoundServer {
        addresses: vec![address],
        handle,
        serving: server.boxed(),
    };
    Ok(bound.beside(async move { observe(&connections).await }))
}

/// The guard of a request's connection.
pub(crate) fn link(request: &HttpRequest) -> Rc<ConnectionLink> {
    let link = request.conn_data::<Rc<ConnectionLink>>();
    Rc::clone(link.expect("every connection is guarded"))
}

/// The connection with its guard, and the peer's address; `None`: there is no place for it.
fn accept(
    tcp: TcpStream,
    connections: &Arc<OpenConnectionSet>,
    keep_alive: Duration,
    proxy_protocol: bool,
) -> Option<(GuardedStream, Option<SocketAddr>)> {
    let peer = tcp.peer_addr().ok()?;
    tcp.set_nodelay(true).ok()?;
    let stream = GuardedStream::accept(tcp, peer, connections, keep_alive, proxy_protocol)?;
    Some((stream, Some(peer)))
}

/// What an answer says of how long its connection is kept; `None`: too short a time to promise anything.
fn keep_alive_hint(keep_alive: Duration) -> Option<HeaderValue> {
    let promised_s = keep_alive.checked_sub(KEEP_ALIVE_MARGIN)?.as_secs();
    let hint = HeaderValue::from_str(&format!("timeout={promised_s}"));
    hint.ok().filter(|_| promised_s > 0)
}

async fn observe(connections: &OpenConnectionSet) {
    loop {
        connections.observe();
        sleep(OBSERVE_INTERVAL).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_promised_than_is_kept() {
        for (keep_alive_ms, expected) in [
            (75_000, Some("timeout=74")),
            (2000, Some("timeout=1")),
            (1500, None),
            (0, None),
        ] {
            let hint = keep_alive_hint(Duration::from_millis(keep_alive_ms));
            assert_eq!(
                hint.as_ref().map(|hint| hint.to_str().unwrap()),
                expected,
                "{keep_alive_ms}"
            );
        }
    }
}
