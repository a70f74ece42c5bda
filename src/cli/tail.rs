//! `forebay tail`: shows events as they arrive in a topic, or in an exchange.

mod show;
mod source;

use std::path::PathBuf;

use clap::Args;

pub use self::{
    show::{EventPrinter, ShownMessage},
    source::{BrokerTail, TailSource, of_rabbitmq},
};
use super::{CommandFailure, ExitCause, runtime, stopped};

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
    /// Kafka's brokers, host:port, separated by commas
    #[arg(long, value_name = "LIST", requires = "topic", value_delimiter = ',')]
    pub brokers: Vec<String>,
    /// The topic
    #[arg(long, value_name = "NAME", requires = "brokers")]
    pub topic: Option<String>,
    /// RabbitMQ: env:NAME, file:PATH, or amqp(s)://user:password@host:port/vhost, which then stands in the list of
    /// processes
    #[arg(long, value_name = "URI", requires = "followed")]
    pub amqp: Option<String>,
    /// What this queue gets: its bindings are copied, as the management API tells them
    #[arg(long, value_name = "NAME", requires = "amqp")]
    pub queue: Option<String>,
    /// What this exchange gets
    #[arg(long, value_name = "NAME", requires = "amqp")]
    pub exchange: Option<String>,
    /// Only what this binding takes, such as 03.# or *.feeds.#; may be repeated; # when none is given
    #[arg(long = "binding", value_name = "KEY", requires = "exchange")]
    pub bindings: Vec<String>,
    /// RabbitMQ's management API [default: the same host, port 15672, with TLS 15671]
    #[arg(long, value_name = "URL", requires = "amqp")]
    pub management: Option<String>,
    /// CAs in PEM that are trusted beside the system's, for amqps://
    #[arg(long, value_name = "FILE", requires = "amqp")]
    pub ca_file: Option<PathBuf>,
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
    let source = TailSource::of(args)?;
    runtime()?.block_on(async {
        tokio::select! {
            ended = follow(args, source) => ended,
            () = stopped() => Ok(ExitCause::Ok),
        }
    })
}

async fn follow(args: &TailArgs, source: TailSource) -> Result<ExitCause, CommandFailure> {
    let what = source.what();
    let mut tail = BrokerTail::open(source).await?;
    tracing::info!(what, "reading; Ctrl-C ends it");
    let mut show = EventPrinter::new(args.json);
    let mut shown = 0;
    while args.count.is_none_or(|count| shown < count) {
        let message = tail.next().await?;
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
