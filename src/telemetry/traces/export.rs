//! From spans that ended to the collector.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter as _, SpanProcessor},
};
use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{timeout, timeout_at},
};

use super::{Metrics, SetupError};
use forebay_http_client as http_client;

use crate::telemetry::LogThrottle;

/// Spans that ended and were not sent; one more is dropped.
pub(super) const QUEUE_SPANS_MAX: usize = 8192;
/// Spans of one request to the collector.
const BATCH_SPANS_MAX: usize = 512;
/// How long spans gather before they are sent.
const GATHER_INTERVAL: Duration = Duration::from_millis(500);
/// For one request to the collector, and for all tries of it.
const EXPORT_DEADLINE: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A collector that is away is complained of once in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Takes spans that ended.
#[derive(Debug)]
pub(super) struct ExportQueue {
    spans: mpsc::Sender<SpanData>,
    dropped: IntCounter,
}

/// Sends what is in the queue, once it runs.
pub struct SpanExporter {
    spans: mpsc::Receiver<SpanData>,
    exporter: opentelemetry_otlp::SpanExporter,
    /// What went wrong with the latest request.
    cause: Arc<Mutex<String>>,
    exported: IntCounter,
    failed: IntCounter,
    complaints: LogThrottle,
    is_failing: bool,
}

/// An exporter at work.
pub struct RunningExporter {
    task: JoinHandle<()>,
    close: oneshot::Sender<()>,
}

pub(super) fn queue(
    endpoint: &str,
    resource: &Resource,
    metrics: &Metrics,
) -> Result<(ExportQueue, SpanExporter), SetupError> {
    let client = reqwest::Client::builder()
        .timeout(EXPORT_DEADLINE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(SetupError::Client)?;
    let cause = Arc::<Mutex<String>>::default();
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(ExportClient {
            client,
            cause: cause.clone(),
        })
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT_DEADLINE)
        .build()?;
    exporter.set_resource(resource);
    let (sender, receiver) = mpsc::channel(QUEUE_SPANS_MAX);
    let outcome = |outcome| metrics.spans.with_label_values(&[outcome]);
    let queue = ExportQueue {
        spans: sender,
        dropped: outcome("dropped"),
    };
    let exporter = SpanExporter {
        spans: receiver,
        exporter,
        cause,
        exported: outcome("exported"),
        failed: outcome("failed"),
        complaints: LogThrottle::new(COMPLAINT_INTERVAL),
        is_failing: false,
    };
    Ok((queue, exporter))
}

impl SpanProcessor for ExportQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl SpanExporter {
    /// Begins to send. Must be called within a tokio runtime.
    pub fn start(self) -> RunningExporter {
        let (close, closed) = oneshot::channel();
        RunningExporter {
            task: tokio::spawn(self.run(closed)),
            close,
        }
    }

    async fn run(mut self, mut closed: oneshot::Receiver<()>) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = gather(&mut self.spans, &mut batch) => {}
                _ = &mut closed => break,
            }
            self.export(std::mem::take(&mut batch)).await;
        }
        self.spans.close();
        while !batch.is_empty() || self.spans.recv_many(&mut batch, BATCH_SPANS_MAX).await > 0 {
            self.export(std::mem::take(&mut batch)).await;
        }
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len() as u64;
        if self.exporter.export(batch).await.is_ok() {
            self.exported.inc_by(spans);
            if std::mem::take(&mut self.is_failing) {
                tracing::info!("spans are exported again");
            }
            return;
        }
        self.failed.inc_by(spans);
        self.is_failing = true;
        if let Some(more) = self.complaints.due(Instant::now()) {
            let cause = self.cause.lock().clone();
            tracing::warn!(spans, more, "spans were not exported, and are lost: {cause}");
        }
    }
}

impl RunningExporter {
    /// Sends what is left, for so long as there is time.
    pub async fn finish(mut self, deadline: tokio::time::Instant) {
        // It may have ended by a panic, which was told.
        let _ = self.close.send(());
        if timeout_at(deadline, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!("the collector was too slow for the last spans: they are lost");
        }
    }
}

/// Waits for a span, and then a while for those that follow it. Cancel-safe.
async fn gather(spans: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    if spans.recv_many(batch, BATCH_SPANS_MAX).await == 0 {
        // Nobody makes spans any more: whoever runs this says when it is over.
        return std::future::pending().await;
    }
    let following = async {
        while batch.len() < BATCH_SPANS_MAX {
            let room = BATCH_SPANS_MAX - batch.len();
            if spans.recv_many(batch, room).await == 0 {
                break;
            }
        }
    };
    // What came until then is the batch.
    let _ = timeout(GATHER_INTERVAL, following).await;
}

/// The client that the process has anyway: no second TLS.
#[derive(Debug)]
struct ExportClient {
    client: reqwest::Client,
    cause: Arc<Mutex<String>>,
}

impl HttpClient for ExportClient {
    fn send_bytes<'a, 'future>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'a: 'future,
        Self: 'future,
    {
        Box::pin(async {
            let answer = self.answer(request).await.map_err(http_client::causes);
            match &answer {
                Ok(answer) if answer.status().is_success() => {}
                Ok(answer) => *self.cause.lock() = format!("the collector answers {}", answer.status()),
                Err(cause) => self.cause.lock().clone_from(cause),
            }
            answer.map_err(HttpError::from)
        })
    }
}

impl ExportClient {
    async fn answer(&self, request: Request<Bytes>) -> Result<Response<Bytes>, reqwest::Error> {
        let (head, body) = request.into_parts();
        let request = self.client.post(head.uri.to_string()).headers(head.headers).body(body);
        let mut came = request.send().await?;
        let body = http_client::body(&mut came, ANSWER_BYTES_MAX).await?;
        let mut answer = Response::new(body.into());
        *answer.status_mut() = came.status();
        *answer.headers_mut() = std::mem::take(came.headers_mut());
        Ok(answer)
    }
}
