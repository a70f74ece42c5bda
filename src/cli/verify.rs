//! `forebay verify`: reads topics or queues to their end and names what is missing, out of order or malformed.

mod census;
mod numbers;
mod report;
mod schemas;
mod source;

use std::{path::PathBuf, time::Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

pub(super) use self::source::parse_time;
use self::{
    census::EventCensus,
    report::VerifyReport,
    schemas::EventSchemas,
    source::{VerifyPart, VerifyPlan},
};
use super::{CommandFailure, ExitCause, brokers::VerifiedFlags, out, runtime, stopped, tail::ShownMessage};
use crate::sink::{MessageReading, ReadPlace};

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay verify --config forebay.toml
  forebay verify --config forebay.toml --route events --from 2h
  forebay verify --brokers localhost:9092 --topic millicast.events --json | jq .is_right
  forebay verify --amqp env:RABBITMQ_URI --queue forebay.00 --queue forebay.01

It reads to the end that is there when it begins, joins no group, commits nothing and leaves queues as they were. A queue
with consumers, or with a limit of deliveries, is refused. Exit codes: 0 all in order; 1 it names what is not; 64 usage;
69 a broker, topic or queue. docs/verify.md says what counts as wrong.")]
#[command(group = clap::ArgGroup::new("verified").required(true).args(["config", "brokers", "amqp"]))]
pub struct VerifyArgs {
    /// The configuration whose routes are meant: with all of them, what is missing is an error
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only this route
    #[arg(long, value_name = "NAME", requires = "config")]
    pub route: Option<String>,
    #[command(flatten)]
    pub verified: VerifiedFlags,
    /// Read queues whose messages may be delivered only so often: it costs one delivery of each message
    #[arg(long)]
    pub spend_delivery: bool,
    /// From this time on: RFC 3339, or how long ago, such as 2h (Kafka)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub from: Option<i64>,
    /// The data is the body as it came (payload = "original"), which no schema describes
    #[arg(long, conflicts_with = "config")]
    pub original: bool,
    /// The route has a reorder window: `sequence` may step back where `time` does not
    #[arg(long, conflicts_with = "config")]
    pub reordered: bool,
    /// So many missing records are known: forebay_dead_letters_total
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub dead_letters: u64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &VerifyArgs) -> Result<ExitCause, CommandFailure> {
    let plan = VerifyPlan::from_args(args)?;
    let report = runtime()?.block_on(async {
        tokio::select! {
            report = verify(args, plan) => report,
            () = stopped() => Err(CommandFailure::not_right("stopped before the end")),
        }
    })?;
    // Whoever closed the pipe has read enough; the exit code still tells.
    let _ = match args.json {
        true => out(format_args!("{}\n", report.json())),
        false => out(format_args!("{report}")),
    };
    match report.is_right() {
        true => Ok(ExitCause::Ok),
        false => Ok(ExitCause::NotRight),
    }
}

async fn verify(args: &VerifyArgs, plan: VerifyPlan) -> Result<VerifyReport, CommandFailure> {
    let began = Instant::now();
    let schemas = EventSchemas::load();
    let mut routes = Vec::new();
    for (part, source) in plan.parts {
        let reading = source.open().await?;
        let places = reading.places();
        routes.push((read(&part, reading, &places, &schemas).await?, places));
    }
    Ok(VerifyReport::new(
        routes,
        plan.is_whole,
        args.dead_letters,
        began.elapsed(),
    ))
}

async fn read(
    part: &VerifyPart,
    mut reading: Box<dyn MessageReading>,
    places: &[ReadPlace],
    schemas: &EventSchemas,
) -> Result<EventCensus, CommandFailure> {
    let style = ProgressStyle::with_template("{prefix} {bar:40} {pos}/{len} messages, {per_sec}, {eta} left")
        .expect("the template is a constant");
    let progress = ProgressBar::new(places.iter().map(|place| place.messages).sum())
        .with_style(style)
        .with_prefix(part.name.clone());
    let mut census = EventCensus::new(part);
    while let Some((place, message)) = reading.next().await? {
        census.count(&place, &ShownMessage(message), schemas);
        progress.inc(1);
    }
    reading.close().await;
    progress.finish_and_clear();
    Ok(census)
}
