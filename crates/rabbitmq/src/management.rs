//! RabbitMQ's management API, which tells what AMQP does not: bindings, arguments, policies, consumers.

use std::time::Duration;

use reqwest::{Client, StatusCode, Url};
use serde_json::Value;

use super::uri::{self, AmqpNode};
use crate::settings;
use forebay_http_client as http_client;

const DEADLINE: Duration = Duration::from_secs(5);
/// Of one answer: a thousand queues are about one.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The API of one node, asked as the sink's own user about its virtual host.
pub(super) struct ManagementApi {
    client: Client,
    base: Url,
    user: String,
    password: String,
    vhost: String,
}

/// Why the API did not say what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnknownQueues {
    /// There is no such thing.
    #[error("it is not there")]
    NotThere,
    /// Names the address, the cause and the cure.
    #[error("{0}")]
    NoAnswer(String),
}

impl ManagementApi {
    /// For the sink's first node, unless the configuration says where.
    pub fn from_config(config: &settings::RabbitMqConfig) -> Result<Self, String> {
        let text = |source: &settings::TextSource| source.read().map_err(|error| error.to_string());
        let first = config.uris.first().ok_or("no uri")?;
        let node = uri::parse(&text(first)?)?;
        let user = config
            .username
            .as_ref()
            .map(text)
            .transpose()?
            .or(node.username.clone());
        let password = config
            .password
            .as_ref()
            .map(text)
            .transpose()?
            .or(node.password.clone());
        if user.is_none() && password.is_none() && config.tls.certificate_file.is_some() {
            return Err("the management API takes no certificate for a user: set username and password".to_owned());
        }
        let guest = || "guest".to_owned();
        let base = config.management.clone().unwrap_or_else(|| usual(&node));
        Ok(Self {
            client: client(config)?,
            base: base.parse().map_err(|error| format!("{base}: {error}"))?,
            user: user.unwrap_or_else(guest),
            password: password.unwrap_or_else(guest),
            vhost: node.vhost,
        })
    }

    /// What is at `/api/<kind>/<virtual host>/<rest>…`.
    pub async fn of_vhost(&self, kind: &str, rest: &[&str]) -> Result<Value, UnknownQueues> {
        let vhost = self.vhost.clone();
        self.ask(&[&["api", kind, vhost.as_str()], rest].concat()).await
    }

    /// What is at this path, whose segments are escaped here.
    pub async fn ask(&self, segments: &[&str]) -> Result<Value, UnknownQueues> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| UnknownQueues::NoAnswer(format!("{}: not a URL to ask", self.base)))?
            .pop_if_empty()
            .extend(segments);
        let told = |cause: String| UnknownQueues::NoAnswer(format!("the management API at {}: {cause}", self.base));
        let asked = async {
            let request = self.client.get(url).basic_auth(&self.user, Some(&self.password));
            let mut answer = request.send().await?;
            let body = http_client::body(&mut answer, ANSWER_BYTES_MAX).await?;
            Ok((answer.status(), body))
        };
        let (status, body) = asked.await.map_err(|error: reqwest::Error| told(cause(error)))?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map_err(|_| told("it does not answer in JSON".to_owned())),
            StatusCode::NOT_FOUND => Err(UnknownQueues::NotThere),
            StatusCode::UNAUTHORIZED => Err(told(format!(
                "it refuses user '{}': give the user the tag management, or correct the password",
                self.user
            ))),
            other => Err(told(format!("it answers {other}"))),
        }
    }
}

/// Where the API of a node usually is.
fn usual(node: &AmqpNode) -> String {
    let (scheme, port) = if node.tls { ("https", 15671) } else { ("http", 15672) };
    match node.host.contains(':') {
        true => format!("{scheme}://[{}]:{port}", node.host),
        false => format!("{scheme}://{}:{port}", node.host),
    }
}

fn client(config: &settings::RabbitMqConfig) -> Result<Client, String> {
    let mut builder = Client::builder()
        .timeout(DEADLINE)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &config.tls.ca_file {
        let certificates =
            http_client::certificates(path).map_err(|cause| format!("tls.ca_file {}: {cause}", path.display()))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(http_client::root_cause)
}

/// What is behind an error.
fn cause(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", DEADLINE.as_secs());
    }
    http_client::root_cause(error)
}
