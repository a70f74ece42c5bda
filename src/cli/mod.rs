//! The command line, a file per subcommand.
//!
//! What a subcommand has to say goes to stdout; progress, logs and failures go to stderr.

mod brokers;
mod check;
mod dev;
mod drain;
mod exit;
mod operate;
mod scripts;
mod secret;
mod send;
mod serve;
mod spool;
mod tail;
mod terminal;
mod verify;
mod webhooks;

use std::{io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

pub use self::{
    check::CheckArgs,
    exit::{CommandFailure, ExitCause},
    operate::{dead_letters::DeadLettersArgs, jobs::JobsArgs, replay::ReplayArgs, routes::RoutesArgs},
    scripts::CompletionsArgs,
    secret::SecretText,
    send::SendArgs,
    spool::SpoolArgs,
    tail::TailArgs,
    verify::VerifyArgs,
    webhooks::WebhooksArgs,
};
use crate::telemetry::{
    self,
    logging::{self, LogFormat},
};

/// Takes webhooks in, makes them durable, and lets them out to a message broker in order.
#[derive(Parser)]
#[command(name = "forebay", version = telemetry::build_version(), about, after_help = EXAMPLES)]
pub struct Cli {
    /// How log lines on stderr look
    #[arg(long, global = true, env = "FOREBAY_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  forebay dev                                      try it: an embedded Kafka, no file, no broker
  forebay check --config forebay.toml --connect    is everything there and allowed
  forebay serve --config forebay.toml

Exit codes: 0; 1 the check or the sending did not come out right; 64 usage or configuration;
69 something needed is not reachable; 70 a bug; 74 disk, or another process holds the spool.
FOREBAY_LOG filters the log (info, forebay=debug).";

#[derive(Subcommand)]
pub enum Command {
    /// Take webhooks in and publish them
    Serve(ServeArgs),
    /// Check a configuration and, with --connect, all that it names
    Check(CheckArgs),
    /// Run with a temporary spool and an embedded Kafka, or into a RabbitMQ, to try it out
    Dev(DevArgs),
    /// Send signed sample webhooks
    Send(SendArgs),
    /// Show events as they arrive in a topic or an exchange
    Tail(TailArgs),
    /// Read topics or queues to their end, and name what is missing, out of order or malformed
    Verify(VerifyArgs),
    /// Publish what is in the spool, take nothing in, and end when every route is empty
    Drain(DrainArgs),
    /// Show, publish again or give up what no broker would take
    DeadLetters(DeadLettersArgs),
    /// Publish again what is retained
    Replay(ReplayArgs),
    /// Show, pause or cancel replays and redrives
    Jobs(JobsArgs),
    /// Show, pause or resume routes
    Routes(RoutesArgs),
    /// Look at a spool, damaged or not, and save what is in it
    Spool(SpoolArgs),
    /// Show and change the webhooks that the provider has, by its REST API
    Webhooks(WebhooksArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the man page
    #[command(after_help = scripts::MAN_EXAMPLES)]
    Man,
}

/// The configuration that a subcommand needs.
#[derive(Args)]
pub struct ConfigArg {
    /// The configuration, TOML or YAML
    #[arg(long, value_name = "FILE", env = "FOREBAY_CONFIG")]
    pub config: PathBuf,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay serve --config forebay.toml
  forebay serve --config forebay.toml --watch
  FOREBAY__SPOOL__BYTES_MAX=20GiB forebay serve --config /etc/forebay/forebay.yaml

SIGHUP reads the configuration again: endpoints, secrets, routes, sinks and limits change without a
restart, and what is the same is not touched. One that cannot be used changes nothing; the log,
/status and forebay_config_last_reload_successful say so. What needs a restart is named.

SIGTERM and Ctrl-C stop in order: not ready, still accepting for server.drain_delay, then everything
that was accepted is on disk. A second one stops at once.")]
pub struct ServeArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    /// Apply the configuration again when its file changes, and not only after a SIGHUP
    #[arg(long)]
    pub watch: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay drain --config forebay.toml
  forebay drain --config forebay.toml && rm -r /var/lib/forebay

It needs the spool to itself: no `forebay serve` may run on it. A route that is blocked is waited for; SIGTERM and Ctrl-C stop
in order, with exit code 1, and leave what is not published in the spool. Dead letters stay where they are, and are counted.
A spool that is read-only, or on a full disk, is published too; then the output says that a later run publishes it again.")]
pub struct DrainArgs {
    #[command(flatten)]
    pub config: ConfigArg,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay dev
  forebay dev --listen 127.0.0.1:9000 --json | jq .event.type
  forebay dev --secret env:WEBHOOK_SECRET --no-samples
  forebay dev --amqp env:RABBITMQ_URI")]
pub struct DevArgs {
    /// Where webhooks are taken in; port 0 is any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Where /livez, /readyz, /metrics and /status are
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9464")]
    pub admin: SocketAddr,
    /// The webhook's secret: env:NAME, file:PATH, or base64, which then stands in the list of processes [default: one
    /// is made up and printed]
    #[arg(long, value_name = "SOURCE")]
    pub secret: Option<SecretText>,
    /// Publish to this RabbitMQ instead of an embedded Kafka: env:NAME, file:PATH, or
    /// amqp(s)://user:password@host:port/vhost, which then stands in the list of processes
    #[arg(long, value_name = "URI")]
    pub amqp: Option<String>,
    /// Print one JSON object a line, and nothing else, on stdout
    #[arg(long)]
    pub json: bool,
    /// Do not begin with a sample of every kind
    #[arg(long)]
    pub no_samples: bool,
}

/// Parses the command line. `Err`: everything was said (help, the version, a usage error); exit so.
pub fn parse() -> Result<Cli, ExitCause> {
    Cli::try_parse().map_err(|error| {
        // Help that nobody reads any more is no failure.
        let _ = error.print();
        if error.use_stderr() {
            ExitCause::Usage
        } else {
            ExitCause::Ok
        }
    })
}

/// Runs the subcommand.
pub fn run(cli: Cli) -> Result<ExitCause, CommandFailure> {
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Dev(args) => dev::run(&args),
        Command::Send(args) => send::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Drain(args) => drain::run(&args.config),
        Command::DeadLetters(args) => operate::dead_letters::run(&args),
        Command::Replay(args) => operate::replay::run(&args),
        Command::Jobs(args) => operate::jobs::run(&args),
        Command::Routes(args) => operate::routes::run(&args),
        Command::Spool(args) => spool::run(&args),
        Command::Webhooks(args) => webhooks::run(&args),
        Command::Completions(args) => scripts::completions(&args),
        Command::Man => scripts::man(),
    }
}

/// Tells of a failure, on stderr, and returns its exit code.
pub fn tell(failure: &CommandFailure, format: LogFormat) -> ExitCode {
    let line = match format {
        LogFormat::Human => format!("forebay: {failure}"),
        LogFormat::Json => logging::last_line(&failure.to_string(), failure.exit as u8),
    };
    logging::print_line(&line);
    failure.exit.into()
}

/// A text of somebody else's, a stream's name say, without what would change the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Writes to stdout. `Err` when nobody reads it any more (`| head`), which ends a subcommand in order.
fn out(text: std::fmt::Arguments<'_>) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_fmt(text)?;
    stdout.flush()
}

/// A runtime for the subcommands that talk to the network.
fn runtime() -> Result<tokio::runtime::Runtime, CommandFailure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandFailure::bug(format!("failed to start threads: {error}")))
}

/// Resolves at Ctrl-C and at SIGTERM, also where they came between this call and the first look. Must be called within
/// a runtime.
fn stopped() -> impl Future<Output = ()> + Send {
    use tokio::signal::unix::{SignalKind, signal};
    let listeners = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        match listeners {
            (Ok(mut terminate), Ok(mut interrupt)) => tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            },
            _ => drop(tokio::signal::ctrl_c().await),
        }
    }
}
