//! What an operator can ask for, and how it is said in HTTP.

use std::num::NonZeroU32;

use actix_web::http::{Method, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{job::EventSelection, spool::file_name};

/// How many dead letters a page has, where nobody says.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// One thing that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum OperatorCommand {
    Routes,
    PauseRoute(String),
    ResumeRoute(String),
    Jobs,
    ShowJob(String),
    PauseJob(String),
    ResumeJob(String),
    CancelJob(String),
    Letters(LetterPage),
    ShowLetter { route: String, number: u64 },
    Redrive(RepublishRequest),
    Discard(RepublishRequest),
    Replay(RepublishRequest),
}

/// Some of the dead letters, from the oldest on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LetterPage {
    /// `None`: of all routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    #[serde(default)]
    pub selection: EventSelection,
    /// Behind this one: what the page before said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(default = "page")]
    pub limit: usize,
}

fn page() -> usize {
    PAGE
}

/// Events to be published again, or dead letters to be given up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RepublishRequest {
    /// `None`: the dead letters of all routes. A replay names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    pub selection: EventSelection,
    /// The selection is empty, and that is meant.
    pub all: bool,
    /// Counts, and does nothing.
    pub dry_run: bool,
    /// Publishes to this topic instead of the route's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_topic: Option<String>,
    /// Publishes by this route instead of the one whose dead letters they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    /// Messages in a second, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<NonZeroU32>,
    /// After a restart it says that it was cut short, instead of going on.
    pub ends_with_process: bool,
}

/// Why a command is not carried out: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    NotFound,
    MethodNotAllowed,
    Malformed,
    UnknownRoute,
    UnknownJob,
    UnknownLetter,
    /// The selection is empty, and nobody said that it is meant.
    NothingSelected,
    /// A job of that kind runs for the route.
    JobRuns,
    TooManyJobs,
    JobEnded,
    /// It cannot be published there.
    NoSuchTopic,
    /// The route has no sink.
    NoSink,
    NotAllowed,
    Disk,
    Stopping,
}

impl RefusalReason {
    pub const ALL: [Self; 15] = [
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Malformed,
        Self::UnknownRoute,
        Self::UnknownJob,
        Self::UnknownLetter,
        Self::NothingSelected,
        Self::JobRuns,
        Self::TooManyJobs,
        Self::JobEnded,
        Self::NoSuchTopic,
        Self::NoSink,
        Self::NotAllowed,
        Self::Disk,
        Self::Stopping,
    ];

    /// `reason` in the answer.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Malformed => "malformed",
            Self::UnknownRoute => "unknown_route",
            Self::UnknownJob => "unknown_job",
            Self::UnknownLetter => "unknown_dead_letter",
            Self::NothingSelected => "nothing_selected",
            Self::JobRuns => "job_runs",
            Self::TooManyJobs => "too_many_jobs",
            Self::JobEnded => "job_ended",
            Self::NoSuchTopic => "no_such_topic",
            Self::NoSink => "no_sink",
            Self::NotAllowed => "not_allowed",
            Self::Disk => "disk",
            Self::Stopping => "stopping",
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NotFound | Self::UnknownRoute | Self::UnknownJob | Self::UnknownLetter => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Malformed | Self::NothingSelected | Self::NoSuchTopic => StatusCode::BAD_REQUEST,
            Self::JobRuns | Self::TooManyJobs | Self::JobEnded | Self::NoSink => StatusCode::CONFLICT,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::Disk => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A command that is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct OperatorRefusal {
    pub reason: RefusalReason,
    /// For people: the thing, the cause and the cure.
    pub text: String,
}

impl OperatorRefusal {
    pub fn new(reason: RefusalReason, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { reason, text }
    }
}

/// A command as a request: method, path, body.
pub(super) struct CommandRequest {
    pub method: Method,
    pub path: String,
    pub body: Vec<u8>,
}

impl OperatorCommand {
    /// How it is asked for.
    pub(super) fn request(&self) -> CommandRequest {
        let get = |path: String| (Method::GET, path, Vec::new());
        let post = |path: String| (Method::POST, path, Vec::new());
        let segment = |text: &str| file_name::escape(text);
        fn body<T: Serialize>(value: &T) -> Vec<u8> {
            serde_json::to_vec(value).expect("texts and numbers always serialize")
        }
        let (method, path, body) = match self {
            Self::Routes => get("/v1/routes".to_owned()),
            Self::PauseRoute(name) => post(format!("/v1/routes/{}/pause", segment(name))),
            Self::ResumeRoute(name) => post(format!("/v1/routes/{}/resume", segment(name))),
            Self::Jobs => get("/v1/jobs".to_owned()),
            Self::ShowJob(id) => get(format!("/v1/jobs/{}", segment(id))),
            Self::PauseJob(id) => post(format!("/v1/jobs/{}/pause", segment(id))),
            Self::ResumeJob(id) => post(format!("/v1/jobs/{}/resume", segment(id))),
            Self::CancelJob(id) => post(format!("/v1/jobs/{}/cancel", segment(id))),
            Self::Letters(page) => (Method::POST, "/v1/dead-letters/list".to_owned(), body(page)),
            Self::ShowLetter { route, number } => get(format!("/v1/dead-letters/{}/{number}", segment(route))),
            Self::Redrive(request) => (Method::POST, "/v1/dead-letters/redrive".to_owned(), body(request)),
            Self::Discard(request) => (Method::POST, "/v1/dead-letters/discard".to_owned(), body(request)),
            Self::Replay(request) => (Method::POST, "/v1/replay".to_owned(), body(request)),
        };
        CommandRequest { method, path, body }
    }

    /// What a request asks for.
    ///
    /// # Errors
    ///
    /// It asks for nothing that there is.
    pub(super) fn read(method: &Method, path: &str, body: &[u8]) -> Result<Self, OperatorRefusal> {
        let parts: Vec<String> = path
            .trim_start_matches('/')
            .split('/')
            .map(unescaped)
            .collect::<Result<_, _>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let name = |text: &str| text.to_owned();
        let (expected, command): (Method, Box<dyn FnOnce() -> Result<Self, OperatorRefusal>>) = match parts[..] {
            ["v1", "routes"] => (Method::GET, Box::new(|| Ok(Self::Routes))),
            ["v1", "routes", route, "pause"] => (Method::POST, Box::new(move || Ok(Self::PauseRoute(name(route))))),
            ["v1", "routes", route, "resume"] => (Method::POST, Box::new(move || Ok(Self::ResumeRoute(name(route))))),
            ["v1", "jobs"] => (Method::GET, Box::new(|| Ok(Self::Jobs))),
            ["v1", "jobs", id] => (Method::GET, Box::new(move || Ok(Self::ShowJob(name(id))))),
            ["v1", "jobs", id, "pause"] => (Method::POST, Box::new(move || Ok(Self::PauseJob(name(id))))),
            ["v1", "jobs", id, "resume"] => (Method::POST, Box::new(move || Ok(Self::ResumeJob(name(id))))),
            ["v1", "jobs", id, "cancel"] => (Method::POST, Box::new(move || Ok(Self::CancelJob(name(id))))),
            ["v1", "dead-letters", "list"] => (Method::POST, Box::new(|| Ok(Self::Letters(letter_page(body)?)))),
            ["v1", "dead-letters", "redrive"] => (Method::POST, Box::new(|| Ok(Self::Redrive(from_json(body)?)))),
            ["v1", "dead-letters", "discard"] => (Method::POST, Box::new(|| Ok(Self::Discard(from_json(body)?)))),
            ["v1", "dead-letters", route, number] => (
                Method::GET,
                Box::new(move || {
                    let malformed =
                        |_| OperatorRefusal::new(RefusalReason::Malformed, format!("{number:?} is no number"));
                    Ok(Self::ShowLetter {
                        route: name(route),
                        number: number.parse().map_err(malformed)?,
                    })
                }),
            ),
            ["v1", "replay"] => (Method::POST, Box::new(|| Ok(Self::Replay(from_json(body)?)))),
            _ => {
                return Err(OperatorRefusal::new(
                    RefusalReason::NotFound,
                    "nothing is here: see docs/operator-api.yaml",
                ));
            }
        };
        if *method != expected {
            return Err(OperatorRefusal::new(
                RefusalReason::MethodNotAllowed,
                format!("use {expected}"),
            ));
        }
        command()
    }
}

fn letter_page(body: &[u8]) -> Result<LetterPage, OperatorRefusal> {
    let page: LetterPage = from_json(body)?;
    match (1..=PAGE_MAX).contains(&page.limit) {
        true => Ok(page),
        false => Err(OperatorRefusal::new(
            RefusalReason::Malformed,
            format!("limit: a page has 1 to {PAGE_MAX} dead letters"),
        )),
    }
}

fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, OperatorRefusal> {
    let malformed = |text: String| {
        let text = format!("the body is not what is expected: {text}");
        OperatorRefusal::new(RefusalReason::Malformed, text)
    };
    let value: Value = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    // serde takes an array for an object whose members come in that order.
    if !value.is_object() || value.get("selection").is_some_and(|selection| !selection.is_object()) {
        return Err(malformed("expected an object".to_owned()));
    }
    serde_json::from_value(value).map_err(|error| malformed(error.to_string()))
}

fn unescaped(segment: &str) -> Result<String, OperatorRefusal> {
    let malformed = || OperatorRefusal::new(RefusalReason::Malformed, "the path is not percent-encoded UTF-8");
    file_name::unescape(segment).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_read_as_it_is_asked() {
        let request = RepublishRequest {
            route: Some("events".into()),
            all: true,
            rate: NonZeroU32::new(7),
            ..RepublishRequest::default()
        };
        let page = LetterPage {
            route: None,
            selection: EventSelection {
                kinds: vec!["feeds".into()],
                ..EventSelection::default()
            },
            after: Some("events/7".into()),
            limit: 3,
        };
        let name = || "a/b %25é".to_owned();
        for command in [
            OperatorCommand::Routes,
            OperatorCommand::PauseRoute(name()),
            OperatorCommand::ResumeRoute(name()),
            OperatorCommand::Jobs,
            OperatorCommand::ShowJob(name()),
            OperatorCommand::PauseJob(name()),
            OperatorCommand::ResumeJob(name()),
            OperatorCommand::CancelJob(name()),
            OperatorCommand::Letters(page),
            OperatorCommand::ShowLetter {
                route: name(),
                number: u64::MAX,
            },
            OperatorCommand::Redrive(request.clone()),
            OperatorCommand::Discard(request.clone()),
            OperatorCommand::Replay(request),
        ] {
            let CommandRequest { method, path, body } = command.request();
            assert_eq!(OperatorCommand::read(&method, &path, &body).unwrap(), command, "{path}");
            let refused = OperatorCommand::read(&Method::DELETE, &path, &body).unwrap_err();
            assert_eq!(refused.reason, RefusalReason::MethodNotAllowed, "{path}");
        }
    }

    #[test]
    fn what_is_not_there_or_is_malformed_is_refused_and_no_panic() {
        for (method, path, body, reason) in [
            (Method::GET, "/", "", RefusalReason::NotFound),
            (Method::GET, "/v2/routes", "", RefusalReason::NotFound),
            (Method::GET, "/v1/routes/%f", "", RefusalReason::Malformed),
            (Method::GET, "/v1/jobs/%ff", "", RefusalReason::Malformed),
            (Method::GET, "/v1/dead-letters/events/x", "", RefusalReason::Malformed),
            (Method::POST, "/v1/replay", "{", RefusalReason::Malformed),
            (Method::POST, "/v1/replay", r#"{"rout":"x"}"#, RefusalReason::Malformed),
            (Method::POST, "/v1/replay", r#"["x"]"#, RefusalReason::Malformed),
            (
                Method::POST,
                "/v1/replay",
                r#"{"selection":[]}"#,
                RefusalReason::Malformed,
            ),
            (
                Method::POST,
                "/v1/dead-letters/list",
                r#"{"limit":0}"#,
                RefusalReason::Malformed,
            ),
            (
                Method::POST,
                "/v1/dead-letters/list",
                r#"{"limit":1001}"#,
                RefusalReason::Malformed,
            ),
        ] {
            let refused = OperatorCommand::read(&method, path, body.as_bytes()).unwrap_err();
            assert_eq!(refused.reason, reason, "{path} {body}");
        }
    }
}
