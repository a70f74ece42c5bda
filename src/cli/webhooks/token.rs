//! The token of the API: from a variable, a file, or whoever sits at the terminal; never from an argument, which stands
//! in the list of processes.

use std::{convert::Infallible, io};

use crate::{
    cli::{
        CommandFailure,
        terminal::{self, HiddenInput},
    },
    config::TextSource,
    millicast_api::ApiToken,
};

/// `--token`. What is no source may be the token itself, and shows itself in no message.
pub fn source(text: &str) -> Result<TextSource, Infallible> {
    Ok(TextSource::parse(text))
}

pub fn read(source: &TextSource) -> Result<ApiToken, CommandFailure> {
    if matches!(source, TextSource::Inline(_)) {
        return Err(CommandFailure::usage(
            "--token: expected env:NAME or file:PATH; a token itself would stand in the list of processes",
        ));
    }
    let text = source.read();
    let text = text.map_err(|error| CommandFailure::usage(format!("--token {error}")))?;
    ApiToken::parse(&text).map_err(|error| CommandFailure::usage(format!("--token {source:?}: {error}")))
}

/// Asks whoever sits at the terminal, and does not show what is typed.
pub async fn ask() -> Result<ApiToken, CommandFailure> {
    terminal::somebody_is_there(
        "the API wants a token, and nobody can be asked here: say --token env:NAME or --token file:PATH",
    )?;
    let unusable = |error: io::Error| CommandFailure::usage(format!("the terminal cannot be used: {error}"));
    let hidden = HiddenInput::begin().map_err(unusable)?;
    let line = terminal::ask("Token of the API (it is not shown):").await;
    drop(hidden);
    let token = ApiToken::parse(&line.map_err(unusable)?);
    token.map_err(|error| CommandFailure::usage(format!("the token: {error}")))
}
