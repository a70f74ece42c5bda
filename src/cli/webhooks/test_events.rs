//! Test events, which the provider sends to every webhook of the account that wants them.

use clap::Args;
use serde_json::json;

use super::{ApiFlags, kinds::WebhookKind};
use crate::{
    cli::{CommandFailure, ExitCause, out},
    millicast_api::TestSubject,
};

#[derive(Args)]
pub struct TestWebhooksArgs {
    /// Kinds of events
    #[arg(value_name = "KIND", required = true, ignore_case = true)]
    pub kinds: Vec<WebhookKind>,
    #[command(flatten)]
    pub api: ApiFlags,
    /// The stream that the events say they are about
    #[arg(long, value_name = "NAME")]
    pub stream_name: Option<String>,
    /// The transcoder that the events say they are about
    #[arg(long, value_name = "NAME")]
    pub transcoder_name: Option<String>,
    /// Print one JSON object a line, and nothing else, on stdout
    #[arg(long)]
    pub json: bool,
}

/// Asks for all of them, also where one is refused: an account need not have a webhook for each.
pub async fn run(args: &TestWebhooksArgs) -> Result<ExitCause, CommandFailure> {
    let subject = TestSubject {
        stream_name: args.stream_name.clone(),
        transcoder_name: args.transcoder_name.clone(),
    };
    let client = args.api.client().await?;
    let mut exit = ExitCause::Ok;
    for kind in &args.kinds {
        let refused = match client
            .test(kind.webhook_type(), &subject)
            .await
            .map_err(CommandFailure::from)
        {
            Ok(()) => None,
            Err(failure) if failure.exit == ExitCause::NotRight => Some(failure.text),
            Err(failure) => return Err(failure),
        };
        if refused.is_some() {
            exit = ExitCause::NotRight;
        }
        let kind = kind.name();
        // The next is asked for, whoever reads that.
        let _ = match (args.json, refused) {
            (true, refused) => out(format_args!(
                "{}\n",
                json!({ "kind": kind, "asked": refused.is_none(), "problem": refused })
            )),
            (false, None) => out(format_args!("{kind}: the provider sends one\n")),
            (false, Some(problem)) => out(format_args!("{kind}: {problem}\n")),
        };
    }
    Ok(exit)
}
