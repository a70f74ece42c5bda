//! A connection to one of a sink's nodes, made within a deadline and ended within one.
//!
//! lapin has no deadline of its own for connecting, and a connection that is blocked never finishes its orderly close.
//! So the socket is opened here, and a second handle to it is kept: shutting it down ends lapin's thread, whatever it
//! waits for.

use std::{
    net::{Shutdown, TcpStream},
    ops::Deref,
    os::fd::AsFd as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties,
    tcp::{OwnedIdentity, OwnedTLSConfig},
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism},
};
use parking_lot::Mutex;
use tokio::{runtime::Handle, time::timeout};

use super::{
    failure::{self, FailureStage},
    uri::{self, AmqpNode},
};
use crate::failure::RabbitMqFailure;
use crate::settings;
use forebay_broker::{CertificateFile, CertificateUse};

/// From the name's resolution to the open virtual host, for one node.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// An orderly close gets this long.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// A node that is not heard of for twice as long is gone.
const HEARTBEAT_SECONDS: u16 = 10;

/// A connection. Dropping it closes it, without waiting.
pub struct BrokerLink {
    connection: Option<Connection>,
    socket: BrokerSocket,
    pub node: AmqpNode,
}

impl Deref for BrokerLink {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
            .as_ref()
            .expect("a link has its connection until it is closed")
    }
}

impl BrokerLink {
    /// Closes the connection: in order, if that goes quickly.
    pub async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            close(connection, self.socket.clone()).await;
        }
    }
}

impl Drop for BrokerLink {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let socket = self.socket.clone();
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(close(connection, socket))),
            Err(_) => socket.shut_down(),
        }
    }
}

async fn close(connection: Connection, socket: BrokerSocket) {
    if !connection.status().blocked() {
        // An error says that it is closed already.
        let _ = timeout(CLOSE_DEADLINE, connection.close(200, "OK".into())).await;
    }
    socket.shut_down();
}

/// A handle to the socket under a connection, once there is one.
#[derive(Clone)]
struct BrokerSocket(Arc<Mutex<StreamUnder>>);

struct StreamUnder {
    stage: FailureStage,
    stream: Option<TcpStream>,
}

impl BrokerSocket {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(StreamUnder {
            stage: FailureStage::Tcp,
            stream: None,
        })))
    }

    fn shut_down(&self) {
        if let Some(stream) = self.0.lock().stream.take() {
            // An error says that the peer was first.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// How a connection shows who it is.
struct BrokerLogin {
    name: String,
    password: String,
    external: bool,
}

impl BrokerLogin {
    fn read(config: &settings::RabbitMqConfig, node: &AmqpNode) -> Result<Self, settings::TextSourceError> {
        let read = |source: &Option<settings::TextSource>| source.as_ref().map(settings::TextSource::read).transpose();
        let name = read(&config.username)?.or_else(|| node.username.clone());
        let password = read(&config.password)?.or_else(|| node.password.clone());
        let external = name.is_none() && password.is_none() && config.tls.certificate_file.is_some();
        // AMQP's default user, as every client has it.
        Ok(Self {
            name: name.unwrap_or_else(|| if external { String::new() } else { "guest".into() }),
            password: password.unwrap_or_else(|| if external { String::new() } else { "guest".into() }),
            external,
        })
    }

    fn who(&self) -> String {
        if self.external {
            "the client certificate".into()
        } else {
            format!("user '{}'", self.name)
        }
    }
}

/// Connects to the first node that lets itself be connected to, beginning with `config.uris[first % len]`. What is in
/// files and in the environment is read anew. `purpose` is shown in RabbitMQ's list of connections.
///
/// `Err`: of the nodes' failures the one that tells most.
pub async fn connect(
    config: &settings::RabbitMqConfig,
    sink: &str,
    purpose: &str,
    first: usize,
) -> Result<BrokerLink, RabbitMqFailure> {
    let mut worst: Option<RabbitMqFailure> = None;
    let count = config.uris.len();
    for source in config.uris.iter().cycle().skip(first % count.max(1)).take(count) {
        match connect_node(config, source, sink, purpose).await {
            Ok(link) => return Ok(link),
            Err(found) => {
                if count > 1 {
                    tracing::debug!(sink, "the next node is tried: {found}");
                }
                if worst
                    .as_ref()
                    .is_none_or(|worst| found.cause.rank() > worst.cause.rank())
                {
                    worst = Some(found);
                }
            }
        }
    }
    Err(worst.unwrap_or_else(|| failure::configuration(sink, "no uri")))
}

async fn connect_node(
    config: &settings::RabbitMqConfig,
    source: &settings::TextSource,
    sink: &str,
    purpose: &str,
) -> Result<BrokerLink, RabbitMqFailure> {
    let wrong = |text: String| failure::configuration(sink, &text);
    let text = source.read().map_err(|error| wrong(format!("uri: {error}")))?;
    let node = uri::parse(&text).map_err(|error| wrong(format!("uri {source:?}: {error}")))?;
    let login = BrokerLogin::read(config, &node).map_err(|error| wrong(error.to_string()))?;
    let tls = if node.tls {
        let files = config.tls.clone();
        let read = tokio::task::spawn_blocking(move || read_tls(&files));
        read.await.expect("reading files does not panic").map_err(wrong)?
    } else {
        OwnedTLSConfig::default()
    };
    let socket = BrokerSocket::new();
    let connecting = open(&node, &login, tls, purpose, &socket);
    match timeout(CONNECT_DEADLINE, connecting).await {
        Ok(Ok(connection)) => Ok(BrokerLink {
            connection: Some(connection),
            socket,
            node,
        }),
        Ok(Err(error)) => {
            socket.shut_down();
            let stage = socket.0.lock().stage;
            Err(failure::of_connecting(&error, stage, sink, &node, &login.who()))
        }
        Err(_) => {
            socket.shut_down();
            let cause = match socket.0.lock().stage {
                FailureStage::Tcp => "no answer",
                FailureStage::Tls => "it accepts connections and does not speak TLS",
                FailureStage::Handshake => "it accepts connections and does not speak AMQP",
            };
            let cause = format!("{cause} within {} s", CONNECT_DEADLINE.as_secs());
            Err(failure::unreachable(sink, &node, &cause))
        }
    }
}

async fn open(
    node: &AmqpNode,
    login: &BrokerLogin,
    tls: OwnedTLSConfig,
    purpose: &str,
    socket: &BrokerSocket,
) -> lapin::Result<Connection> {
    let uri = AMQPUri {
        scheme: if node.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: login.name.clone(),
                password: login.password.clone(),
            },
            host: node.host.clone(),
            port: node.port,
        },
        vhost: node.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: Some(HEARTBEAT_SECONDS),
            auth_mechanism: login.external.then_some(SASLMechanism::External),
            ..AMQPQueryString::default()
        },
    };
    let properties = ConnectionProperties::default()
        .with_connection_name(purpose.into())
        .with_client_property("product".into(), "Forebay".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let (node, socket) = (node.clone(), socket.clone());
    let runtime = lapin::runtime::default_runtime()?;
    Connection::connector(
        uri,
        runtime,
        // On lapin's own thread, which must end too when nobody waits for the connection any more.
        async move |_, runtime| {
            let stream = timeout(CONNECT_DEADLINE, async {
                let addresses = tokio::net::lookup_host((node.host.as_str(), node.port)).await?;
                let mut refused = std::io::Error::other("its name has no address");
                for address in addresses {
                    match AsyncTcpStream::connect(&runtime, address).await {
                        Ok(stream) => return Ok(stream),
                        Err(error) => refused = error,
                    }
                }
                Err(refused)
            });
            let stream = stream
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                let stream = plain.get_ref().as_fd().try_clone_to_owned()?;
                let mut under = socket.0.lock();
                under.stream = Some(stream.into());
                under.stage = if node.tls {
                    FailureStage::Tls
                } else {
                    FailureStage::Handshake
                };
            }
            if !node.tls {
                return Ok(stream);
            }
            let secured = timeout(CONNECT_DEADLINE, stream.into_tls(&node.host, tls.as_ref())).await;
            let secured = secured.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
            socket.0.lock().stage = FailureStage::Handshake;
            Ok(secured)
        },
        properties,
    )
    .await
}

/// The files of certificates that the configuration names.
pub(crate) fn certificate_files(config: &settings::RabbitMqConfig) -> Vec<CertificateFile> {
    let own = config.tls.certificate_file.iter();
    let own = own.map(|path| CertificateFile::new(path, CertificateUse::Own));
    let authorities = config.tls.ca_file.iter();
    own.chain(authorities.map(|path| CertificateFile::new(path, CertificateUse::Authorities)))
        .collect()
}

/// What is trusted, and the client's own certificate. `Err` names the file.
fn read_tls(tls: &settings::RabbitMqTls) -> Result<OwnedTLSConfig, String> {
    let read = |what: &str, path: &Path| {
        std::fs::read_to_string(path).map_err(|error| format!("{what} {}: cannot be read: {error}", path.display()))
    };
    // The vendored OpenSSL does not know where this system keeps its authorities.
    let system = openssl_probe::probe().cert_file;
    let mut trusted = system
        .and_then(|path| std::fs::read_to_string(path).ok())
        .unwrap_or_default();
    if let Some(path) = &tls.ca_file {
        let own = read("tls.ca_file", path)?;
        if !own.contains("-----BEGIN CERTIFICATE-----") {
            return Err(format!("tls.ca_file {}: holds no certificate in PEM", path.display()));
        }
        trusted.push('\n');
        trusted.push_str(&own);
    }
    let identity = match (&tls.certificate_file, &tls.key_file) {
        (Some(certificate), Some(key)) => Some(OwnedIdentity::PKCS8 {
            pem: read("tls.certificate_file", certificate)?.into_bytes(),
            key: read("tls.key_file", key)?.into_bytes(),
        }),
        _ => None,
    };
    Ok(OwnedTLSConfig {
        identity,
        cert_chain: Some(trusted),
    })
}
