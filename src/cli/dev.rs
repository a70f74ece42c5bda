//! `forebay dev`: everything in one process, with an embedded Kafka and a temporary spool, to try it out.

use std::{net::SocketAddr, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::{DevArgs, Exit, Failure, out, runtime, tail::Show};
use crate::{
    app::App,
    config::{Config, SinkKind},
    event::Time,
    provider::millicast::{
        Secret,
        samples::{self, Parameters, Sample},
        sign,
    },
    sink::kafka::{
        embedded::EmbeddedKafka,
        tail::{Tail, TailOptions},
    },
};

const PATH: &str = "/millicast/dev";
const EVENTS: &str = "millicast.events";
const THUMBNAILS: &str = "millicast.thumbnails";
const PARTITIONS: i32 = 4;
const ACCOUNT: &str = "ZG6NWV";
/// The embedded Kafka is in this process: what takes longer is broken.
const TAIL_DEADLINE: Duration = Duration::from_secs(10);

/// What a newcomer needs to know, and to type.
struct Guide {
    url: String,
    admin: SocketAddr,
    secret: String,
    brokers: String,
    curl: String,
}

pub(super) fn run(args: &DevArgs) -> Result<Exit, Failure> {
    runtime()?.block_on(dev(args))
}

async fn dev(args: &DevArgs) -> Result<Exit, Failure> {
    let kafka = EmbeddedKafka::start(&[EVENTS, THUMBNAILS], PARTITIONS)
        .map_err(|error| Failure::bug(format!("failed to start the embedded Kafka: {error}")))?;
    let dir = TempDir::with_prefix("forebay-dev-")
        .map_err(|error| Failure::disk(format!("failed to make a temporary directory: {error}")))?;
    let (secret, text) = secret(args)?;
    let config = config(args, dir.path(), &text, &kafka.brokers())?;
    let SinkKind::Kafka(sink) = config.sinks[0].kind.clone();
    let topics = config.routes.iter().map(|route| route.topic.clone()).collect();
    let app = App::build(config).await.map_err(|error| {
        let failure = Failure::from(error);
        match failure.exit {
            Exit::Unavailable => Failure::unavailable(format!(
                "{failure}; --listen 127.0.0.1:0 --admin 127.0.0.1:0 take any free port"
            )),
            _ => failure,
        }
    })?;
    let guide = guide(&app, &secret, text, kafka.brokers());
    let tail = Tail::open(TailOptions {
        kafka: sink,
        topics,
        from_start: true,
        deadline: TAIL_DEADLINE,
    })
    .await
    .map_err(|error| Failure::bug(format!("failed to read the embedded Kafka: {error}")))?;

    if args.json {
        say(&guide.json())?;
    } else {
        say(&guide.opening())?;
    }
    let url = guide.url.clone();
    let showing = show(
        tail,
        Show::new(args.json),
        (!args.no_samples).then_some(samples::ALL.len()),
        args.json,
        &guide,
    );
    let sending = async {
        if !args.no_samples {
            send_samples(&url, &secret).await?;
        }
        std::future::pending::<Result<Exit, Failure>>().await
    };
    tokio::select! {
        stopped = app.run() => stopped.map(|()| Exit::Ok).map_err(Failure::from),
        failed = showing => failed,
        failed = sending => failed,
    }
}

/// Shows every event as it arrives; behind the last sample, how to go on.
async fn show(
    mut tail: Tail,
    mut show: Show,
    samples: Option<usize>,
    json: bool,
    guide: &Guide,
) -> Result<Exit, Failure> {
    let mut left = samples.unwrap_or(0);
    if left == 0 && !json {
        say(&guide.how_to_go_on())?;
    }
    loop {
        let message = tail
            .next()
            .await
            .map_err(|error| Failure::bug(format!("failed to read the embedded Kafka: {error}")))?;
        if show.message(&message).is_err() {
            // Nobody reads any more.
            return Ok(Exit::Ok);
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
fn say(text: &str) -> Result<(), Failure> {
    let _ = out(format_args!("{text}\n"));
    Ok(())
}

/// The secret that was given, else a new one, with its text for people.
fn secret(args: &DevArgs) -> Result<(Secret, String), Failure> {
    if let Some(given) = &args.secret {
        return Ok((given.read()?, given.base64()?));
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Failure::bug(format!("no random numbers: {error}")))?;
    let text = STANDARD.encode(bytes);
    let secret = Secret::from_base64(&text).expect("it was just encoded");
    Ok((secret, text))
}

/// The configuration, by way of a file: with the same defaults as anybody's.
fn config(args: &DevArgs, dir: &Path, secret: &str, brokers: &str) -> Result<Config, Failure> {
    let file = dir.join("forebay.json");
    let content = json!({
        "server": { "listen": args.listen, "drain_delay": "0s", "shutdown_deadline": "5s" },
        "admin": { "listen": args.admin },
        "spool": { "dir": dir.join("spool"), "bytes_max": "1GiB", "replica": "dev" },
        "endpoints": { "dev": { "path": PATH, "account": ACCOUNT, "secrets": [format!("base64:{secret}")] } },
        "sinks": { "embedded": { "type": "kafka", "brokers": brokers.split(',').collect::<Vec<_>>() } },
    });
    // JSON is YAML.
    let file = file.with_extension("yaml");
    std::fs::write(&file, content.to_string())
        .map_err(|error| Failure::disk(format!("failed to write {}: {error}", file.display())))?;
    Ok(Config::load(&file, std::iter::empty())?)
}

fn parameters(stream_name: &str, counter: u64) -> Parameters<'_> {
    Parameters {
        account: ACCOUNT,
        stream_name,
        feed_id: Uuid::from_u128(0x369e_4a86_f937_4254_bd9f_99dc_484d_2bd6 + u128::from(counter / 2)),
        sent: Time(jiff::Timestamp::now().as_millisecond()),
        counter,
    }
}

/// One of every kind, in the order of a stream's life.
async fn send_samples(url: &str, secret: &Secret) -> Result<(), Failure> {
    let client = reqwest::Client::new();
    for (counter, kind) in (0..).zip(samples::ALL) {
        let sample = samples::sample(kind, &parameters("sample_stream", counter));
        let answer = post(&client, url, secret, sample)
            .await
            .map_err(|error| Failure::bug(format!("failed to send a sample to {url}: {error}")))?;
        if !answer.is_success() {
            return Err(Failure::bug(format!(
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
    let mut request = client
        .post(url)
        .header("content-type", sample.content_type)
        .header("x-millicast-signature", sign(secret, &sample.body));
    for (name, value) in sample.headers {
        request = request.header(name, value);
    }
    Ok(request.body(sample.body).send().await?.status())
}

fn guide(app: &App, secret: &Secret, text: String, brokers: String) -> Guide {
    let public = app.public_addresses()[0];
    let url = format!("http://{public}{PATH}");
    let sample = samples::sample(samples::ALL[0], &parameters("my_stream", 1000));
    let body = String::from_utf8(sample.body).expect("the first sample is JSON");
    let curl = format!(
        "curl -i {url} -H 'Content-Type: application/json' -H 'X-Millicast-Signature: {}' -d '{body}'",
        sign(secret, body.as_bytes())
    );
    Guide {
        url,
        admin: app.admin_addresses()[0],
        secret: text,
        brokers,
        curl,
    }
}

impl Guide {
    fn opening(&self) -> String {
        format!(
            "Forebay takes webhooks in at {}\n  secret (base64)  {}\n  embedded Kafka   {} (topics {EVENTS}, {THUMBNAILS}; it keeps nothing)\n  \
             operator         http://{}/status /metrics /readyz\n",
            self.url, self.secret, self.brokers, self.admin
        )
    }

    fn how_to_go_on(&self) -> String {
        format!(
            "\nNow one of your own:\n\n  {}\n\nRead the topic with any librdkafka client (kcat, confluent-kafka) or kafkajs; the Java client, franz-go and \
             kafka-python\nmisread this embedded Kafka, and work with a real one:\n\n  kcat -b {} -t {EVENTS} -C\n\nOr send more: \
             forebay send --url {} --secret {}\nWaiting for webhooks. Ctrl-C stops.\n",
            self.curl, self.brokers, self.url, self.secret
        )
    }

    fn json(&self) -> String {
        json!({
            "listening": {
                "url": self.url,
                "admin": format!("http://{}", self.admin),
                "secret": self.secret,
                "brokers": self.brokers,
                "topics": [EVENTS, THUMBNAILS],
                "curl": self.curl,
            }
        })
        .to_string()
    }
}
