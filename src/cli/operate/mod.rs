//! What an operator does to a process that runs, or to its spool while nothing runs: one way to ask for it.

pub(super) mod dead_letters;
pub(super) mod jobs;
mod progress;
pub(super) mod replay;
pub(super) mod routes;

use clap::Args;
use serde_json::Value;

use super::{CommandFailure, verify::parse_time};
use crate::{
    api::{ClientError, OperatorClient, OperatorCommand, OperatorRefusal, RefusalReason, socket_path},
    config::{Config, process_env},
    job::EventSelection,
    node::OperatorRun,
};

/// Who carries a command out.
enum OperatorAccess {
    /// The process that runs on the spool.
    Process(OperatorClient),
    /// This one: nothing runs on it.
    Alone(Box<OperatorRun>),
}

impl OperatorAccess {
    async fn open(config: &Config) -> Result<Self, CommandFailure> {
        let dir = &config.spool.dir;
        let client = OperatorClient::connect(dir).map_err(|error| {
            let path = socket_path(dir);
            CommandFailure::unavailable(format!(
                "a process runs on {}, and its socket {} cannot be used: {error}; ask as the user of that process, or as root",
                dir.display(),
                path.display()
            ))
        })?;
        match client {
            Some(client) => Ok(Self::Process(client)),
            None => Ok(Self::Alone(Box::new(OperatorRun::open(config).await?))),
        }
    }

    async fn ask(&self, command: &OperatorCommand) -> Result<Value, CommandFailure> {
        match self {
            Self::Process(client) => Ok(client.ask(command).await?),
            Self::Alone(run) => Ok(run.ask(command.clone()).await?),
        }
    }

    /// Ends in order.
    async fn close(self) -> Result<(), CommandFailure> {
        match self {
            Self::Process(_) => Ok(()),
            Self::Alone(run) => Ok(run.close().await?),
        }
    }
}

impl From<OperatorRefusal> for CommandFailure {
    fn from(refusal: OperatorRefusal) -> Self {
        refused(refusal.reason.label(), refusal.text)
    }
}

impl From<ClientError> for CommandFailure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unreachable(_) => Self::unavailable(error.to_string()),
            ClientError::Refused { reason, text } => refused(&reason, text),
        }
    }
}

fn refused(reason: &str, text: String) -> CommandFailure {
    let is = |one: RefusalReason| one.label() == reason;
    let wrong_usage = [
        RefusalReason::Malformed,
        RefusalReason::UnknownRoute,
        RefusalReason::NothingSelected,
        RefusalReason::NoSuchTopic,
        RefusalReason::NoSink,
    ];
    match wrong_usage.into_iter().any(is) {
        true => CommandFailure::usage(text),
        false if is(RefusalReason::Disk) => CommandFailure::disk(text),
        false => CommandFailure::not_right(text),
    }
}

/// Loads the configuration, asks, and ends in order.
fn operate<T>(
    config: &super::ConfigArg,
    ask: impl AsyncFnOnce(&mut OperatorAccess) -> Result<T, CommandFailure>,
) -> Result<T, CommandFailure> {
    let config = Config::load(&config.config, process_env())?;
    super::runtime()?.block_on(async {
        let mut access = OperatorAccess::open(&config).await?;
        let asked = ask(&mut access).await;
        let closed = access.close().await;
        let asked = asked?;
        closed?;
        Ok(asked)
    })
}

/// Which dead letters.
#[derive(Args)]
pub struct LetterSelection {
    /// Of this route
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// That were refused for this reason (a label of `forebay_dead_letters_total`)
    #[arg(long, value_name = "REASON")]
    pub reason: Vec<String>,
    /// Of events of this stream
    #[arg(long, value_name = "KEY")]
    pub stream: Vec<String>,
    /// Of events of this kind
    #[arg(long, value_name = "KIND")]
    pub kind: Vec<String>,
    /// Of events that this endpoint took in
    #[arg(long, value_name = "NAME")]
    pub endpoint: Vec<String>,
    /// Refused at or after then: RFC 3339, or an age such as 2h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub since: Option<i64>,
    /// Refused before then
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub until: Option<i64>,
    /// Ids of events, or numbers of dead letters as `list` shows them
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
}

impl LetterSelection {
    fn selection(&self) -> EventSelection {
        EventSelection {
            from_ms: self.since,
            to_ms: self.until,
            streams: self.stream.clone(),
            kinds: lower(&self.kind),
            endpoints: self.endpoint.clone(),
            ids: lower(&self.ids).into_iter().collect(),
            reasons: self.reason.clone(),
        }
    }
}

fn lower(words: &[String]) -> Vec<String> {
    words.iter().map(|word| word.to_ascii_lowercase()).collect()
}

/// A text of an answer.
fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or("-")
}

/// A number of an answer.
fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}
