//! What the configuration says of a sink to RabbitMQ.

use std::{fs::File, path::PathBuf};

use forebay_section::{ConfigTable, Shown, Value, ValueKind, values};

pub use forebay_section::{TextSource, TextSourceError};

use crate::uri;

/// `type = "rabbitmq"`
#[derive(Debug, Clone, PartialEq)]
pub struct RabbitMqConfig {
    /// One or more nodes, tried in turn. Read again for every new connection, so that a changed password is found.
    pub uris: Vec<TextSource>,
    /// Wins over the name in the URI.
    pub username: Option<TextSource>,
    /// Wins over the password in the URI.
    pub password: Option<TextSource>,
    pub tls: RabbitMqTls,
    pub exchange: String,
    /// How many the keys are spread over: the first word of the routing key.
    pub partitions: u32,
    /// Exchange, queues, bindings and the dead-letter exchange are made when they are not there.
    pub declare: bool,
    pub unroutable: Unroutable,
    /// The management API, `http(s)://host:15672`, for `forebay check --connect`. `None`: the first node's host and the
    /// usual port.
    pub management: Option<String>,
}

/// Files in PEM.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RabbitMqTls {
    /// Trusted beside the system's own.
    pub ca_file: Option<PathBuf>,
    /// With [`Self::key_file`]: what Forebay shows of itself. Without user and password it authenticates by it
    /// (EXTERNAL).
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// What becomes of a message that no queue takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unroutable {
    /// It goes to the route's dead letters, and its neighbours pass.
    DeadLetter,
    /// The route waits until there is a binding for it.
    Hold,
}

impl RabbitMqConfig {
    /// One that only reads, at this URI.
    pub fn of_uri(uri: TextSource, ca_file: Option<PathBuf>, management: Option<String>) -> Self {
        Self {
            uris: vec![uri],
            username: None,
            password: None,
            tls: RabbitMqTls {
                ca_file,
                ..RabbitMqTls::default()
            },
            exchange: String::new(),
            partitions: 1,
            declare: false,
            unroutable: Unroutable::DeadLetter,
            management,
        }
    }

    pub(crate) fn read(mut table: ConfigTable<'_>) -> Option<Self> {
        let sources = table.require("uri", uris);
        let uris = sources.and_then(|texts| checked_uris(&table, &texts));
        let username = text_source(&mut table, "username");
        let password = text_source(&mut table, "password");
        let exchange = table.take_or("exchange", "forebay".to_owned(), exchange);
        let partitions = table.take_or("partitions", 8, values::whole(1..=1000));
        let declare = table.take_or("declare", false, values::flag);
        if declare && exchange.starts_with("amq.") {
            let text = format!(
                "{:?} cannot be declared: RabbitMQ keeps names that begin with amq. to itself",
                Shown(&exchange)
            );
            table.problem("exchange", text);
        }
        let unroutable = table.take_or(
            "unroutable",
            Unroutable::DeadLetter,
            values::word(&[("dead_letter", Unroutable::DeadLetter), ("hold", Unroutable::Hold)]),
        );
        let management = table.take("management", management);
        let has_tls = table.has("tls");
        let tls = tls(table.table("tls"));
        let is_plain = |source: &TextSource| {
            table
                .read(source)
                .is_ok_and(|uri| uri.to_ascii_lowercase().starts_with("amqp://"))
        };
        if has_tls && uris.as_deref().is_some_and(|uris| uris.iter().any(is_plain)) {
            table.problem("tls", "of no use with an amqp:// URI, which has no TLS: amqps:// has");
        }
        table.finish();
        Some(Self {
            uris: uris?,
            username,
            password,
            tls,
            exchange,
            partitions: partitions.try_into().expect("within the bounds"),
            declare,
            unroutable,
            management,
        })
    }

    /// The keys of the section that hold a secret as it is.
    pub(crate) fn inline_secrets(&self) -> Vec<String> {
        let has_password = |source: &TextSource| matches!(source, TextSource::Inline(text) if uri::parse(text).is_ok_and(|node| node.password.is_some()));
        let mut keys = Vec::new();
        if self.uris.iter().any(has_password) {
            keys.push("uri".to_owned());
        }
        if matches!(self.password, Some(TextSource::Inline(_))) {
            keys.push("password".to_owned());
        }
        keys
    }
}

/// Reads the sources, and each URI once. What is wrong with a URI never shows its password.
fn checked_uris(table: &ConfigTable<'_>, texts: &[String]) -> Option<Vec<TextSource>> {
    let mut wrong = Vec::new();
    let mut sources = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let source = TextSource::parse(text);
        let checked = match table.read(&source) {
            Ok(text) => uri::check(&text).map_err(|wrong| match &source {
                TextSource::Inline(_) => wrong,
                source => format!("{source:?}: {wrong}"),
            }),
            Err(wrong) => Err(wrong),
        };
        match checked {
            Ok(()) => sources.push(source),
            Err(text) if texts.len() == 1 => wrong.push(text),
            Err(text) => wrong.push(format!("number {}: {text}", index + 1)),
        }
    }
    match wrong.as_slice() {
        [] if sources.is_empty() => table.problem("uri", "empty"),
        [] => return Some(sources),
        wrong => table.problem("uri", wrong.join("; ")),
    }
    None
}

/// A source whose text can be read and is not empty.
fn text_source(table: &mut ConfigTable<'_>, key: &'static str) -> Option<TextSource> {
    let source = TextSource::parse(&table.take(key, values::text)?);
    let problem = match table.read(&source) {
        Ok(text) if text.is_empty() => format!("{source:?}: empty"),
        Ok(_) => return Some(source),
        Err(problem) => problem,
    };
    table.problem(key, problem);
    None
}

/// Files that can be opened; what is in them is OpenSSL's to judge, at the first connection.
fn tls(mut table: ConfigTable<'_>) -> RabbitMqTls {
    let file = |value: &Value| -> Result<PathBuf, String> {
        let path = PathBuf::from(values::text(value)?);
        match File::open(&path) {
            Ok(_) => Ok(path),
            Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
        }
    };
    let together = table.has("certificate_file") == table.has("key_file");
    let tls = RabbitMqTls {
        ca_file: table.take("ca_file", file),
        certificate_file: table.take("certificate_file", file),
        key_file: table.take("key_file", file),
    };
    if !together {
        table.problem("", "certificate_file and key_file go together: one is missing");
    }
    table.finish();
    tls
}

/// One AMQP URI or its source, or a list of them. They may hold a password: none is in a message.
fn uris(value: &Value) -> Result<Vec<String>, String> {
    match &value.kind {
        ValueKind::String(text) if values::is_from_env(value) && text.trim_start().starts_with('[') => {
            values::list(value).map_err(|_| r#"expected a JSON list of texts: ["a", "b"]"#.to_owned())
        }
        ValueKind::String(text) if values::is_from_env(value) => Ok(split_uris(text)),
        ValueKind::String(_) => Ok(vec![values::text(value)?]),
        ValueKind::Array(_) => values::list(value),
        other => Err(format!(
            "expected a URI or a list of them, found {}",
            values::kind(other)
        )),
    }
}

/// Splits at the commas that a URI or a source follows: a password may have commas of its own.
fn split_uris(text: &str) -> Vec<String> {
    const BEGINNINGS: [&str; 4] = ["amqp:", "amqps:", "env:", "file:"];
    let mut uris: Vec<String> = Vec::new();
    for part in text.split(',') {
        let begins = BEGINNINGS.iter().any(|word| part.trim_start().starts_with(word));
        match uris.last_mut() {
            Some(last) if !begins => last.extend([",", part]),
            _ => uris.push(part.to_owned()),
        }
    }
    uris
}

/// AMQP's limit on the name of an exchange or a queue, in bytes.
const AMQP_NAME_BYTES_MAX: usize = 255;

/// An exchange whose name leaves room for those that are made from it: `<exchange>.dead-letters`.
fn exchange(value: &Value) -> Result<String, String> {
    let bytes_max = AMQP_NAME_BYTES_MAX - ".dead-letters".len();
    let name = values::text(value)?;
    match name.len() {
        bytes if bytes > bytes_max => Err(format!("longer than {bytes_max} bytes")),
        _ if name.chars().any(char::is_control) || name.trim() != name => {
            let name = Shown(&name);
            Err(format!("{name:?} has white space at an end, or a control character"))
        }
        _ => Ok(name),
    }
}

/// `http(s)://host:15672`, without a slash at the end. It is asked as the sink's own user.
fn management(value: &Value) -> Result<String, String> {
    management_url(&values::text(value)?)
}

/// The same, of a text.
pub fn management_url(url: &str) -> Result<String, String> {
    values::base_url(
        url,
        "http://rabbitmq.example:15672",
        "has a user: the sink's own is used, leave it out",
    )
}
