//! `forebay check`: what would keep a configuration from working, before it does.

mod live;

use std::{
    fmt::Display,
    fs::{File, TryLockError},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;

use super::{CommandFailure, ConfigArg, ExitCause, out, runtime};
use crate::{
    config::{self, AdminConfig, Config, EventMatch, RouteConfig, process_env},
    event::render::RenderMode,
    sink::FindingLevel,
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay check --config forebay.toml
  forebay check --config forebay.toml --connect
  forebay check --config forebay.toml --live

Without --connect nothing but the configuration and its secrets is read. With it the disk is tried (a small
file is written and removed) and the brokers are asked for topics or exchange and queues, permissions and
limits; nothing is published. With --live the process that serves this configuration is asked at
admin.listen whether it is alive, and nothing else is read: a health check for where there is no shell.
Exit codes: 64 the configuration; 69 a broker, topic or exchange, or not alive; 74 the disk.")]
pub struct CheckArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    /// Also try the disk, and ask the brokers for topics, permissions and sizes
    #[arg(long)]
    pub connect: bool,
    /// Only ask the process that serves this configuration for its /livez
    #[arg(long, conflicts_with = "connect")]
    pub live: bool,
}

pub(super) fn run(args: &CheckArgs) -> Result<ExitCause, CommandFailure> {
    if args.live {
        let admin = AdminConfig::load(&args.config.config, process_env())?;
        return match live::ask(admin.listen) {
            Ok(()) => Ok(ExitCause::Ok),
            Err(text) => Err(CommandFailure::unavailable(format!("not alive: {text}"))),
        };
    }
    let config = Config::load(&args.config.config, process_env())?;
    say(summary(&config));
    for warning in &config.warnings {
        say(format_args!("warning   {warning}"));
    }
    if !args.connect {
        return Ok(ExitCause::Ok);
    }
    let disk = disk(&config);
    let brokers = runtime()?.block_on(brokers(&config));
    match (disk, brokers) {
        (FindingLevel::Problem, _) => Err(CommandFailure::disk("the spool's disk cannot be used as it is")),
        (_, FindingLevel::Problem) => Err(CommandFailure::unavailable(
            "a broker or a topic cannot be used as it is",
        )),
        _ => Ok(ExitCause::Ok),
    }
}

fn say(line: impl Display) {
    // Whoever closed the pipe has read enough; the exit code still tells.
    let _ = out(format_args!("{line}\n"));
}

/// Says what was found and passes on how much it matters.
fn find(level: FindingLevel, text: impl Display) -> FindingLevel {
    let word = match level {
        FindingLevel::Good => "good",
        FindingLevel::Warning => "warning",
        FindingLevel::Problem => "problem",
    };
    say(format_args!("{word:<9} {text}"));
    level
}

fn summary(config: &Config) -> String {
    let size = |bytes: u64| bytesize::ByteSize(bytes).display().iec();
    let mut lines = vec![
        format!(
            "listen    {}, bodies up to {}",
            config.server.listen,
            size(config.server.body_bytes_max)
        ),
        format!("admin     {}", config.admin.listen),
        format!(
            "spool     {}, up to {}",
            config.spool.dir.display(),
            size(config.spool.bytes_max)
        ),
    ];
    if let Some(tracing) = &config.tracing {
        lines.push(format!(
            "traces    to {}, {} of those that begin here",
            config::host_of(&tracing.endpoint),
            tracing.sample_ratio
        ));
    }
    lines.extend(config.endpoints.iter().map(|endpoint| {
        let read = endpoint.secrets.iter().filter_map(|source| source.read().ok());
        let secrets = match read.map(|secrets| secrets.len()).sum::<usize>() {
            1 => "1 secret".to_owned(),
            n => format!("{n} secrets"),
        };
        format!("endpoint  {}: POST {}, {secrets}", endpoint.name, endpoint.path)
    }));
    let sinks = config.sinks.iter();
    lines.extend(sinks.map(|sink| format!("sink      {}: {}", sink.name, sink.settings.summary())));
    lines.extend(config.routes.iter().map(route));
    if let Some(unrouted) = &config.unrouted {
        lines.push(format!(
            "route     {}: what no other wants, to its dead letters",
            unrouted.name
        ));
    }
    lines.join("\n")
}

fn route(route: &RouteConfig) -> String {
    let mode = match route.mode {
        RenderMode::Structured => "structured",
        RenderMode::Binary => "binary",
    };
    let topic = route
        .template()
        .map_or(String::new(), |topic| format!(", topic {topic}"));
    format!(
        "route     {}: {} to {}{topic}, {mode}",
        route.name,
        wanted(&route.matches),
        route.sink,
    )
}

/// Which events, in words.
fn wanted(matches: &EventMatch) -> String {
    let some = |names: &[String], of: &str| match names {
        [] => String::new(),
        names => format!(" {of} {}", names.join(", ")),
    };
    let kinds = if matches.kinds.is_empty() {
        "all kinds".to_owned()
    } else {
        matches.kinds.join(", ")
    };
    let but = some(&matches.not_kinds, "but");
    let of = some(&matches.endpoints, "of");
    let not_of = some(&matches.not_endpoints, "not of");
    format!("{kinds}{but}{of}{not_of}")
}

/// The worst of what the spool's directory has to say.
fn disk(config: &Config) -> FindingLevel {
    let dir = &config.spool.dir;
    let Some(there) = dir.ancestors().find(|dir| dir.is_dir()) else {
        return find(
            FindingLevel::Problem,
            format_args!("spool: {} is not there, and no directory above it", dir.display()),
        );
    };
    if there != dir {
        let text = format!(
            "spool: {} is not there yet; it is made at the first start",
            dir.display()
        );
        find(FindingLevel::Good, text);
    }
    [writable(there), held(dir), space(config, there)]
        .into_iter()
        .max()
        .unwrap_or(FindingLevel::Good)
}

fn writable(dir: &Path) -> FindingLevel {
    let write = || -> std::io::Result<Instant> {
        let mut file = tempfile::Builder::new().prefix(".forebay-check-").tempfile_in(dir)?;
        file.write_all(&[0; 4096])?;
        let started = Instant::now();
        file.as_file().sync_data()?;
        Ok(started)
    };
    match write() {
        Ok(started) => {
            let took = started.elapsed().as_secs_f64() * 1000.0;
            find(
                FindingLevel::Good,
                format_args!("spool: {} takes writes, and an fsync in {took:.1} ms", dir.display()),
            )
        }
        Err(error) => find(
            FindingLevel::Problem,
            format_args!("spool: {} does not take a write: {error}", dir.display()),
        ),
    }
}

/// Whether another process holds the spool: right while it serves, and in the way of another one.
fn held(dir: &Path) -> FindingLevel {
    let path = dir.join("LOCK");
    let Ok(mut file) = File::open(&path) else {
        return FindingLevel::Good;
    };
    match file.try_lock() {
        Ok(()) => find(FindingLevel::Good, "spool: no process holds it"),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The name is for people; the lock itself is what counts.
            let _ = (&mut file).take(256).read_to_string(&mut holder);
            find(
                FindingLevel::Warning,
                format_args!("spool: held by {}; another process cannot start on it", holder.trim()),
            )
        }
        Err(TryLockError::Error(error)) => find(
            FindingLevel::Problem,
            format_args!("spool: {}: {error}", path.display()),
        ),
    }
}

/// Whether the disk has the room that the spool may take, beside what the spool has already.
fn space(config: &Config, dir: &Path) -> FindingLevel {
    let (size, bytes_max) = (
        |bytes| bytesize::ByteSize(bytes).display().iec(),
        config.spool.bytes_max,
    );
    let room = match rustix::fs::statvfs(dir) {
        Ok(stat) => stat.f_bavail * stat.f_frsize + taken(config.spool.dir.clone()),
        Err(error) => return find(FindingLevel::Problem, format_args!("spool: {}: {error}", dir.display())),
    };
    match room >= bytes_max {
        true => find(
            FindingLevel::Good,
            format_args!("spool: the disk has room for {}", size(bytes_max)),
        ),
        false => find(
            FindingLevel::Warning,
            format_args!(
                "spool: the disk has room for {}, less than spool.bytes_max ({}): it would be full before the spool is",
                size(room),
                size(bytes_max)
            ),
        ),
    }
}

/// What the files below `dir` take.
fn taken(dir: PathBuf) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => taken(entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// The worst of what the brokers have to say.
async fn brokers(config: &Config) -> FindingLevel {
    let mut worst = FindingLevel::Good;
    for sink in &config.sinks {
        let routes = config.routes.iter().filter(|route| route.sink == sink.name);
        let routes = routes.filter_map(|route| Some((route.name.as_str(), route.address.as_ref()?)));
        let routes: Vec<_> = routes.collect();
        let findings = sink
            .settings
            .check(&sink.name, &routes, config.server.body_bytes_max)
            .await;
        for finding in findings {
            worst = worst.max(find(finding.level, finding.text));
        }
    }
    worst
}
