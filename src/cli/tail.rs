//! `forebay tail`: shows events as they arrive in a topic.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Map, Value, json};

use super::{Exit, Failure, out, runtime, stopped};
use crate::{
    config::{self, Config, SinkKind, Template, process_env},
    sink::kafka::tail::{Tail, TailOptions, Tailed},
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay tail --config forebay.toml
  forebay tail --config forebay.toml --route thumbnails --from-start --count 10
  forebay tail --brokers localhost:9092 --topic millicast.events --stream ZG6NWV/sample_stream
  forebay tail --config forebay.toml --json | jq .event.type

It reads all partitions, joins no group and commits nothing. Within a partition events come in order;
between partitions they come as they are read. Ctrl-C ends it.")]
#[command(group = clap::ArgGroup::new("source").required(true).args(["config", "brokers"]))]
pub struct TailArgs {
    /// The configuration whose sink and topics are meant
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The route whose topic is meant [default: all routes of the only sink]
    #[arg(long, value_name = "NAME", requires = "config")]
    pub route: Option<String>,
    /// Kafka's brokers, host:port, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        requires = "topic",
        conflicts_with = "config",
        value_delimiter = ','
    )]
    pub brokers: Vec<String>,
    /// The topic
    #[arg(long, value_name = "NAME", requires = "brokers")]
    pub topic: Option<String>,
    /// Begin with the oldest event that is there
    #[arg(long)]
    pub from_start: bool,
    /// Only events of this stream: their key, such as ZG6NWV/sample_stream
    #[arg(long, value_name = "KEY")]
    pub stream: Option<String>,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &TailArgs) -> Result<Exit, Failure> {
    let options = options(args)?;
    runtime()?.block_on(async {
        tokio::select! {
            ended = follow(args, options) => ended,
            () = stopped() => Ok(Exit::Ok),
        }
    })
}

fn options(args: &TailArgs) -> Result<TailOptions, Failure> {
    let (kafka, topics) = match (&args.config, &args.topic) {
        (Some(path), _) => configured(&Config::load(path, process_env())?, args.route.as_deref())?,
        (None, topic) => {
            let topic = topic.as_deref().unwrap_or_default();
            let topic = Template::parse(topic).map_err(|error| Failure::usage(format!("--topic: {error}")))?;
            let (brokers, properties, create_topics) = (args.brokers.clone(), BTreeMap::new(), None);
            (
                config::Kafka {
                    brokers,
                    properties,
                    create_topics,
                },
                vec![topic],
            )
        }
    };
    let (from_start, deadline) = (args.from_start, CONNECT_DEADLINE);
    Ok(TailOptions {
        kafka,
        topics,
        from_start,
        deadline,
    })
}

/// The sink and the topics of a route, or of all routes, which must then have the same sink.
fn configured(config: &Config, route: Option<&str>) -> Result<(config::Kafka, Vec<Template>), Failure> {
    let names = || {
        config
            .routes
            .iter()
            .map(|route| route.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let routes: Vec<_> = config
        .routes
        .iter()
        .filter(|r| route.is_none_or(|name| r.name == name))
        .collect();
    let Some(first) = routes.first() else {
        return Err(Failure::usage(format!(
            "--route: there is no such route; known: {}",
            names()
        )));
    };
    if routes.iter().any(|route| route.sink != first.sink) {
        return Err(Failure::usage(format!(
            "--route is needed, for the routes have several sinks: {}",
            names()
        )));
    }
    let sink = config.sinks.iter().find(|sink| sink.name == first.sink);
    let SinkKind::Kafka(kafka) = &sink.expect("a route's sink exists").kind;
    let mut topics: Vec<Template> = Vec::new();
    for route in routes.iter().filter(|route| route.sink == first.sink) {
        if !topics.contains(&route.topic) {
            topics.push(route.topic.clone());
        }
    }
    Ok((kafka.clone(), topics))
}

async fn follow(args: &TailArgs, options: TailOptions) -> Result<Exit, Failure> {
    let unavailable = |error: crate::sink::kafka::tail::TailError| Failure::unavailable(error.to_string());
    let topics: Vec<String> = options.topics.iter().map(ToString::to_string).collect();
    let mut tail = Tail::open(options).await.map_err(unavailable)?;
    tracing::info!(topics = topics.join(", "), "reading; Ctrl-C ends it");
    let mut show = Show::new(args.json);
    let mut shown = 0;
    while args.count.is_none_or(|count| shown < count) {
        let tailed = tail.next().await.map_err(unavailable)?;
        let is_wanted = |stream: &String| tailed.key.as_deref() == Some(stream.as_bytes());
        if !args.stream.as_ref().is_none_or(is_wanted) {
            continue;
        }
        if show.message(&tailed).is_err() {
            // Whoever read it has seen enough.
            break;
        }
        shown += 1;
    }
    Ok(Exit::Ok)
}

/// Prints messages to stdout.
pub struct Show {
    json: bool,
}

impl Show {
    /// For people, or as one JSON object a line.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints one message. `Err` when nobody reads any more.
    pub fn message(&mut self, tailed: &Tailed) -> std::io::Result<()> {
        match self.json {
            true => out(format_args!("{}\n", json_line(tailed))),
            false => out(format_args!("{}\n", line(tailed))),
        }
    }
}

/// A line for people: time, type, stream, place.
fn line(tailed: &Tailed) -> String {
    let event = event(tailed).unwrap_or_default();
    let text = |name: &str| event.get(name).and_then(Value::as_str);
    let key = tailed.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let sequence = header(tailed, "sequence").unwrap_or_default();
    format!(
        "{}  {:<52}  {}  {} partition {} offset {} sequence {}",
        text("time").unwrap_or("-"),
        text("type").unwrap_or("(no CloudEvent)"),
        printable(&key),
        tailed.topic,
        tailed.partition,
        tailed.offset,
        match sequence.trim_start_matches('0') {
            "" => "-",
            digits => digits,
        },
    )
}

/// The message as one JSON object, with the CloudEvent that it is as `event`, whatever its mode.
fn json_line(tailed: &Tailed) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = tailed
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), json!(text(value))));
    let mut line = json!({
        "topic": tailed.topic,
        "partition": tailed.partition,
        "offset": tailed.offset,
        "timestamp": tailed.timestamp_ms,
        "key": tailed.key.as_deref().map(text),
        "headers": headers.collect::<Map<_, _>>(),
    });
    match event(tailed) {
        Some(event) => line["event"] = event.into(),
        None => line["body_base64"] = STANDARD.encode(&tailed.payload).into(),
    }
    line
}

/// The CloudEvent, of either mode; `None` when it is none.
fn event(tailed: &Tailed) -> Option<Map<String, Value>> {
    let content_type = header(tailed, "content-type").unwrap_or_default();
    if content_type.starts_with("application/cloudevents+json") {
        return serde_json::from_slice(&tailed.payload).ok();
    }
    header(tailed, "ce_specversion")?;
    let attributes = tailed.headers.iter().filter_map(|(name, value)| {
        let name = name.strip_prefix("ce_")?;
        Some((name.to_owned(), json!(String::from_utf8_lossy(value))))
    });
    let mut event: Map<String, Value> = attributes.collect();
    match serde_json::from_slice(&tailed.payload) {
        Ok(data) if content_type.contains("json") => event.insert("data".to_owned(), data),
        _ => event.insert("data_base64".to_owned(), STANDARD.encode(&tailed.payload).into()),
    };
    event.insert("datacontenttype".to_owned(), content_type.into());
    Some(event)
}

fn header(tailed: &Tailed, name: &str) -> Option<String> {
    let found = tailed
        .headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
}

/// A stream's name may hold what would change the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: &[(&str, &str)], payload: &[u8]) -> Tailed {
        Tailed {
            topic: "t".to_owned(),
            partition: 3,
            offset: 17,
            timestamp_ms: Some(5),
            key: Some(b"ZG6NWV/s\x1b[2J".to_vec()),
            headers: headers
                .iter()
                .map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec()))
                .collect(),
            payload: payload.to_vec(),
        }
    }

    #[test]
    fn both_modes_are_shown_as_the_same_event() {
        let structured = message(
            &[("content-type", "application/cloudevents+json; charset=utf-8"), ("sequence", "00000000000000000042")],
            br#"{"specversion":"1.0","type":"com.millicast.feeds.started","time":"2021-12-02T16:44:46.359Z","datacontenttype":"application/json","data":{"a":1}}"#,
        );
        let binary = message(
            &[
                ("content-type", "application/json"),
                ("ce_specversion", "1.0"),
                ("ce_type", "com.millicast.feeds.started"),
                ("ce_time", "2021-12-02T16:44:46.359Z"),
                ("sequence", "00000000000000000042"),
            ],
            br#"{"a":1}"#,
        );
        assert_eq!(json_line(&structured)["event"], json_line(&binary)["event"]);
        assert_eq!(line(&structured), line(&binary));
        let line = line(&binary);
        for part in [
            "2021-12-02T16:44:46.359Z",
            "com.millicast.feeds.started",
            "partition 3 offset 17 sequence 42",
        ] {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains('\x1b'), "a name cannot move the cursor");
    }

    #[test]
    fn a_picture_is_base64_and_another_body_is_no_event() {
        let picture = message(
            &[("content-type", "image/jpeg"), ("ce_specversion", "1.0")],
            b"\xff\xd8\xff",
        );
        assert_eq!(json_line(&picture)["event"]["data_base64"], "/9j/");
        let other = message(&[], b"abc");
        assert_eq!(json_line(&other)["body_base64"], "YWJj");
        assert!(json_line(&other).get("event").is_none());
    }
}
