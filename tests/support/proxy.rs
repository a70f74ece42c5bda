//! What stands before several replicas of Forebay: a proxy that gives each request, not each connection, to the next of
//! them.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

type Connection = BufReader<TcpStream>;

/// A running proxy. It ends when this is dropped.
pub struct RoundRobin {
    pub address: SocketAddr,
    backends: Arc<Backends>,
    task: JoinHandle<()>,
}

/// Whose turn it is.
struct Backends {
    addresses: Mutex<Vec<SocketAddr>>,
    turn: AtomicUsize,
}

impl Backends {
    fn next(&self) -> io::Result<SocketAddr> {
        let addresses = self.addresses.lock().expect("no panic under the lock");
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let next = turn.checked_rem(addresses.len()).map(|index| addresses[index]);
        next.ok_or_else(|| io::Error::other("no backend"))
    }
}

impl RoundRobin {
    /// Listens on a port of its own.
    pub async fn start(backends: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backends = Arc::new(Backends {
            addresses: Mutex::new(backends),
            turn: AtomicUsize::new(0),
        });
        let known = backends.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let backends = known.clone();
                // A connection that fails is closed: the sender counts what it got no answer to.
                tokio::spawn(async move { serve(client, &backends).await });
            }
        });
        Self {
            address,
            backends,
            task,
        }
    }

    /// From now on requests go to these.
    pub fn switch(&self, backends: Vec<SocketAddr>) {
        *self.backends.addresses.lock().expect("no panic under the lock") = backends;
    }
}

impl Drop for RoundRobin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Hands on request after request, and answer after answer, with a connection to each backend.
async fn serve(client: TcpStream, backends: &Backends) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = BufReader::new(client);
    let mut connections: HashMap<SocketAddr, Connection> = HashMap::new();
    while let Some(request) = message(&mut client).await? {
        let next = backends.next()?;
        let mut backend = match connections.remove(&next) {
            Some(connection) => connection,
            None => connect(next).await?,
        };
        backend.get_mut().write_all(&request.bytes).await?;
        let answer = message(&mut backend).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        client.get_mut().write_all(&answer.bytes).await?;
        if answer.closes {
            return Ok(());
        }
        connections.insert(next, backend);
    }
    Ok(())
}

async fn connect(backend: SocketAddr) -> io::Result<Connection> {
    let connection = TcpStream::connect(backend).await?;
    connection.set_nodelay(true)?;
    Ok(BufReader::new(connection))
}

struct Message {
    bytes: Vec<u8>,
    /// It is the connection's last.
    closes: bool,
}

/// A request or an answer whose head says how long it is; `None` at the end of the connection.
async fn message(from: &mut Connection) -> io::Result<Option<Message>> {
    let mut message = Vec::new();
    let (mut length, mut closes) = (0, false);
    loop {
        let line_at = message.len();
        if from.read_until(b'\n', &mut message).await? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&message[line_at..]).to_ascii_lowercase();
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        }
        closes |= line.trim_end() == "connection: close";
    }
    let head = message.len();
    message.resize(head + length, 0);
    from.read_exact(&mut message[head..]).await?;
    Ok(Some(Message { bytes: message, closes }))
}
