//! Logs: to stderr, for people or as JSON, one line an event. `docs/logging.md` lists the fields.

use std::{io::IsTerminal as _, panic};

use tracing_subscriber::{EnvFilter, fmt};

/// What is logged when neither `FOREBAY_LOG` nor `RUST_LOG` says otherwise.
///
/// actix tells of every connection that its peer ended badly, as an error; that is the peer's affair. What lapin has to tell, its sink
/// says in its own words.
const FILTER_DEFAULT: &str = "info,actix_http=off,actix_server=warn,lapin=off";
/// Whatever the filter: it would log messages with their bodies.
const NEVER: &str = "lapin::returned_messages=off";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
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
    #[error("logging is set up already")]
    Twice,
}

/// Sets logging up for the whole process, panics included.
///
/// # Errors
///
/// The filter in the environment cannot be read, or logging is set up already.
pub fn init(format: Format) -> Result<(), InitError> {
    let subscriber = fmt()
        .with_env_filter(filter()?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let result = match format {
        Format::Human => subscriber.try_init(),
        Format::Json => subscriber
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
