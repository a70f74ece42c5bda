//! A broker that is nobody's product: files, one for each place, a line for each message.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    mem,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use forebay::{
    broker::{
        Broker, CheckFinding, EnqueueError, EventSource, FindingLevel, Message, MessageDestination, MessagePlace,
        MessageReading, MessageTail, PublishFailure, ReadError, ReadMessage, ReadOptions, ReadPlace, Remedy,
        SettledMessage, Sink, SinkLabels, SinkSetup, TailOptions, number_of,
    },
    event::{Event, Provider},
};
use forebay_section::{ConfigTable, values};
use prometheus::{IntCounter, Registry};
use serde_json::{Value, json};

const LABELS: &[&str] = &["ledger_disk"];
const DESCRIPTORS: u64 = 8;

/// The broker: `type = "ledger"`.
pub struct Ledger;

/// What a sink's section says.
#[derive(Debug, PartialEq)]
pub struct LedgerConfig {
    dir: PathBuf,
}

/// A route's key `page`: the file that its messages are written to.
#[derive(Debug, PartialEq)]
pub struct LedgerPage(String);

pub struct LedgerMetrics {
    lines: IntCounter,
}

pub struct LedgerSink {
    dir: PathBuf,
    metrics: Arc<LedgerMetrics>,
    open: HashMap<Arc<str>, File>,
    written: Vec<u64>,
}

impl Broker for Ledger {
    type Settings = LedgerConfig;
    type Address = LedgerPage;
    type Metrics = LedgerMetrics;
    type Sink = LedgerSink;

    fn name(&self) -> &'static str {
        "ledger"
    }

    fn required_keys(&self) -> &'static str {
        "dir (ledger)"
    }

    fn settings(&self, mut table: ConfigTable<'_>) -> Option<LedgerConfig> {
        let dir = table.require("dir", values::text);
        table.finish();
        Some(LedgerConfig { dir: dir?.into() })
    }

    fn route_keys(&self) -> &'static [&'static str] {
        &["page"]
    }

    fn address(&self, table: &mut ConfigTable<'_>) -> Option<LedgerPage> {
        table.require("page", values::text).map(LedgerPage)
    }

    fn usual_address(&self, _: &str, route: &str) -> LedgerPage {
        LedgerPage(route.to_owned())
    }

    fn address_of(&self, page: &LedgerPage, event: &Event, _: &Provider) -> Arc<str> {
        format!("{}-{}", page.0, event.kind).into()
    }

    fn summary(&self, ledger: &LedgerConfig) -> String {
        format!("ledger in {}", ledger.dir.display())
    }

    fn is_same_place(&self, one: &LedgerConfig, other: &LedgerConfig) -> bool {
        one == other
    }

    fn descriptors(&self, _: &LedgerConfig, _: u64) -> u64 {
        DESCRIPTORS
    }

    fn metrics(&self, registry: &Registry) -> prometheus::Result<LedgerMetrics> {
        let lines = IntCounter::new("ledger_lines_total", "Lines that were written.")?;
        registry.register(Box::new(lines.clone()))?;
        Ok(LedgerMetrics { lines })
    }

    fn sink(&self, setup: SinkSetup<'_, Self>, metrics: Arc<LedgerMetrics>) -> Result<LedgerSink, PublishFailure> {
        Ok(LedgerSink {
            dir: setup.settings.dir.clone(),
            metrics,
            open: HashMap::new(),
            written: Vec::new(),
        })
    }

    async fn check(
        &self,
        sink: &str,
        ledger: &LedgerConfig,
        routes: &[(&str, &LedgerPage)],
        _: u64,
    ) -> Vec<CheckFinding> {
        let pages: Vec<_> = routes.iter().map(|(_, page)| page.0.as_str()).collect();
        let (level, state) = match ledger.dir.is_dir() {
            true => (FindingLevel::Good, "is there"),
            false => (FindingLevel::Problem, "is not there"),
        };
        let text = format!(
            "sink '{sink}': {} {state}, for {}",
            ledger.dir.display(),
            pages.join(", ")
        );
        vec![CheckFinding::new(level, text)]
    }

    fn tail(
        &self,
        ledger: &LedgerConfig,
        followed: &[(&LedgerPage, &[String])],
        options: TailOptions,
    ) -> Result<EventSource<dyn MessageTail>, ReadError> {
        if !options.from_start {
            return Err(ReadError::Usage(
                "a ledger is read from its start: --from-start".to_owned(),
            ));
        }
        let pages = followed.iter().flat_map(|(page, _)| files(&ledger.dir, page)).collect();
        Ok(EventSource::new("pages", async {
            Ok(Box::new(LedgerReader::open(pages)?) as Box<dyn MessageTail>)
        }))
    }

    fn read(
        &self,
        ledger: &LedgerConfig,
        page: &LedgerPage,
        _: ReadOptions,
    ) -> Result<EventSource<dyn MessageReading>, ReadError> {
        let pages = files(&ledger.dir, page);
        Ok(EventSource::new("pages", async {
            Ok(Box::new(LedgerReader::open(pages)?) as Box<dyn MessageReading>)
        }))
    }
}

fn files(dir: &Path, page: &LedgerPage) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.path());
    names
        .filter(|path| path.to_string_lossy().contains(&format!("/{}-", page.0)))
        .collect()
}

impl LedgerSink {
    fn write(&mut self, message: &Message) -> std::io::Result<()> {
        let file = match self.open.get_mut(&message.address) {
            Some(file) => file,
            None => {
                let path = self.dir.join(&*message.address);
                let file = OpenOptions::new().create(true).append(true).open(path)?;
                self.open.entry(message.address.clone()).or_insert(file)
            }
        };
        let event: Value = serde_json::from_slice(&message.body).unwrap_or_default();
        let line = json!({ "key": message.key, "sequence": format!("{:020}", message.sequence), "event": event });
        writeln!(file, "{line}")?;
        self.metrics.lines.inc();
        Ok(())
    }
}

impl Sink for LedgerSink {
    async fn reopen(&mut self) -> Result<(), PublishFailure> {
        self.open.clear();
        self.written.clear();
        Ok(())
    }

    fn place(&self, address: &str, key: &str) -> MessagePlace {
        MessagePlace {
            lane: number_of(address),
            stream: number_of((address, key)),
        }
    }

    fn destination(&self, message: &Message) -> MessageDestination {
        MessageDestination {
            name: message.address.to_string(),
            attributes: vec![("messaging.system", "ledger".to_owned())],
        }
    }

    fn enqueue(&mut self, message: Message) -> Result<(), EnqueueError> {
        match self.write(&message) {
            Ok(()) => {
                self.written.push(message.sequence);
                Ok(())
            }
            Err(error) => Err(EnqueueError::Failed(PublishFailure {
                remedy: Remedy::Hold,
                label: LABELS[0],
                text: format!("a page cannot be written: {error}"),
            })),
        }
    }

    async fn settle(&mut self, settled: &mut Vec<SettledMessage>) -> Result<(), PublishFailure> {
        while self.written.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let written = mem::take(&mut self.written).into_iter();
        settled.extend(written.map(|sequence| SettledMessage {
            sequence,
            result: Ok(()),
        }));
        Ok(())
    }

    fn trouble(&self) -> Option<PublishFailure> {
        None
    }

    fn labels(&self) -> SinkLabels {
        SinkLabels {
            failures: LABELS.to_vec(),
            dead_letters: Vec::new(),
        }
    }
}

/// Reads pages to their end, and no further.
struct LedgerReader {
    left: Vec<(String, ReadMessage)>,
    places: Vec<ReadPlace>,
}

impl LedgerReader {
    fn open(pages: Vec<PathBuf>) -> Result<Self, ReadError> {
        let unreadable = |error: std::io::Error| ReadError::Unavailable(error.to_string());
        let (mut left, mut places) = (Vec::new(), Vec::new());
        for page in pages {
            let name = page.file_name().unwrap().to_string_lossy().into_owned();
            let lines = BufReader::new(File::open(&page).map_err(unreadable)?).lines();
            let lines = lines.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
            places.push(ReadPlace {
                name: name.clone(),
                is_cut: false,
                messages: lines.len() as u64,
            });
            left.extend(lines.iter().map(|line| (name.clone(), message(&name, line))));
        }
        left.reverse();
        Ok(Self { left, places })
    }
}

fn message(page: &str, line: &str) -> ReadMessage {
    let line: Value = serde_json::from_str(line).unwrap();
    let text = |value: &Value| value.as_str().unwrap().as_bytes().to_vec();
    ReadMessage {
        place: format!("page {page}"),
        fields: serde_json::Map::from_iter([("page".to_owned(), json!(page))]),
        key: Some(text(&line["key"])),
        content_type: "application/cloudevents+json".to_owned(),
        headers: vec![("sequence".to_owned(), text(&line["sequence"]))],
        attribute_prefix: "",
        payload: line["event"].to_string().into_bytes(),
    }
}

impl MessageTail for LedgerReader {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<ReadMessage, ReadError>> + Send + '_>> {
        Box::pin(async {
            match self.left.pop() {
                Some((_, message)) => Ok(message),
                None => std::future::pending().await,
            }
        })
    }
}

impl MessageReading for LedgerReader {
    fn places(&self) -> Vec<ReadPlace> {
        self.places.clone()
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Option<(String, ReadMessage)>, ReadError>> + Send + '_>> {
        Box::pin(async { Ok(self.left.pop()) })
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}
