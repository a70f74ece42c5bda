//! `forebay dev`: everything in one process, with a temporary spool and an embedded Kafka, or into a RabbitMQ, to try
//! it out.

mod guide;

use std::{
    fs::{OpenOptions, Permissions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use self::guide::{DevBroker, DevGuide};
use super::{
    CommandFailure, DevArgs, ExitCause,
    brokers::warn_of_uri,
    out, runtime,
    tail::{EventPrinter, ShownMessage},
};
use crate::{
    config::{Config, process_env},
    event::Time,
    node::{HandedSockets, Node},
    senders::{self, Sample, SampleParameters, Secret},
    sink::{EventSource, MessageTail, TailOptions, kafka::embedded::EmbeddedKafka},
};

const EXCHANGE: &str = "forebay-dev";
const PARTITIONS: i32 = 4;
const ACCOUNT: &str = "ZG6NWV";
/// The embedded Kafka is in this process: what takes longer is broken.
const TAIL_DEADLINE: Duration = Duration::from_secs(10);

/// Where webhooks are taken in.
fn path() -> String {
    format!("/{}/dev", senders::usual().provider().name)
}

/// What the routes that are there by default publish to.
fn topics() -> [String; 2] {
    ["events", "thumbnails"].map(|route| format!("{}.{route}", senders::usual().provider().name))
}

pub(super) fn run(args: &DevArgs) -> Result<ExitCause, CommandFailure> {
    runtime()?.block_on(dev(args))
}

async fn dev(args: &DevArgs) -> Result<ExitCause, CommandFailure> {
    let embedded = match &args.amqp {
        Some(_) => None,
        None => Some(
            EmbeddedKafka::start(&topics().each_ref().map(String::as_str), PARTITIONS)
                .map_err(|error| CommandFailure::bug(format!("failed to start the embedded Kafka: {error}")))?,
        ),
    };
    let brokers = embedded.as_ref().map(EmbeddedKafka::brokers);
    let dir = temporary_dir()
        .map_err(|error| CommandFailure::disk(format!("failed to make a temporary directory: {error}")))?;
    let (secret, text) = secret(args)?;
    if let Some(given) = &args.secret {
        given.warn_where_visible();
    }
    if let Some(uri) = &args.amqp {
        warn_of_uri("--amqp", uri);
    }
    let config = config(args, dir.path(), &text, brokers.as_deref())?;
    let source = source(&config, embedded.is_some()).await?;
    let node = Node::open(config, HandedSockets::default()).await.map_err(|error| {
        let failure = CommandFailure::from(error);
        match failure.exit {
            ExitCause::Unavailable => CommandFailure::unavailable(format!(
                "{failure}; --listen 127.0.0.1:0 --admin 127.0.0.1:0 take any free port"
            )),
            _ => failure,
        }
    })?;
    let broker = brokers.map_or(DevBroker::RabbitMq, DevBroker::Embedded);
    let guide = DevGuide::new(&node, &secret, text, broker);
    let tail = source.open().await?;

    if args.json {
        say(&guide.json())?;
    } else {
        say(&guide.opening())?;
    }
    let url = guide.url.clone();
    let showing = show(
        tail,
        EventPrinter::new(args.json),
        (!args.no_samples).then_some(senders::usual().samples().len()),
        args.json,
        &guide,
    );
    let sending = async {
        if !args.no_samples {
            send_samples(&url, &secret).await?;
        }
        std::future::pending::<Result<ExitCause, CommandFailure>>().await
    };
    tokio::select! {
        stopped = node.run(None) => stopped.map(|()| ExitCause::Ok).map_err(CommandFailure::from),
        failed = showing => failed,
        failed = sending => failed,
    }
}

/// What is shown: from the beginning of the embedded Kafka, or all that comes to a broker, where what takes it is there
/// before.
async fn source(config: &Config, from_start: bool) -> Result<EventSource<dyn MessageTail>, CommandFailure> {
    let sink = &config.sinks[0];
    let prepared = sink.settings.prepare("dev").await;
    prepared.map_err(|failure| CommandFailure::unavailable(failure.text))?;
    // Of the routes together nothing is left out.
    let routes = config.routes.iter().filter_map(|route| route.address.as_ref());
    let followed: Vec<_> = routes.map(|address| (address, [].as_slice())).collect();
    let options = TailOptions {
        from_start,
        deadline: TAIL_DEADLINE,
    };
    Ok(sink.settings.tail(&followed, options)?)
}

/// Shows every event as it arrives; behind the last sample, how to go on.
async fn show(
    mut tail: Box<dyn MessageTail>,
    mut show: EventPrinter,
    samples: Option<usize>,
    json: bool,
    guide: &DevGuide,
) -> Result<ExitCause, CommandFailure> {
    let mut left = samples.unwrap_or(0);
    if left == 0 && !json {
        say(&guide.how_to_go_on())?;
    }
    loop {
        let message = ShownMessage(tail.next().await?);
        if show.message(&message).is_err() {
            // Nobody reads any more.
            return Ok(ExitCause::Ok);
        }
        if left > 0 {
            left -= 1;
            if left == 0 && !json {
                say(&guide.how_to_go_on())?;
            }
        }
    }
}

/// Prints to stdout; that nobody reads it any more is found out by the next event.
fn say(text: &str) -> Result<(), CommandFailure> {
    let _ = out(format_args!("{text}\n"));
    Ok(())
}

/// A directory for the spool and for the configuration with its secret, which nobody else can enter.
fn temporary_dir() -> std::io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("forebay-dev-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
}

/// The secret that was given, else a new one, with its text for people.
fn secret(args: &DevArgs) -> Result<(Secret, String), CommandFailure> {
    if let Some(given) = &args.secret {
        return Ok((given.read()?, given.base64()?));
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| CommandFailure::bug(format!("no random numbers: {error}")))?;
    let text = STANDARD.encode(bytes);
    let secret = Secret::from_base64(&text).expect("it was just encoded");
    Ok((secret, text))
}

/// The configuration, by way of a file: with the same defaults as anybody's.
fn config(args: &DevArgs, dir: &Path, secret: &str, brokers: Option<&str>) -> Result<Config, CommandFailure> {
    let sinks = match (brokers, &args.amqp) {
        (Some(brokers), _) => json!({
            "embedded": { "type": "kafka", "brokers": brokers.split(',').collect::<Vec<_>>() }
        }),
        (None, uri) => json!({
            "rabbit": {
                "type": "rabbitmq", "uri": uri, "exchange": EXCHANGE, "partitions": PARTITIONS, "declare": true
            }
        }),
    };
    let file = dir.join("forebay.json");
    let content = json!({
        "server": { "listen": args.listen, "drain_delay": "0s", "shutdown_deadline": "5s" },
        "admin": { "listen": args.admin },
        "spool": { "dir": dir.join("spool"), "bytes_max": "1GiB", "replica": "dev" },
        "endpoints": { "dev": { "path": path(), "account": ACCOUNT, "secrets": [format!("base64:{secret}")] } },
        "sinks": sinks,
    });
    // JSON is YAML.
    let file = file.with_extension("yaml");
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .and_then(|mut file| file.write_all(content.to_string().as_bytes()))
        .map_err(|error| CommandFailure::disk(format!("failed to write {}: {error}", file.display())))?;
    // For `--amqp env:NAME`; the keys of a configuration that is not ours are left out.
    let env = process_env().filter(|(name, _)| !name.starts_with("FOREBAY"));
    Ok(Config::load(&file, env)?)
}

fn parameters(stream_name: &str, counter: u64) -> SampleParameters<'_> {
    SampleParameters {
        account: ACCOUNT,
        stream_name,
        feed_id: Uuid::from_u128(0x369e_4a86_f937_4254_bd9f_99dc_484d_2bd6 + u128::from(counter / 2)),
        sent: Time(jiff::Timestamp::now().as_millisecond()),
        counter,
    }
}

/// One of every kind, in the order of a stream's life.
async fn send_samples(url: &str, secret: &Secret) -> Result<(), CommandFailure> {
    let client = reqwest::Client::new();
    let sender = senders::usual();
    for (counter, kind) in (0..).zip(sender.samples()) {
        let sample = sender.sample(*kind, &parameters("sample_stream", counter));
        let answer = post(&client, url, secret, sample)
            .await
            .map_err(|error| CommandFailure::bug(format!("failed to send a sample to {url}: {error}")))?;
        if !answer.is_success() {
            return Err(CommandFailure::bug(format!(
                "the sample {}.{} was answered {answer}",
                kind.kind, kind.event
            )));
        }
    }
    Ok(())
}

async fn post(
    client: &reqwest::Client,
    url: &str,
    secret: &Secret,
    sample: Sample,
) -> reqwest::Result<reqwest::StatusCode> {
    let mut request = client.post(url).header("content-type", sample.content_type);
    let signed = senders::usual().sign(secret, &sample.body);
    for (name, value) in sample.headers.into_iter().chain(signed) {
        request = request.header(name, value);
    }
    Ok(request.body(sample.body).send().await?.status())
}
