//! Logs: to stderr, for people or as JSON, one line an event. `docs/logging.md` lists the fields.
//!
//! Logging never waits and ends nothing: lines go through a queue (`log_queue`) to a thread that writes them.

use std::{
    io::{self, IsTerminal as _, Write},
    panic,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::log_queue::LogQueue;

/// What is logged when neither `FOREBAY_LOG` nor `RUST_LOG` says otherwise.
///
/// actix tells of every connection that its peer ended badly, as an error; that is the peer's affair. What lapin has to
/// tell, its sink says in its own words.
const FILTER_DEFAULT: &str = "info,actix_http=off,actix_server=warn,lapin=off";
/// Whatever the filter: it would log messages with their bodies.
const NEVER: &str = "lapin::returned_messages=off";

/// Who ends waits so long, at most, for the last lines to be written.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// Where all lines of this process go; not there before [`init`].
static QUEUE: OnceLock<Arc<LogQueue>> = OnceLock::new();

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people; with colours on a terminal.
    #[default]
    Human,
    /// An object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("{variable}: not a log filter (such as info, or forebay=debug): {source}")]
    Filter {
        variable: &'static str,
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("stderr cannot be written to: {0}")]
    Stderr(io::Error),
    #[error("logging is set up already")]
    Twice,
}

/// Sets logging up for the whole process, panics included.
///
/// # Errors
///
/// The filter in the environment cannot be read, there is no thread to write, or logging is set up already.
pub fn init(format: LogFormat) -> Result<(), InitError> {
    let filter = filter()?;
    let queue = LogQueue::to_stderr().map_err(InitError::Stderr)?;
    QUEUE.set(Arc::clone(&queue)).map_err(|_| InitError::Twice)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(LineSink(queue))
        // They would go to stderr itself, where they block, or panic.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    let result = match format {
        LogFormat::Human => subscriber.try_init(),
        LogFormat::Json => subscriber
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
    };
    result.map_err(|_| InitError::Twice)?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Writes a line to stderr behind those of the log.
pub fn print_line(line: &str) {
    match QUEUE.get() {
        Some(queue) => queue.push(format!("{line}\n").as_bytes()),
        // There is nobody left to notify when stderr is gone.
        None => drop(writeln!(io::stderr(), "{line}")),
    }
}

/// Waits for the last lines to be written, for as long as whoever reads them may take.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_DEADLINE);
    }
}

/// How many lines were dropped, because they could not be written or nobody read those before.
pub fn lines_dropped() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.dropped())
}

/// Takes a line in one write, as the subscriber hands it over.
struct LineSink(Arc<LogQueue>);

impl<'a> MakeWriter<'a> for LineSink {
    type Writer = &'a LineSink;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &LineSink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why the process ends, as a line in JSON like the others; whatever the filter, for it is the last one.
pub fn last_line(message: &str, exit_code: u8) -> String {
    let timestamp = jiff::Timestamp::now();
    serde_json::json!({
        "timestamp": format!("{timestamp:.6}"),
        "level": "ERROR",
        "message": message,
        "exit_code": exit_code,
        "target": "forebay",
    })
    .to_string()
}

fn filter() -> Result<EnvFilter, InitError> {
    Ok(chosen_filter()?.add_directive(NEVER.parse().expect("a constant")))
}

fn chosen_filter() -> Result<EnvFilter, InitError> {
    for variable in ["FOREBAY_LOG", "RUST_LOG"] {
        if let Ok(text) = std::env::var(variable)
            && !text.is_empty()
        {
            return EnvFilter::try_new(text).map_err(|source| InitError::Filter { variable, source });
        }
    }
    Ok(EnvFilter::new(FILTER_DEFAULT))
}

/// Logs where a panic was and, if it is a constant, what it said: a text put together at run time may quote a body.
fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let said = info.payload().downcast_ref::<&'static str>().unwrap_or(&"(withheld)");
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    tracing::error!(place, thread, said, "a bug: panicked");
}
