//! `forebay send`: signed sample webhooks over HTTP, as the provider sends them.
//!
//! [`plan`] says which webhooks go out, [`load`] sends them, [`report`] tells what came of it. A stream's webhooks go
//! one after the other, each after the answer to the one before; streams go side by side.

mod accepted;
mod load;
mod plan;
mod report;

use clap::Args;

use self::{accepted::AcceptedEvents, plan::SendPlan};
use super::{CommandFailure, ExitCause, SecretText};
use crate::{
    config::Shown,
    event::Time,
    senders::{self, SampleKind, Sender},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay send --url http://localhost:8080/millicast/acme --secret env:ACME_SECRET
  forebay send --url $URL --secret file:secret --kind feeds --kind media.completed --count 1000
  forebay send --url $URL --secret env:ACME_SECRET --count 60000 --rate 2000 --streams 500 --concurrency 64
  forebay send --url $URL --secret env:ACME_SECRET --count 1 --metrics http://localhost:9464/metrics
  forebay send --url $URL --secret env:ACME_SECRET --count 5000 --shuffle 20 --duplicates 5 --seed 1 --json

With --rate, latency counts from the moment at which a webhook was due, not from when it got its turn.
Exit codes: 1 when an answer was not 2xx or a connection failed; 69 when nothing could be reached.")]
pub struct SendArgs {
    /// Where the webhooks go
    #[arg(long)]
    pub url: String,
    /// The webhook's secret: env:NAME, file:PATH, or base64 as the provider shows it, which then stands in the list of
    /// processes
    #[arg(long, value_name = "SOURCE")]
    pub secret: SecretText,
    /// Who sends
    #[arg(long, value_name = "NAME", default_value = senders::usual().provider().name, value_parser = provider)]
    pub provider: Provider,
    /// Only this kind, or KIND.EVENT; repeatable [default: a stream's life, with every kind]
    #[arg(long = "kind", value_name = "KIND")]
    pub kinds: Vec<String>,
    /// Events, all different; duplicates come on top
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,
    /// Streams among which the events are spread
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub streams: u64,
    /// Webhooks under way at once; never more than streams
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub concurrency: u64,
    /// Webhooks a second, on a fixed schedule [default: as fast as they are answered]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,
    /// Shuffle among each N webhooks, so that a stream's events arrive out of order
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub shuffle: u64,
    /// Events that are sent twice, a few webhooks apart
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    pub duplicates: f64,
    /// The same seed makes the same webhooks, byte for byte [default: new ones, of now]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Afterwards read this Forebay's metrics, and fail unless they have all that was answered 2xx
    #[arg(long, value_name = "URL")]
    pub metrics: Option<String>,
    /// Print the summary as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// What `--provider` stands for.
#[derive(Clone)]
pub struct Provider(&'static dyn Sender);

fn provider(text: &str) -> Result<Provider, String> {
    let known = || {
        let names = senders::senders().iter().map(|sender| sender.provider().name);
        names.collect::<Vec<_>>().join(", ")
    };
    let sender = senders::named(text).ok_or_else(|| format!("no such provider; known: {}", known()))?;
    Ok(Provider(sender))
}

/// What a `--kind` stands for.
fn kind(sender: &dyn Sender, text: &str) -> Result<Vec<SampleKind>, CommandFailure> {
    let (kind, event) = match text.split_once('.') {
        Some((kind, event)) => (kind, Some(event)),
        None => (text, None),
    };
    let plural = if kind.eq_ignore_ascii_case("recording") {
        "recordings"
    } else {
        kind
    };
    let found = senders::find(sender.samples(), plural, event);
    if found.is_empty() {
        let mut known: Vec<&str> = Vec::new();
        for kind in sender.life().iter().map(|sample| sample.kind) {
            if !known.contains(&kind) {
                known.push(kind);
            }
        }
        return Err(CommandFailure::usage(format!(
            "--kind {}: no such kind or event; kinds: {}",
            Shown(text),
            known.join(", ")
        )));
    }
    Ok(found)
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=1_000_000.0).contains(rate));
    rate.ok_or_else(|| "expected webhooks a second, from 0.001 to 1000000".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "expected a percentage, from 0 to 100".to_owned())
}

pub(super) fn run(args: &SendArgs) -> Result<ExitCause, CommandFailure> {
    let url: reqwest::Url = args
        .url
        .parse()
        .map_err(|error| CommandFailure::usage(format!("--url {}: {error}", Shown(&args.url))))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(CommandFailure::usage(format!(
            "--url {}: expected http:// or https://",
            Shown(&args.url)
        )));
    }
    let secret = args.secret.read()?;
    args.secret.warn_where_visible();
    let Provider(sender) = args.provider;
    let kinds = args.kinds.iter().map(|text| kind(sender, text));
    let plan = SendPlan::new(plan::SendOptions {
        sender,
        life: kinds.collect::<Result<Vec<_>, _>>()?.concat(),
        count: args.count,
        streams: args.streams,
        shuffle: args.shuffle,
        duplicate_share: args.duplicates / 100.0,
        seed: args.seed,
        now: now(),
    });
    let target = load::SendTarget { sender, url, secret };
    let pace = load::SendPace {
        // More lanes than streams would stand idle.
        lanes: args.concurrency.min(args.streams) as usize,
        rate: args.rate,
    };
    let (report, counted) = super::runtime()?.block_on(async {
        let accepted = match &args.metrics {
            Some(url) => Some(AcceptedEvents::now(url).await?),
            None => None,
        };
        let report = load::send(target, plan, pace).await?;
        let counted = match &accepted {
            Some(accepted) => accepted.has_grown_by(report.accepted()).await,
            None => Ok(()),
        };
        Ok::<_, CommandFailure>((report, counted))
    })?;
    // Whoever closed the pipe does not want to know.
    let _ = match args.json {
        true => super::out(format_args!("{}\n", report.json())),
        false => super::out(format_args!("{report}")),
    };
    match report.was_reached() {
        false => Err(CommandFailure::unavailable(format!(
            "nothing was reached at {}: {}",
            Shown(&args.url),
            report.failures()
        ))),
        true if report.is_right() => counted.map(|()| ExitCause::Ok),
        true => Ok(ExitCause::NotRight),
    }
}

fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time(since.map(|since| since.as_millis() as i64).unwrap_or_default())
}
