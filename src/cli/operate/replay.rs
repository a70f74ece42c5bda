//! `forebay replay`: publishes again what is retained.

use clap::Args;

use super::{
    OperatorAccess, lower, number, operate,
    progress::{follow, nothing_matches, say_chosen},
};
use crate::{
    api::{OperatorCommand, RepublishRequest},
    cli::{CommandFailure, ConfigArg, ExitCause, verify::parse_time},
    job::EventSelection,
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay replay --config forebay.toml --route events --stream acme/live
  forebay replay --config forebay.toml --route events --from 2h --to 1h --rate 500
  forebay replay --config forebay.toml --route events --from 2026-01-31T12:00:00Z --dry-run
  forebay replay --config forebay.toml --route events --all --to-topic millicast.events.again

What `spool.retain` still keeps is published again as the route publishes it: in order, under the same ids and numbers,
marked `replayed`. Live events go on beside it. What is refused is told, and is no dead letter. While `forebay serve`
runs on the spool, it carries the command out; else the command opens the spool itself.
Exit codes: 0; 1 nothing matches, or some were refused; 64 usage; 69 the process cannot be asked; 74 disk.")]
pub struct ReplayArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    /// The route that publishes them
    #[arg(long, value_name = "NAME")]
    pub route: String,
    /// Accepted at or after then: RFC 3339, or an age such as 2h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub from: Option<i64>,
    /// Accepted before then
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub to: Option<i64>,
    /// Events of this stream
    #[arg(long, value_name = "KEY")]
    pub stream: Vec<String>,
    /// Events of this kind
    #[arg(long, value_name = "KIND")]
    pub kind: Vec<String>,
    /// Events that this endpoint took in
    #[arg(long, value_name = "NAME")]
    pub endpoint: Vec<String>,
    /// The event with this id
    #[arg(long, value_name = "ID")]
    pub id: Vec<String>,
    /// All of them, where nothing is selected
    #[arg(long)]
    pub all: bool,
    /// Publish to this topic instead of the route's
    #[arg(long, value_name = "NAME")]
    pub to_topic: Option<String>,
    /// At most so many in a second
    #[arg(long, value_name = "N")]
    pub rate: Option<std::num::NonZeroU32>,
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

pub(in crate::cli) fn run(args: &ReplayArgs) -> Result<ExitCause, CommandFailure> {
    operate(&args.config, async |access| replay(access, args).await)
}

async fn replay(access: &mut OperatorAccess, args: &ReplayArgs) -> Result<ExitCause, CommandFailure> {
    let request = |dry_run| RepublishRequest {
        route: Some(args.route.clone()),
        selection: EventSelection {
            from_ms: args.from,
            to_ms: args.to,
            streams: args.stream.clone(),
            kinds: lower(&args.kind),
            endpoints: args.endpoint.clone(),
            ids: lower(&args.id).into_iter().collect(),
            reasons: Vec::new(),
        },
        all: args.all,
        dry_run,
        to_topic: args.to_topic.clone(),
        through: None,
        rate: args.rate,
        ends_with_process: args.once,
    };
    let counted = access.ask(&OperatorCommand::Replay(request(true))).await?;
    let chosen = number(&counted, "chosen");
    match chosen {
        0 => return Err(nothing_matches()),
        _ if args.dry_run => return say_chosen(chosen, args.json),
        _ => {}
    }
    let answer = access.ask(&OperatorCommand::Replay(request(false))).await?;
    follow(access, &answer, "published", args.detach, args.json).await
}
