//! A virtual host: what keeps one test's exchanges and queues apart from another's.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

use super::super::http;

/// A server or a cluster, as clients see it.
#[derive(Debug, Clone)]
pub struct Broker {
    pub nodes: Vec<SocketAddr>,
    pub(super) management: Vec<SocketAddr>,
    pub user: String,
    pub password: String,
}

/// The kinds of queues, by the value of `x-queue-type`.
pub const QUORUM: &str = "quorum";
pub const CLASSIC: &str = "classic";
pub const STREAM: &str = "stream";

/// A virtual host. It goes when this does.
pub struct Vhost {
    pub broker: Broker,
    pub name: String,
}

/// The header line that identifies a user.
pub(super) fn authorization(user: &str, password: &str) -> String {
    use base64::Engine;
    let login = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {login}\r\nContent-Type: application/json\r\n")
}

impl Broker {
    /// Makes a virtual host of a name of its own; `name` says what it is for.
    pub fn vhost(&self, name: &str) -> Vhost {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let vhost = Vhost {
            broker: self.clone(),
            name: format!("{name}-{}-{number}", std::process::id()),
        };
        self.api("PUT", &format!("/vhosts/{}", vhost.name), &json!({}));
        vhost
    }

    /// The management API's base, for `management`.
    pub fn management(&self) -> String {
        format!("http://{}", self.management[0])
    }

    /// Asks the management API of the first node that answers.
    pub fn api(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.try_api(method, path, body).expect("the management API answers");
        assert!(answer.code < 300, "{method} {path}: {answer:?}");
        serde_json::from_str(&answer.body).unwrap_or_default()
    }

    fn try_api(&self, method: &str, path: &str, body: &Value) -> Option<http::Answer> {
        let authorization = authorization(&self.user, &self.password);
        let path = format!("/api{path}");
        let ask = |node: &SocketAddr| http::request(*node, method, &path, &authorization, body.to_string());
        self.management.iter().find_map(ask)
    }
}

impl Vhost {
    /// The AMQP URI of each node.
    pub fn uris(&self) -> Vec<String> {
        let uri = |node| self.uri_of("amqp", node, &self.broker.user, &self.broker.password);
        self.broker.nodes.iter().map(uri).collect()
    }

    /// The first node's.
    pub fn uri(&self) -> String {
        self.uris().remove(0)
    }

    pub fn uri_of(&self, scheme: &str, node: &SocketAddr, user: &str, password: &str) -> String {
        format!("{scheme}://{user}:{password}@{node}/{}", self.name)
    }

    fn api(&self, method: &str, path: &str, body: &Value) -> Value {
        let (kind, rest) = path.split_once('/').unwrap_or((path, ""));
        self.broker.api(method, &format!("/{kind}/{}/{rest}", self.name), body)
    }

    /// Deletes a queue with all that is in it.
    pub fn delete_queue(&self, queue: &str) {
        self.api("DELETE", &format!("queues/{queue}"), &Value::Null);
    }

    /// Lets the queues whose names fit have no more than so many messages; `None`: as many as they did before.
    pub fn limit_queues(&self, pattern: &str, messages: Option<usize>) {
        match messages {
            None => self.api("DELETE", "policies/limit", &Value::Null),
            Some(messages) => {
                let limit = json!({"pattern": pattern, "definition": {"max-length": messages}, "apply-to": "queues"});
                self.api("PUT", "policies/limit", &limit)
            }
        };
    }

    /// Lets a user have no more than so many channels.
    pub fn limit_channels(&self, user: &str, channels: usize) {
        let limit = json!({"value": channels});
        self.broker
            .api("PUT", &format!("/user-limits/{user}/max-channels"), &limit);
    }

    /// Makes a user, or changes the password of one, who may do everything here.
    pub fn admit(&self, user: &str, password: &str) {
        let login = json!({"password": password, "tags": ""});
        self.broker.api("PUT", &format!("/users/{user}"), &login);
        self.permit(user, ".*");
    }

    /// Lets a user write where names are like `pattern`, and do all else.
    pub fn permit(&self, user: &str, pattern: &str) {
        let rights = json!({"configure": ".*", "write": pattern, "read": ".*"});
        self.api("PUT", &format!("permissions/{user}"), &rights);
    }

    pub fn declare_exchange(&self, exchange: &str) {
        self.api(
            "PUT",
            &format!("exchanges/{exchange}"),
            &json!({"type": "topic", "durable": true}),
        );
    }

    pub fn delete_exchange(&self, exchange: &str) {
        self.api("DELETE", &format!("exchanges/{exchange}"), &json!({}));
    }

    /// Closes every connection that the management API lists; returns how many. It lists one seconds after it was made.
    pub fn close_connections(&self) -> usize {
        let list = self
            .broker
            .api("GET", &format!("/vhosts/{}/connections", self.name), &Value::Null);
        let names: Vec<&str> = list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["name"].as_str())
            .collect();
        for name in &names {
            let path = format!("/connections/{}", name.replace(' ', "%20").replace('>', "%3E"));
            // It may be gone already.
            let _ = self.broker.try_api("DELETE", &path, &Value::Null);
        }
        names.len()
    }

    /// Declares a durable queue.
    pub fn declare_queue(&self, queue: &str, kind: &str, arguments: &Value) {
        let mut arguments = arguments.clone();
        arguments["x-queue-type"] = kind.into();
        self.api(
            "PUT",
            &format!("queues/{queue}"),
            &json!({"durable": true, "arguments": arguments}),
        );
    }

    pub fn bind(&self, exchange: &str, queue: &str, key: &str) {
        self.api(
            "POST",
            &format!("bindings/e/{exchange}/q/{queue}"),
            &json!({"routing_key": key}),
        );
    }

    /// Binds a queue `<exchange>.<partition>` for each partition. Returns their names.
    pub fn bind_partitions(&self, exchange: &str, partitions: usize) -> Vec<String> {
        let queues: Vec<String> = (0..partitions).map(|n| format!("{exchange}.{n:02}")).collect();
        for (n, queue) in queues.iter().enumerate() {
            self.bind(exchange, queue, &format!("{n:02}.#"));
        }
        queues
    }

    /// An exchange and, for each partition, a queue of that kind bound to it, with a single active consumer where there
    /// can be one. Returns the queues' names.
    pub fn topology(&self, exchange: &str, partitions: usize, kind: &str) -> Vec<String> {
        let arguments = match kind {
            STREAM => json!({}),
            _ => json!({"x-single-active-consumer": true, "x-overflow": "reject-publish"}),
        };
        self.declare_exchange(exchange);
        for n in 0..partitions {
            self.declare_queue(&format!("{exchange}.{n:02}"), kind, &arguments);
        }
        self.bind_partitions(exchange, partitions)
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        // Its server may be gone already.
        let _ = self
            .broker
            .try_api("DELETE", &format!("/vhosts/{}", self.name), &Value::Null);
    }
}
