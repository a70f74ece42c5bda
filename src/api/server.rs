//! Serves the API on a Unix socket.

use std::{
    any::Any,
    fs, io,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
};

use actix_server::ServerHandle;
use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::{Extensions, Server},
    rt::net::UnixStream,
    web,
};

use super::{OperatorCaller, OperatorCommand, OperatorRefusal, OperatorService, RefusalReason};
use crate::http;

const SOCKET: &str = "operator.sock";
/// Of its owner alone.
const SOCKET_MODE: u32 = 0o600;
/// The longest request.
const BODY_BYTES_MAX: usize = 1 << 20;
const ROOT: u32 = 0;

/// Where the socket is in a spool's directory.
pub fn socket_path(dir: &Path) -> PathBuf {
    dir.join(SOCKET)
}

/// A server that listens.
pub struct ApiServer {
    server: Server,
    path: PathBuf,
}

impl ApiServer {
    /// Listens in a spool's directory, which this process holds: what another left there is replaced.
    ///
    /// # Errors
    ///
    /// The socket cannot be made: the path is too long for one, or the directory cannot be written.
    pub fn bind(dir: &Path, service: Arc<dyn OperatorService>) -> io::Result<Self> {
        let path = socket_path(dir);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(SOCKET_MODE))?;
        listener.set_nonblocking(true)?;
        let server = HttpServer::new(move || {
            let service = service.clone();
            App::new().default_service(web::to(move |request: HttpRequest, payload: web::Payload| {
                let service = service.clone();
                async move { answer(&*service, &request, payload).await }
            }))
        })
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .on_connect(|stream: &dyn Any, extensions: &mut Extensions| {
            let peer = stream
                .downcast_ref::<UnixStream>()
                .and_then(|stream| stream.peer_cred().ok());
            if let Some(peer) = peer {
                extensions.insert(OperatorCaller { uid: peer.uid() });
            }
        })
        .listen_uds(listener)?
        .run();
        Ok(Self { server, path })
    }

    /// Stops the server once it runs.
    pub fn handle(&self) -> ServerHandle {
        self.server.handle()
    }

    /// Serves until it is stopped; then the socket is gone.
    ///
    /// # Errors
    ///
    /// Its threads cannot be started.
    pub async fn run(self) -> io::Result<()> {
        let result = self.server.await;
        // What stays of it is replaced by the next process.
        let _ = fs::remove_file(&self.path);
        result
    }
}

async fn answer(service: &dyn OperatorService, request: &HttpRequest, payload: web::Payload) -> HttpResponse {
    let answered = match caller(request) {
        Ok(caller) => read(request, payload).await.map(|command| (command, caller)),
        Err(refusal) => Err(refusal),
    };
    let answered = match answered {
        Ok((command, caller)) => service.call(command, caller).await,
        Err(refusal) => Err(refusal),
    };
    match answered {
        Ok(value) => HttpResponse::Ok()
            .content_type("application/json")
            .body(value.to_string()),
        Err(OperatorRefusal { reason, text }) => HttpResponse::build(reason.status())
            .content_type("application/problem+json")
            .body(http::problem(reason.status(), reason.label(), &text)),
    }
}

/// Who asks: the user of the process itself, or root.
fn caller(request: &HttpRequest) -> Result<OperatorCaller, OperatorRefusal> {
    let caller = request.conn_data::<OperatorCaller>().copied();
    let own = rustix::process::geteuid().as_raw();
    caller
        .filter(|caller| [own, ROOT].contains(&caller.uid))
        .ok_or_else(|| {
            let text = format!("only the user of the process (uid {own}) and root may ask");
            OperatorRefusal::new(RefusalReason::NotAllowed, text)
        })
}

async fn read(request: &HttpRequest, payload: web::Payload) -> Result<OperatorCommand, OperatorRefusal> {
    let malformed = |text: String| OperatorRefusal::new(RefusalReason::Malformed, text);
    let body = match payload.to_bytes_limited(BODY_BYTES_MAX).await {
        Ok(body) => body.map_err(|error| malformed(error.to_string()))?,
        Err(_) => return Err(malformed(format!("the body is longer than {BODY_BYTES_MAX} bytes"))),
    };
    OperatorCommand::read(request.method(), request.uri().path(), &body)
}
