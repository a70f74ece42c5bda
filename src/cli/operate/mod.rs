//! What an operator does to a process that runs, or to its spool while nothing runs: one way to ask for it.

pub(super) mod dead_letters;
pub(super) mod jobs;
mod progress;
pub(super) mod replay;
pub(super) mod routes;

use std::num::NonZeroU32;

use clap::Args;
use serde_json::Value;

use super::{CommandFailure, verify::parse_time};
use crate::{
    api::{
        ClientError, OperatorClient, OperatorCommand, OperatorRefusal, RefusalReason, RepublishRequest, socket_path,
    },
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

/// Which events.
#[derive(Args)]
pub struct EventFlags {
    /// Events of this stream
    #[arg(long, value_name = "KEY")]
    pub stream: Vec<String>,
    /// Events of this kind
    #[arg(long, value_name = "KIND")]
    pub kind: Vec<String>,
    /// Events that this endpoint took in
    #[arg(long, value_name = "NAME")]
    pub endpoint: Vec<String>,
}

impl EventFlags {
    /// Those from one time to another, with one of these ids.
    fn selection(&self, (from_ms, to_ms): (Option<i64>, Option<i64>), ids: &[String]) -> EventSelection {
        EventSelection {
            from_ms,
            to_ms,
            streams: self.stream.clone(),
            kinds: lower(&self.kind),
            endpoints: self.endpoint.clone(),
            ids: lower(ids).into_iter().collect(),
            reasons: Vec::new(),
        }
    }
}

/// How what was selected is published again.
#[derive(Args)]
pub struct PublishFlags {
    /// All of them, where nothing is selected
    #[arg(long)]
    pub all: bool,
    /// At most so many in a second
    #[arg(long, value_name = "N")]
    pub rate: Option<NonZeroU32>,
    /// Say how many there are, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Begin, and do not wait for the end
    #[arg(long)]
    pub detach: bool,
    /// Do not go on after a restart of the process
    #[arg(long)]
    pub once: bool,
    /// Print the result as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

impl PublishFlags {
    /// What is asked of a process.
    fn request(&self, route: Option<String>, selection: EventSelection) -> RepublishRequest {
        RepublishRequest {
            route,
            selection,
            all: self.all,
            dry_run: self.dry_run,
            rate: self.rate,
            ends_with_process: self.once,
            ..RepublishRequest::default()
        }
    }
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
    #[command(flatten)]
    pub events: EventFlags,
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
            reasons: self.reason.clone(),
            ..self.events.selection((self.since, self.until), &self.ids)
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
