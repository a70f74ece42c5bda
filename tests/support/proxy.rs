//! What stands before several replicas of Forebay: a proxy that gives each request, not each connection, to the next of them.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
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
    task: JoinHandle<()>,
}

impl RoundRobin {
    /// Listens on a port of its own.
    pub async fn start(backends: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backends: Arc<[SocketAddr]> = backends.into();
        let turn = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (backends, turn) = (backends.clone(), turn.clone());
                // A connection that fails is closed: the sender counts what it got no answer to.
                tokio::spawn(async move { serve(client, &backends, &turn).await });
            }
        });
        Self { address, task }
    }
}

impl Drop for RoundRobin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Hands on request after request, and answer after answer, with a connection to each backend.
async fn serve(client: TcpStream, backends: &[SocketAddr], turn: &AtomicUsize) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = BufReader::new(client);
    let mut connections: Vec<Option<Connection>> = backends.iter().map(|_| None).collect();
    while let Some(request) = message(&mut client).await? {
        let next = turn.fetch_add(1, Ordering::Relaxed) % backends.len();
        let mut backend = match connections[next].take() {
            Some(connection) => connection,
            None => connect(backends[next]).await?,
        };
        backend.get_mut().write_all(&request).await?;
        let answer = message(&mut backend).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        client.get_mut().write_all(&answer).await?;
        connections[next] = Some(backend);
    }
    Ok(())
}

async fn connect(backend: SocketAddr) -> io::Result<Connection> {
    let connection = TcpStream::connect(backend).await?;
    connection.set_nodelay(true)?;
    Ok(BufReader::new(connection))
}

/// A request or an answer whose head says how long it is; `None` at the end of the connection.
async fn message(from: &mut Connection) -> io::Result<Option<Vec<u8>>> {
    let mut message = Vec::new();
    let mut length = 0;
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
    }
    let head = message.len();
    message.resize(head + length, 0);
    from.read_exact(&mut message[head..]).await?;
    Ok(Some(message))
}
