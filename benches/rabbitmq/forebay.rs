//! Forebay's sink, driven as a job drives it: handed over as long as there is room, then settled.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use forebay::{
    config::TextSource,
    sink::{
        EnqueueError, Message, PublishFailure, SettledMessage, Sink,
        rabbitmq::{RabbitMqConfig, RabbitMqMetrics, RabbitMqNames, RabbitMqSink, RabbitMqTls, Unroutable},
    },
};

use crate::{Published, samples, support::cpu};

/// No confirmation for so long fails the run.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What a program is told.
#[derive(Debug, clap::Args)]
pub struct Task {
    pub uri: String,
    pub exchange: String,
    pub partitions: u32,
    pub in_flight: u64,
    pub warm_up_seconds: u64,
    pub seconds: u64,
}

/// Makes the exchange and the queues, as the sink does by itself.
pub fn declare(uri: &str, exchange: &str, partitions: u32) -> Result<()> {
    runtime()?.block_on(async { open(uri, exchange, partitions).await.map(drop) })
}

pub fn run(task: &Task) -> Result<Published> {
    runtime()?.block_on(publish(task))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

async fn open(uri: &str, exchange: &str, partitions: u32) -> Result<RabbitMqSink> {
    let config = RabbitMqConfig {
        uris: vec![TextSource::Inline(uri.to_owned())],
        username: None,
        password: None,
        tls: RabbitMqTls::default(),
        exchange: exchange.to_owned(),
        partitions,
        declare: true,
        unroutable: Unroutable::Hold,
        management: None,
    };
    let names = RabbitMqNames {
        sink: "bench".into(),
        route: "bench".into(),
    };
    let metrics = RabbitMqMetrics::register(&prometheus::Registry::new())?;
    let mut sink = RabbitMqSink::new(&config, names, 1 << 20, Arc::new(metrics));
    sink.reopen().await?;
    Ok(sink)
}

async fn publish(task: &Task) -> Result<Published> {
    let mut run = Run {
        sink: open(&task.uri, &task.exchange, task.partitions).await?,
        messages: samples::messages(),
        published: 0,
        confirmed: 0,
        settled: Vec::new(),
        offered: None,
    };
    run.until(
        Instant::now() + Duration::from_secs(task.warm_up_seconds),
        task.in_flight,
    )
    .await?;
    let (started, cpu_before, before) = (Instant::now(), cpu(std::process::id())?, run.confirmed);
    run.until(started + Duration::from_secs(task.seconds), task.in_flight)
        .await?;
    let (during, seconds) = (run.confirmed - before, started.elapsed().as_secs_f64());
    let cpu_seconds = (cpu(std::process::id())? - cpu_before).as_secs_f64();
    if let Some(message) = run.offered.take() {
        // Never handed over.
        run.published -= 1;
        drop(message);
    }
    while run.confirmed < run.published {
        run.settle().await?;
    }
    Ok(Published {
        during,
        seconds,
        cpu_seconds,
        confirmed: run.confirmed,
        published: run.published,
    })
}

struct Run {
    sink: RabbitMqSink,
    messages: Vec<Message>,
    published: u64,
    confirmed: u64,
    settled: Vec<SettledMessage>,
    /// The sink had no room for it.
    offered: Option<Box<Message>>,
}

impl Run {
    async fn until(&mut self, end: Instant, in_flight: u64) -> Result<()> {
        while Instant::now() < end {
            self.fill(in_flight)?;
            self.settle().await?;
        }
        Ok(())
    }

    fn fill(&mut self, in_flight: u64) -> Result<()> {
        while self.offered.is_some() || self.published - self.confirmed < in_flight {
            let message = match self.offered.take() {
                Some(message) => *message,
                None => self.next(),
            };
            match self.sink.enqueue(message) {
                Ok(()) => {}
                Err(EnqueueError::Full(message)) => {
                    self.offered = Some(message);
                    return Ok(());
                }
                Err(EnqueueError::Failed(failure)) => return Err(failure.into()),
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Message {
        let template = &self.messages[self.published as usize % self.messages.len()];
        self.published += 1;
        Message {
            sequence: self.published,
            ..template.clone()
        }
    }

    async fn settle(&mut self) -> Result<()> {
        let settled = tokio::time::timeout(SILENCE_MAX, self.sink.settle(&mut self.settled));
        settled.await.context("no confirmation")??;
        for settled in self.settled.drain(..) {
            settled.result?;
            self.confirmed += 1;
        }
        let refused = |failure: PublishFailure| anyhow!("{failure}");
        match self.sink.trouble().map(refused) {
            Some(trouble) => bail!(trouble),
            None => Ok(()),
        }
    }
}
