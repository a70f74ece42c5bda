//! `forebay dead-letters`: what no broker would take, shown, published again, given up.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    LetterSelection, OperatorAccess, PublishFlags, number, operate,
    progress::{follow, nothing_matches, say_chosen},
    text,
};
use crate::{
    api::{LetterPage, OperatorCommand, RepublishRequest},
    cli::{CommandFailure, ConfigArg, ExitCause, out, terminal},
};

/// Dead letters that are asked for at a time.
const PAGE: usize = 500;

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay dead-letters list --config forebay.toml
  forebay dead-letters list --config forebay.toml --route events --reason kafka_too_large --since 2h
  forebay dead-letters show --config forebay.toml --route events 1766000000000001
  forebay dead-letters redrive --config forebay.toml --route events --stream acme/live
  forebay dead-letters redrive --config forebay.toml --route events --all
  forebay dead-letters discard --config forebay.toml --reason undecodable --yes

While `forebay serve` runs on the spool, it carries the command out; else the command opens the spool itself.
Exit codes: 0; 1 nothing matches, or some were refused again; 64 usage; 69 the process cannot be asked; 74 disk.")]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    pub command: DeadLettersCommand,
}

#[derive(Subcommand)]
pub enum DeadLettersCommand {
    /// Show which there are
    List(LettersListArgs),
    /// Show some of them whole, with the body that came
    Show(LettersListArgs),
    /// Publish them again through their route, in order, marked `redriven`
    Redrive(RedriveArgs),
    /// Give them up for good
    Discard(DiscardArgs),
}

#[derive(Args)]
pub struct LettersListArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    #[command(flatten)]
    pub selection: LetterSelection,
    /// All of them: as without any selection
    #[arg(long, hide = true)]
    pub all: bool,
    /// Print one JSON object a line, and nothing else, on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct RedriveArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    #[command(flatten)]
    pub selection: LetterSelection,
    #[command(flatten)]
    pub publish: PublishFlags,
    /// Publish through this route instead of their own: for what no route wanted
    #[arg(long, value_name = "NAME")]
    pub through: Option<String>,
    /// As `discard` takes it; nothing is asked
    #[arg(long, hide = true)]
    pub yes: bool,
}

#[derive(Args)]
pub struct DiscardArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    #[command(flatten)]
    pub selection: LetterSelection,
    /// All of them, where nothing is selected
    #[arg(long)]
    pub all: bool,
    /// Say how many there are, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Print the result as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

pub(in crate::cli) fn run(args: &DeadLettersArgs) -> Result<ExitCause, CommandFailure> {
    match &args.command {
        DeadLettersCommand::List(args) => operate(&args.config, async |access| list(access, args, false).await),
        DeadLettersCommand::Show(args) => operate(&args.config, async |access| list(access, args, true).await),
        DeadLettersCommand::Redrive(args) => operate(&args.config, async |access| redrive(access, args).await),
        DeadLettersCommand::Discard(args) => operate(&args.config, async |access| discard(access, args).await),
    }
}

async fn list(
    access: &mut OperatorAccess,
    args: &LettersListArgs,
    is_whole: bool,
) -> Result<ExitCause, CommandFailure> {
    let mut page = LetterPage {
        route: args.selection.route.clone(),
        selection: args.selection.selection(),
        after: None,
        limit: PAGE,
    };
    let mut shown: u64 = 0;
    loop {
        let answer = access.ask(&OperatorCommand::Letters(page.clone())).await?;
        for letter in answer["dead_letters"].as_array().into_iter().flatten() {
            let letter = match is_whole {
                false => letter.clone(),
                true => {
                    let (route, number) = (text(letter, "route").to_owned(), number(letter, "number"));
                    access.ask(&OperatorCommand::ShowLetter { route, number }).await?
                }
            };
            let said = match (args.json, is_whole) {
                (true, _) => out(format_args!("{letter}\n")),
                (false, true) => out(format_args!("{}\n", whole(&letter))),
                (false, false) => out(format_args!("{}\n", line(&letter))),
            };
            shown += 1;
            if said.is_err() {
                return Ok(ExitCause::Ok);
            }
        }
        match answer["next"].as_str() {
            Some(next) => page.after = Some(next.to_owned()),
            None => break,
        }
    }
    if shown == 0 {
        return Err(nothing_matches());
    }
    if !args.json && !is_whole {
        let _ = out(format_args!("{shown} dead letters\n"));
    }
    Ok(ExitCause::Ok)
}

fn line(letter: &Value) -> String {
    format!(
        "{} {} {} {} {} {} attempts {}",
        text(letter, "route"),
        number(letter, "number"),
        text(letter, "at"),
        text(letter, "reason"),
        text(letter, "type"),
        text(letter, "stream"),
        number(letter, "attempts"),
    )
}

/// All that is known of one, a line each, and then its body.
fn whole(letter: &Value) -> String {
    let mut said = String::new();
    for (name, value) in letter.as_object().into_iter().flatten() {
        if name == "body" {
            continue;
        }
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        said += &format!("{name}: {value}\n");
    }
    if let Some(body) = letter["body"].as_str() {
        said += &format!("\n{body}\n");
    }
    said
}

async fn redrive(access: &mut OperatorAccess, args: &RedriveArgs) -> Result<ExitCause, CommandFailure> {
    let request = RepublishRequest {
        through: args.through.clone(),
        ..args
            .publish
            .request(args.selection.route.clone(), args.selection.selection())
    };
    let answer = access.ask(&OperatorCommand::Redrive(request)).await?;
    let (chosen, left_out) = (number(&answer, "chosen"), answer["left_out"].as_array());
    for left in left_out.into_iter().flatten() {
        let (route, why) = (text(left, "route"), text(left, "text"));
        let records = number(left, "dead_letters");
        if chosen == 0 {
            return Err(CommandFailure::usage(format!(
                "{records} dead letters of {route}: {why}"
            )));
        }
        tracing::warn!(route, records, "these dead letters are left out: {why}");
    }
    if args.publish.dry_run || chosen == 0 {
        return say_chosen(chosen, args.publish.json);
    }
    follow(access, &answer, "published", args.publish.detach, args.publish.json).await
}

async fn discard(access: &mut OperatorAccess, args: &DiscardArgs) -> Result<ExitCause, CommandFailure> {
    let request = |dry_run| RepublishRequest {
        route: args.selection.route.clone(),
        selection: args.selection.selection(),
        all: args.all,
        dry_run,
        ..RepublishRequest::default()
    };
    let counted = access.ask(&OperatorCommand::Discard(request(true))).await?;
    let chosen = number(&counted, "chosen");
    if args.dry_run || chosen == 0 {
        return say_chosen(chosen, args.json);
    }
    if !args.yes {
        terminal::somebody_is_there(format!(
            "{chosen} dead letters would be gone for good, and nobody can be asked here: say --yes"
        ))?;
        if !terminal::says_yes(&format!("{chosen} dead letters will be gone for good. Discard them?")).await {
            return Err(CommandFailure::not_right("nothing was discarded"));
        }
    }
    let answer = access.ask(&OperatorCommand::Discard(request(false))).await?;
    let (chosen, discarded) = (number(&answer, "chosen"), number(&answer, "discarded"));
    let failed = chosen - discarded.min(chosen);
    let _ = match args.json {
        true => out(format_args!(
            "{}\n",
            json!({ "chosen": chosen, "discarded": discarded, "failed": failed })
        )),
        false => out(format_args!(
            "{chosen} chosen, {discarded} discarded, {failed} failed\n"
        )),
    };
    Ok(ExitCause::Ok)
}
