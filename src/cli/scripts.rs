//! Completion scripts and the man page, made of the command line's own definition.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, CommandFailure, ExitCause};

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  forebay man > /usr/local/share/man/man1/forebay.1
  forebay man | man -l -";

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay completions bash > /etc/bash_completion.d/forebay
  forebay completions zsh > ~/.zfunc/_forebay
  forebay completions fish > ~/.config/fish/completions/forebay.fish")]
pub struct CompletionsArgs {
    pub shell: Shell,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitCause, CommandFailure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "forebay", &mut script);
    print(&script)
}

/// One page for all: each subcommand's own page follows the first.
pub(super) fn man() -> Result<ExitCause, CommandFailure> {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    let rendered = clap_mangen::Man::new(command.clone()).render(&mut page);
    rendered.map_err(|error| CommandFailure::bug(format!("failed to render the man page: {error}")))?;
    for subcommand in command
        .get_subcommands()
        .filter(|subcommand| subcommand.get_name() != "help")
    {
        let man = clap_mangen::Man::new(subcommand.clone());
        let head = format!(".SH \"FOREBAY {}\"\n", subcommand.get_name().to_uppercase());
        page.extend_from_slice(head.as_bytes());
        man.render_description_section(&mut page)
            .and_then(|()| man.render_options_section(&mut page))
            .and_then(|()| man.render_extra_section(&mut page))
            .map_err(|error| CommandFailure::bug(format!("failed to render the man page: {error}")))?;
    }
    print(&page)
}

fn print(text: &[u8]) -> Result<ExitCause, CommandFailure> {
    // Whoever closed the pipe has read enough.
    let _ = super::out(format_args!("{}", String::from_utf8_lossy(text)));
    Ok(ExitCause::Ok)
}
