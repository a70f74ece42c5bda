//! `forebay tail`: shows events as they arrive in a topic, or in an exchange.

mod show;
mod source;

use std::path::PathBuf;

use clap::Args;

pub use self::show::{EventPrinter, ShownMessage};
use super::{CommandFailure, ExitCause, brokers::FollowedFlags, runtime, stopped};
use crate::sink::{EventSource, MessageTail};

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay tail --config forebay.toml
  forebay tail --config forebay.toml --route thumbnails --from-start --count 10
  forebay tail --brokers localhost:9092 --topic millicast.events --stream ZG6NWV/sample_stream
  forebay tail --amqp env:RABBITMQ_URI --queue forebay.03
  forebay tail --amqp amqp://localhost --exchange forebay --binding '*.feeds.#'
  forebay tail --config forebay.toml --json | jq .event.type

Kafka: it reads all partitions, joins no group and commits nothing. Within a partition events come in order;
between partitions they come as they are read. RabbitMQ: it binds a temporary queue of its own and takes nothing
from any other; only what arrives from now on is seen, and while it is bound, an event that no other queue
takes counts as delivered. Ctrl-C ends it.")]
#[command(group = clap::ArgGroup::new("source").required(true).args(["config", "brokers", "amqp"]))]
#[command(group = clap::ArgGroup::new("followed").args(["queue", "exchange"]))]
pub struct TailArgs {
    /// The configuration whose sink and topics are meant
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The route whose topic is meant [default: all routes of the only sink]
    #[arg(long, value_name = "NAME", requires = "config")]
    pub route: Option<String>,
    #[command(flatten)]
    pub followed: FollowedFlags,
    /// Begin with the oldest event that is there (Kafka)
    #[arg(long)]
    pub from_start: bool,
    /// Only events of this stream: their key, such as ZG6NWV/sample_stream
    #[arg(long, value_name = "KEY")]
    pub stream: Option<String>,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &TailArgs) -> Result<ExitCause, CommandFailure> {
    let source = source::find(args)?;
    runtime()?.block_on(async {
        tokio::select! {
            ended = follow(args, source) => ended,
            () = stopped() => Ok(ExitCause::Ok),
        }
    })
}

async fn follow(args: &TailArgs, source: EventSource<dyn MessageTail>) -> Result<ExitCause, CommandFailure> {
    let what = source.what.clone();
    let mut tail = source.open().await?;
    tracing::info!(what, "reading; Ctrl-C ends it");
    let mut show = EventPrinter::new(args.json);
    let mut shown = 0;
    while args.count.is_none_or(|count| shown < count) {
        let message = ShownMessage(tail.next().await?);
        if !args.stream.as_ref().is_none_or(|stream| message.is_of(stream)) {
            continue;
        }
        if show.message(&message).is_err() {
            // Whoever read it has seen enough.
            break;
        }
        shown += 1;
    }
    Ok(ExitCause::Ok)
}
