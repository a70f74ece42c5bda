//! `forebay replay`: publishes again what is retained.

use clap::Args;

use super::{
    EventFlags, OperatorAccess, PublishFlags, number, operate,
    progress::{follow, nothing_matches, say_chosen},
};
use crate::{
    api::{OperatorCommand, RepublishRequest},
    cli::{CommandFailure, ConfigArg, ExitCause, verify::parse_time},
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
    #[command(flatten)]
    pub events: EventFlags,
    /// The event with this id
    #[arg(long, value_name = "ID")]
    pub id: Vec<String>,
    /// Publish to this topic instead of the route's
    #[arg(long, value_name = "NAME")]
    pub to_topic: Option<String>,
    #[command(flatten)]
    pub publish: PublishFlags,
}

pub(in crate::cli) fn run(args: &ReplayArgs) -> Result<ExitCause, CommandFailure> {
    operate(&args.config, async |access| replay(access, args).await)
}

async fn replay(access: &mut OperatorAccess, args: &ReplayArgs) -> Result<ExitCause, CommandFailure> {
    let request = |dry_run| RepublishRequest {
        dry_run,
        to_topic: args.to_topic.clone(),
        ..args.publish.request(
            Some(args.route.clone()),
            args.events.selection((args.from, args.to), &args.id),
        )
    };
    let counted = access.ask(&OperatorCommand::Replay(request(true))).await?;
    let chosen = number(&counted, "chosen");
    match chosen {
        0 => return Err(nothing_matches()),
        _ if args.publish.dry_run => return say_chosen(chosen, args.publish.json),
        _ => {}
    }
    let answer = access.ask(&OperatorCommand::Replay(request(false))).await?;
    follow(access, &answer, "published", args.publish.detach, args.publish.json).await
}
