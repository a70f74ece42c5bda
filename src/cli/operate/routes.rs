//! `forebay routes`: shown, paused, resumed.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{number, operate, text};
use crate::{
    api::OperatorCommand,
    cli::{CommandFailure, ConfigArg, ExitCause, out},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay routes list --config forebay.toml
  forebay routes pause --config forebay.toml events
  forebay routes resume --config forebay.toml events

A paused route publishes nothing; webhooks are taken in all the same, as long as the spool has room. It stays paused
over a restart. What it had in flight may settle; what the broker does not confirm within 10 s comes again later.")]
pub struct RoutesArgs {
    #[command(subcommand)]
    pub command: RoutesCommand,
}

#[derive(Subcommand)]
pub enum RoutesCommand {
    /// Show which there are, and how they do
    List(RoutesListArgs),
    /// Publish nothing more for now
    Pause(RouteArgs),
    /// Go on
    Resume(RouteArgs),
}

#[derive(Args)]
pub struct RoutesListArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print one JSON object a line, and nothing else, on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct RouteArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Print it as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

pub(in crate::cli) fn run(args: &RoutesArgs) -> Result<ExitCause, CommandFailure> {
    let (config, as_json, command) = match &args.command {
        RoutesCommand::List(args) => (&args.config, args.json, OperatorCommand::Routes),
        RoutesCommand::Pause(args) => (&args.config, args.json, OperatorCommand::PauseRoute(args.name.clone())),
        RoutesCommand::Resume(args) => (&args.config, args.json, OperatorCommand::ResumeRoute(args.name.clone())),
    };
    let answer = operate(config, async |access| access.ask(&command).await)?;
    let routes = answer["routes"].as_array();
    let is_list = routes.is_some();
    for route in routes.cloned().unwrap_or_else(|| vec![answer.clone()]) {
        let said = match (as_json, is_list) {
            (true, _) => out(format_args!("{route}\n")),
            (false, true) => out(format_args!("{}\n", line(&route))),
            (false, false) => out(format_args!("{}\n", change(&route))),
        };
        if said.is_err() {
            break;
        }
    }
    Ok(ExitCause::Ok)
}

fn line(route: &Value) -> String {
    let paused = if route["paused"].is_null() { "" } else { ", paused" };
    let blocked = route["blocked"]["text"].as_str();
    let blocked = blocked.map_or_else(String::new, |text| format!(", blocked: {text}"));
    let backlog = match route["backlog_records"].is_null() {
        true => String::new(),
        false => format!(" {} records behind", number(route, "backlog_records")),
    };
    format!(
        "{} to {}:{backlog}{paused}{blocked}",
        text(route, "name"),
        text(route, "sink")
    )
}

fn change(route: &Value) -> String {
    let name = text(route, "name");
    match (route["paused"].is_null(), route["changed"].as_bool().unwrap_or(false)) {
        (false, true) => format!("{name} is paused"),
        (false, false) => format!("{name} was paused before"),
        (true, true) => format!("{name} goes on"),
        (true, false) => format!("{name} was not paused"),
    }
}
