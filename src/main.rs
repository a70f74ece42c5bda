//! `forebay`: parses the command line, sets up logging, runs the subcommand, tells the exit code.

use std::{panic, process::ExitCode};

use forebay::{cli, telemetry::logging};

/// Records are made on one thread and freed on another, which glibc's allocator answers with locks and page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    let format = cli.log_format;
    if let Err(error) = logging::init(format) {
        return cli::tell(&cli::CommandFailure::usage(error.to_string()), format);
    }
    // What a thread or task of its own panicked with is its owner's affair; this is for the rest.
    let exit = match panic::catch_unwind(|| cli::run(cli)) {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(failure)) => cli::tell(&failure, format),
        Err(_) => cli::ExitCause::Bug.into(),
    };
    logging::flush();
    exit
}
