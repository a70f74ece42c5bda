//! A webhook is removed, once somebody has said that it is meant.

use clap::Args;
use serde_json::json;

use super::{ApiFlags, kinds::sent_by};
use crate::{
    cli::{CommandFailure, ExitCause, out, printable, terminal},
    millicast_api::Webhook,
};

#[derive(Args)]
pub struct RemoveWebhookArgs {
    /// Its number, as `list` shows it
    #[arg(value_name = "ID")]
    pub id: u64,
    #[command(flatten)]
    pub api: ApiFlags,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Print the result as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: &RemoveWebhookArgs) -> Result<ExitCause, CommandFailure> {
    let id = args.id;
    if !args.yes {
        terminal::somebody_is_there(format!(
            "webhook {id} would be gone for good, and nobody can be asked here: say --yes"
        ))?;
    }
    let client = args.api.client().await?;
    if !args.yes && !is_meant(&client.webhook(id).await?).await {
        return Err(CommandFailure::not_right("nothing was removed"));
    }
    client.remove(id).await?;
    // It is gone, whoever reads that.
    let _ = match args.json {
        true => out(format_args!("{}\n", json!({ "id": id, "removed": true }))),
        false => out(format_args!("webhook {id} is removed\n")),
    };
    Ok(ExitCause::Ok)
}

async fn is_meant(webhook: &Webhook) -> bool {
    let question = format!(
        "Webhook {} to {}, which sends {}, will be gone for good. Remove it?",
        webhook.id,
        printable(&webhook.url),
        sent_by(webhook)
    );
    terminal::says_yes(&question).await
}
