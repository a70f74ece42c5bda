//! Takes spans by OTLP over HTTP, decodes them with the types that OpenTelemetry publishes, and keeps them.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1 as otlp,
};
use prost::Message as _;

use super::{forebay::wait_until, program::keep};

/// A span as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub name: String,
    pub kind: otlp::span::SpanKind,
    pub trace_id: String,
    pub span_id: String,
    /// Empty: it is a root.
    pub parent_id: String,
    pub start_ns: u64,
    pub end_ns: u64,
    pub is_error: bool,
    pub attributes: BTreeMap<String, String>,
    pub resource: BTreeMap<String, String>,
}

/// A collector that listens until the test is over.
pub struct Collector {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    spans: Mutex<Vec<Span>>,
    /// The heads of all requests, in lower case.
    heads: Mutex<Vec<String>>,
    /// What it answers; 0: 200.
    status: AtomicU16,
}

impl Collector {
    pub fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a port to listen on");
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                // A connection that breaks ends; what was wrong in a request shows as spans that do not come.
                std::thread::spawn(move || drop(serve(stream, &state)));
            }
        });
        Self { address, state }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers that from now on, and keeps no spans unless it is 200.
    pub fn answer(&self, status: u16) {
        self.state.status.store(status, Ordering::Relaxed);
    }

    pub fn spans(&self) -> Vec<Span> {
        self.state.spans.lock().unwrap().clone()
    }

    pub fn heads(&self) -> Vec<String> {
        self.state.heads.lock().unwrap().clone()
    }

    /// The spans of a trace, as soon as there are `count`.
    pub fn trace(&self, trace_id: &str, count: usize) -> Vec<Span> {
        let of_trace = || -> Vec<Span> {
            let spans = self.spans().into_iter();
            spans.filter(|span| span.trace_id == trace_id).collect()
        };
        wait_until(&format!("{count} spans of {trace_id}"), Duration::from_secs(30), || {
            of_trace().len() >= count
        });
        let spans = of_trace();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

fn serve(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let head = head.to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        keep("spans.otlp").write_all(&body)?;
        let right =
            head.starts_with("post /v1/traces http/1.1") && head.contains("content-type: application/x-protobuf");
        let request = ExportTraceServiceRequest::decode(&body[..]);
        state.heads.lock().unwrap().push(head);
        let status = match (state.status.load(Ordering::Relaxed), request) {
            (0 | 200, Ok(request)) if right => {
                state.spans.lock().unwrap().extend(spans(request));
                200
            }
            (0 | 200, _) => 400,
            (status, _) => status,
        };
        let answer = ExportTraceServiceResponse::default().encode_to_vec();
        write!(
            stream,
            "HTTP/1.1 {status} x\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        )?;
        stream.write_all(&answer)?;
    }
}

fn spans(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let resource = attributes(of_resource.resource.unwrap_or_default().attributes);
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                kind: span.kind(),
                name: span.name,
                trace_id: hex(&span.trace_id),
                span_id: hex(&span.span_id),
                parent_id: hex(&span.parent_span_id),
                start_ns: span.start_time_unix_nano,
                end_ns: span.end_time_unix_nano,
                is_error: span
                    .status
                    .is_some_and(|status| status.code() == otlp::status::StatusCode::Error),
                attributes: attributes(span.attributes),
                resource: resource.clone(),
            });
        }
    }
    spans
}

fn attributes(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(flag)) => flag.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = attributes.into_iter().map(|pair| (pair.key, text(pair.value)));
    pairs.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
