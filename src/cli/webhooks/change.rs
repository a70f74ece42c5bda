//! Webhooks are made and changed.

use clap::Args;

use super::{ApiFlags, OneWebhookArgs, ShowFlags, kinds::KindFlags};
use crate::{
    cli::{CommandFailure, ExitCause, out},
    config::Shown,
    millicast_api::{FilterChange, NewWebhook, WebhookChange},
};

/// Of the API.
const FILTER_CHARS_MAX: usize = 128;

#[derive(Args)]
pub struct AddWebhookArgs {
    #[command(flatten)]
    pub api: ApiFlags,
    #[command(flatten)]
    pub show: ShowFlags,
    /// Where its events go
    #[arg(long, value_name = "URL", value_parser = url)]
    pub url: String,
    #[command(flatten)]
    pub kinds: KindFlags,
    /// Only events of streams and transcoders whose names this regular expression matches
    #[arg(long, value_name = "REGEX", value_parser = filter)]
    pub filter: Option<String>,
}

#[derive(Args)]
pub struct UpdateWebhookArgs {
    #[command(flatten)]
    pub one: OneWebhookArgs,
    /// Where its events go; this also lifts what disables it
    #[arg(long, value_name = "URL", value_parser = url)]
    pub url: Option<String>,
    #[command(flatten)]
    pub kinds: KindFlags,
    /// Only events of streams and transcoders whose names this regular expression matches
    #[arg(long, value_name = "REGEX", value_parser = filter)]
    pub filter: Option<String>,
    /// Events of all streams and transcoders
    #[arg(long, conflicts_with = "filter")]
    pub no_filter: bool,
}

fn url(text: &str) -> Result<String, String> {
    let url: Option<reqwest::Url> = text.parse().ok();
    match url.is_some_and(|url| matches!(url.scheme(), "http" | "https")) {
        true => Ok(text.to_owned()),
        false => Err("expected a URL such as https://hooks.example/millicast/acme".to_owned()),
    }
}

fn filter(text: &str) -> Result<String, String> {
    match text.chars().count() {
        1..=FILTER_CHARS_MAX => Ok(text.to_owned()),
        count => Err(format!("{count} characters: the API takes 1 to {FILTER_CHARS_MAX}")),
    }
}

pub async fn add(args: &AddWebhookArgs) -> Result<ExitCause, CommandFailure> {
    let kinds = args.kinds.kinds();
    if kinds.has_none() {
        return Err(CommandFailure::usage(format!(
            "a webhook to {} of no kind would send nothing: say --feeds, --media, --thumbnails, --transcoder, \
             --viewer-connection or --recordings",
            Shown(&args.url)
        )));
    }
    let webhook = NewWebhook::new(args.url.clone(), kinds, args.filter.clone());
    let added = args.api.client().await?.add(&webhook).await?;
    // It is there, whoever reads that.
    let _ = args.show.one(&added);
    Ok(ExitCause::Ok)
}

pub async fn update(args: &UpdateWebhookArgs) -> Result<ExitCause, CommandFailure> {
    let filter = args.filter.clone().map(FilterChange::Set);
    let change = WebhookChange {
        url: args.url.clone(),
        kinds: args.kinds.kinds(),
        filter: filter.or(args.no_filter.then_some(FilterChange::Clear)),
        ..WebhookChange::default()
    };
    if change == WebhookChange::default() {
        return Err(CommandFailure::usage(format!(
            "nothing of webhook {} is to change: say --url, --filter, --no-filter, or a kind such as --media or --media=false",
            args.one.id
        )));
    }
    let updated = args.one.api.client().await?.update(args.one.id, &change).await?;
    let _ = args.one.show.one(&updated);
    Ok(ExitCause::Ok)
}

pub async fn rotate(args: &OneWebhookArgs) -> Result<ExitCause, CommandFailure> {
    let change = WebhookChange {
        refresh_secret: Some(true),
        ..WebhookChange::default()
    };
    let rotated = args.api.client().await?.update(args.id, &change).await?;
    let _ = args.show.one(&rotated);
    if !args.show.json {
        let _ = out(format_args!(
            "\nIts secret is new. What it sends is refused until the endpoint has that one.\n"
        ));
    }
    Ok(ExitCause::Ok)
}

pub async fn enable(args: &OneWebhookArgs) -> Result<ExitCause, CommandFailure> {
    let change = WebhookChange {
        re_enable: Some(true),
        ..WebhookChange::default()
    };
    let enabled = args.api.client().await?.update(args.id, &change).await?;
    let _ = args.show.one(&enabled);
    match enabled.disabled {
        None => Ok(ExitCause::Ok),
        Some(_) => Err(CommandFailure::not_right(format!(
            "webhook {} is still disabled, as the API has it: see that its URL answers in time, then try again",
            args.id
        ))),
    }
}
