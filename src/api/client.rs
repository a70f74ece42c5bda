//! Asks a process that runs.

use std::{io, os::unix::net::UnixStream, path::Path, time::Duration};

use serde_json::Value;

use super::{OperatorCommand, socket_path};

/// An answer comes at once, but for one that looks through many dead letters, or much that is retained.
const ANSWER_DEADLINE: Duration = Duration::from_secs(600);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A process that runs on a spool.
pub struct OperatorClient {
    http: reqwest::Client,
}

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the process does not answer on its socket: {0}")]
    Unreachable(String),
    /// As the process says.
    #[error("{text}")]
    Refused { reason: String, text: String },
}

impl OperatorClient {
    /// The process that runs on the spool in a directory; `None`: there is none.
    ///
    /// # Errors
    ///
    /// There is one that this user must not ask.
    pub fn connect(dir: &Path) -> io::Result<Option<Self>> {
        let path = socket_path(dir);
        match UnixStream::connect(&path) {
            Ok(_) => {}
            // One that nobody listens on was left by a process that is gone.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let http = reqwest::Client::builder()
            .unix_socket(path)
            .no_proxy()
            .connect_timeout(CONNECT_DEADLINE)
            .timeout(ANSWER_DEADLINE)
            .build();
        http.map(|http| Some(Self { http })).map_err(io::Error::other)
    }

    /// Asks for something.
    ///
    /// # Errors
    ///
    /// It is refused, or the process is gone.
    pub async fn ask(&self, command: &OperatorCommand) -> Result<Value, ClientError> {
        let request = command.request();
        let unreachable = |error: reqwest::Error| ClientError::Unreachable(forebay_http_client::causes(error));
        let method = reqwest::Method::from_bytes(request.method.as_str().as_bytes()).expect("a method of HTTP");
        let answer = self
            .http
            .request(method, format!("http://forebay{}", request.path))
            .header("content-type", "application/json")
            .body(request.body)
            .send()
            .await
            .map_err(unreachable)?;
        let is_well = answer.status().is_success();
        let body = answer.bytes().await.map_err(unreachable)?;
        let value: Value =
            serde_json::from_slice(&body).map_err(|error| ClientError::Unreachable(error.to_string()))?;
        if is_well {
            return Ok(value);
        }
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Err(ClientError::Refused {
            reason: text("reason"),
            text: text("detail"),
        })
    }
}
