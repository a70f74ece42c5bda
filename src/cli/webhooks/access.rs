//! Where the API is, and what it knows the account by.

use std::time::Duration;

use clap::Args;

use super::token;
use crate::{
    cli::CommandFailure,
    config::TextSource,
    millicast_api::{BASE_URL, ClientOptions, WebhookClient},
};

/// How the API is asked.
#[derive(Args)]
pub struct ApiFlags {
    /// What the account is known by: env:NAME or file:PATH [default: it is asked for, where a terminal is there]
    #[arg(long, value_name = "SOURCE", value_parser = token::source)]
    pub token: Option<TextSource>,
    /// Where the API is
    #[arg(long, value_name = "URL", default_value = BASE_URL)]
    pub api: String,
    /// How long one answer may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = deadline)]
    pub timeout: Duration,
}

impl ApiFlags {
    pub async fn client(&self) -> Result<WebhookClient, CommandFailure> {
        let token = match &self.token {
            Some(source) => token::read(source)?,
            None => token::ask().await?,
        };
        let options = ClientOptions {
            deadline: self.timeout,
            ..ClientOptions::default()
        };
        let client = WebhookClient::new(&self.api, token, options)
            .map_err(|error| CommandFailure::usage(format!("--api: {error}")))?;
        if client.sends_in_clear() {
            tracing::warn!("the token goes over the network in clear: use https:// for --api");
        }
        Ok(client)
    }
}

fn deadline(text: &str) -> Result<Duration, String> {
    let deadline = humantime::parse_duration(text).ok();
    let range = Duration::from_millis(100)..=Duration::from_secs(600);
    let deadline = deadline.filter(|deadline| range.contains(deadline));
    deadline.ok_or_else(|| "expected a time such as 30s, from 100ms to 10m".to_owned())
}
