//! Webhooks as people and programs read them.

use std::io;

use clap::Args;
use serde_json::{Map, Value, json};

use super::kinds::sent_by;
use crate::{
    cli::{out, printable},
    millicast_api::Webhook,
};

/// In the place of a secret. It is not base64, so that nothing takes it for one.
const MASK: &str = "********";
const NOTHING: &str = "-";
const COLUMNS: [&str; 6] = ["ID", "URL", "SENDS", "FILTER", "STATE", "SECRET"];

/// How webhooks are shown.
#[derive(Args)]
pub struct ShowFlags {
    /// Show secrets as they are
    #[arg(long)]
    pub show_secret: bool,
    /// Print one JSON object a line, with the API's own names, and nothing else, on stdout
    #[arg(long)]
    pub json: bool,
}

impl ShowFlags {
    /// A table. `Err` when nobody reads any more.
    pub fn all(&self, webhooks: &[Webhook]) -> io::Result<()> {
        if self.json {
            return webhooks.iter().try_for_each(|webhook| self.one(webhook));
        }
        if webhooks.is_empty() {
            return out(format_args!("no webhooks\n"));
        }
        let rows = webhooks.iter().map(|webhook| self.row(webhook));
        let rows: Vec<[String; 6]> = [COLUMNS.map(str::to_owned)].into_iter().chain(rows).collect();
        out(format_args!("{}", table(&rows)))
    }

    /// A line for each field. `Err` when nobody reads any more.
    pub fn one(&self, webhook: &Webhook) -> io::Result<()> {
        if self.json {
            return out(format_args!("{}\n", self.value(webhook)));
        }
        let mut lines = String::new();
        let row = self.row(webhook);
        for (name, value) in COLUMNS.iter().zip(row) {
            lines += &format!("{}: {value}\n", name.to_lowercase());
        }
        for (name, value) in self.more(webhook) {
            lines += &format!("{}: {}\n", printable(&name), printable(&value.to_string()));
        }
        out(format_args!("{lines}"))
    }

    fn row(&self, webhook: &Webhook) -> [String; 6] {
        [
            webhook.id.to_string(),
            printable(&webhook.url),
            sends(webhook),
            webhook.filter.as_deref().map_or_else(|| NOTHING.to_owned(), printable),
            state(webhook),
            printable(self.secret(webhook)),
        ]
    }

    fn secret<'w>(&self, webhook: &'w Webhook) -> &'w str {
        match &webhook.secret {
            Some(secret) if self.show_secret => secret.reveal(),
            Some(_) => MASK,
            None => NOTHING,
        }
    }

    /// With the API's own names.
    fn value(&self, webhook: &Webhook) -> Value {
        let secret = webhook.secret.as_ref().map(|_| self.secret(webhook));
        let mut value = json!({
            "id": webhook.id,
            "url": webhook.url,
            "secret": secret,
            "isFeedHooks": webhook.is_feed_hooks,
            "isRecordingHooks": webhook.is_recording_hooks,
            "isThumbnailHooks": webhook.is_thumbnail_hooks,
            "isTranscoderHooks": webhook.is_transcoder_hooks,
            "isMediaHooks": webhook.is_media_hooks,
            "isViewerConnectionHooks": webhook.is_viewer_connection_hooks,
            "filter": webhook.filter,
            "disabled": webhook.disabled,
        });
        if let Some(members) = value.as_object_mut() {
            members.extend(self.more(webhook));
        }
        value
    }

    /// What is not known of a webhook here, but for what may be secret.
    fn more(&self, webhook: &Webhook) -> Map<String, Value> {
        let mut more = webhook.more.clone();
        for (name, value) in &mut more {
            if !self.show_secret && name.to_lowercase().contains("secret") {
                *value = MASK.into();
            }
        }
        more
    }
}

fn sends(webhook: &Webhook) -> String {
    let kinds = sent_by(webhook);
    match kinds.is_empty() {
        true => NOTHING.to_owned(),
        false => kinds,
    }
}

fn state(webhook: &Webhook) -> String {
    let Some(disabled) = &webhook.disabled else {
        return "enabled".to_owned();
    };
    let until = disabled.until.as_deref().map(|until| format!(" until {until}"));
    let reason = disabled.reason.as_deref().map(|reason| format!(": {reason}"));
    printable(&format!(
        "disabled{}{}",
        until.unwrap_or_default(),
        reason.unwrap_or_default()
    ))
}

/// Columns as wide as their widest cell, but for the last.
fn table(rows: &[[String; 6]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| width(column).unwrap_or_default())
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}
