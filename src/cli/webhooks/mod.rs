//! `forebay webhooks`: the webhooks that the provider has, by its REST API.

mod access;
mod change;
mod kinds;
mod remove;
mod show;
mod test_events;
mod token;

use clap::{Args, Subcommand};

use self::{
    access::ApiFlags,
    change::{AddWebhookArgs, UpdateWebhookArgs},
    remove::RemoveWebhookArgs,
    show::ShowFlags,
    test_events::TestWebhooksArgs,
};
use super::{CommandFailure, ExitCause};
use crate::millicast_api::{ApiError, ListOrder};

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay webhooks list --token env:MILLICAST_TOKEN
  forebay webhooks add --token env:MILLICAST_TOKEN --url https://hooks.example/acme --feeds --media
  forebay webhooks show 100 --token env:MILLICAST_TOKEN --show-secret
  forebay webhooks update 100 --token file:/run/secrets/millicast --media=false --filter '^live-'
  forebay webhooks test feeds media --token env:MILLICAST_TOKEN
  forebay webhooks rotate 100 --token env:MILLICAST_TOKEN --show-secret
  forebay webhooks enable 100
  forebay webhooks remove 100 --token env:MILLICAST_TOKEN --yes

The token is an API secret of the account: dashboard, Settings, Security, API Secrets. Without
--token it is asked for. Secrets of webhooks are masked but with --show-secret.
Exit codes: 0; 1 the API refuses what was asked, or there is no such webhook; 64 usage, or the
token is refused; 69 the API does not answer, has trouble, or wants fewer requests.")]
pub struct WebhooksArgs {
    #[command(subcommand)]
    pub command: WebhooksCommand,
}

#[derive(Subcommand)]
pub enum WebhooksCommand {
    /// Show all of them
    List(ListWebhooksArgs),
    /// Show one of them
    Show(OneWebhookArgs),
    /// Make one, and show it
    Add(AddWebhookArgs),
    /// Change what is said of one, and show it
    Update(UpdateWebhookArgs),
    /// Remove one: what it would have sent is never sent
    Remove(RemoveWebhookArgs),
    /// Have a test event of each kind sent to every webhook of the account that wants it
    Test(TestWebhooksArgs),
    /// Renew the secret of one: what it sends from then on is signed with the new one
    Rotate(OneWebhookArgs),
    /// Lift at once what disables one for a while after too many time-outs
    Enable(OneWebhookArgs),
}

#[derive(Args)]
pub struct ListWebhooksArgs {
    #[command(flatten)]
    pub api: ApiFlags,
    #[command(flatten)]
    pub show: ShowFlags,
    /// The last that was added comes first
    #[arg(long)]
    pub descending: bool,
    /// Webhooks that are asked for at a time
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub item_count: u32,
}

#[derive(Args)]
pub struct OneWebhookArgs {
    /// Its number, as `list` shows it
    #[arg(value_name = "ID")]
    pub id: u64,
    #[command(flatten)]
    pub api: ApiFlags,
    #[command(flatten)]
    pub show: ShowFlags,
}

pub(super) fn run(args: &WebhooksArgs) -> Result<ExitCause, CommandFailure> {
    super::runtime()?.block_on(async {
        // Before anything else: the terminal is put right, whatever is under way.
        let stopped = super::stopped();
        tokio::select! {
            ended = carry_out(&args.command) => ended,
            () = stopped => Err(CommandFailure::not_right(
                "stopped; a change that was under way may have been made: look before you try again",
            )),
        }
    })
}

async fn carry_out(command: &WebhooksCommand) -> Result<ExitCause, CommandFailure> {
    match command {
        WebhooksCommand::List(args) => list(args).await,
        WebhooksCommand::Show(args) => show(args).await,
        WebhooksCommand::Add(args) => change::add(args).await,
        WebhooksCommand::Update(args) => change::update(args).await,
        WebhooksCommand::Remove(args) => remove::run(args).await,
        WebhooksCommand::Test(args) => test_events::run(args).await,
        WebhooksCommand::Rotate(args) => change::rotate(args).await,
        WebhooksCommand::Enable(args) => change::enable(args).await,
    }
}

async fn list(args: &ListWebhooksArgs) -> Result<ExitCause, CommandFailure> {
    let order = ListOrder {
        item_count: args.item_count,
        is_descending: args.descending,
    };
    let webhooks = args.api.client().await?.list(&order).await?;
    // Whoever closed the pipe has read enough.
    let _ = args.show.all(&webhooks);
    Ok(ExitCause::Ok)
}

async fn show(args: &OneWebhookArgs) -> Result<ExitCause, CommandFailure> {
    let webhook = args.api.client().await?.webhook(args.id).await?;
    let _ = args.show.one(&webhook);
    Ok(ExitCause::Ok)
}

impl From<ApiError> for CommandFailure {
    fn from(error: ApiError) -> Self {
        let text = format!("failed to {error}");
        match error {
            ApiError::Refused(refusal) => match refusal.status {
                300..=399 | 401 | 403 => Self::usage(text),
                408 | 429 | 500.. => Self::unavailable(text),
                _ => Self::not_right(text),
            },
            ApiError::Unreachable { .. }
            | ApiError::NoAnswer { .. }
            | ApiError::Unreadable { .. }
            | ApiError::Endless { .. } => Self::unavailable(text),
        }
    }
}
