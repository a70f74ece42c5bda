//! The answers: 200, and every reason for not giving it.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::Payload,
    http::{StatusCode, header},
};
use bytes::Bytes;

use crate::{
    http::problem,
    lifecycle::Phase,
    senders::{Answer, SignatureError},
    spool::AppendError,
};

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Path,
    Method,
    Upgrade,
    /// The endpoint's allow list has another client's address.
    NotAllowed,
    /// The client whom a trusted proxy names has as many connections as one may have.
    ClientFull,
    TooLarge,
    Deadline,
    TooSlow,
    /// The peer closed before its body was complete.
    Incomplete,
    /// The body's framing is not HTTP.
    Framing,
    /// The memory set aside for bodies is used up.
    BodiesFull,
    /// Too many large bodies wait for being verified.
    VerifyingFull,
    Signature(SignatureError),
    Spool(AppendError),
    /// The disk did not answer in time. The record may still become durable.
    Late,
    Stopping,
    Panicked,
}

impl Refusal {
    pub fn status(self) -> StatusCode {
        match self {
            Refusal::Path => StatusCode::NOT_FOUND,
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::NotAllowed => StatusCode::FORBIDDEN,
            Refusal::ClientFull => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Upgrade | Refusal::Incomplete | Refusal::Framing | Refusal::Signature(_) => {
                StatusCode::BAD_REQUEST
            }
            Refusal::TooLarge | Refusal::Spool(AppendError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Deadline | Refusal::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::BodiesFull | Refusal::VerifyingFull | Refusal::Spool(_) | Refusal::Late | Refusal::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Refusal::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The stable name of the reason: `code` in the answer, `reason` in the log.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::Path => "not_found",
            Refusal::Method => "method_not_allowed",
            Refusal::Upgrade => "upgrade_not_supported",
            Refusal::NotAllowed => "not_allowed",
            Refusal::ClientFull => "client_connections",
            Refusal::TooLarge => "body_too_large",
            Refusal::Deadline => "body_deadline",
            Refusal::TooSlow => "body_too_slow",
            Refusal::Incomplete => "body_incomplete",
            Refusal::Framing => "body_framing",
            Refusal::BodiesFull => "bodies_full",
            Refusal::VerifyingFull => "verifying_full",
            Refusal::Signature(SignatureError::Missing) => "signature_missing",
            Refusal::Signature(SignatureError::Malformed) => "signature_malformed",
            Refusal::Signature(SignatureError::Wrong) => "signature_wrong",
            Refusal::Spool(AppendError::Full) => "spool_full",
            Refusal::Spool(AppendError::BulkFull) => "spool_bulk_full",
            Refusal::Spool(AppendError::RouteFull) => "spool_route_full",
            Refusal::Spool(AppendError::TooLarge) => "record_too_large",
            Refusal::Spool(AppendError::Failed) => "spool_failed",
            Refusal::Spool(AppendError::Exhausted) => "spool_exhausted",
            Refusal::Spool(AppendError::Busy) => "spool_busy",
            Refusal::Spool(AppendError::Closed) | Refusal::Stopping => "stopping",
            Refusal::Late => "spool_late",
            Refusal::Panicked => "internal",
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Refusal::Path => "no endpoint has this path",
            Refusal::Method => "webhooks are sent with POST",
            Refusal::Upgrade => "the connection is not upgraded",
            Refusal::NotAllowed => "the endpoint does not take webhooks from this address",
            Refusal::ClientFull => "the client has connections_per_client_max connections",
            Refusal::TooLarge => "the body is larger than body_bytes_max",
            Refusal::Deadline => "the body was not complete within body_deadline",
            Refusal::TooSlow => "the body came more slowly than 1 KiB a second",
            Refusal::Incomplete => "the body ended before its length",
            Refusal::Framing => "the body's framing is malformed",
            Refusal::BodiesFull => "the memory for bodies is used up",
            Refusal::VerifyingFull => "too many large bodies are being verified",
            Refusal::Signature(_) => "the signature is not right",
            Refusal::Spool(AppendError::Full) => "the spool is full",
            Refusal::Spool(AppendError::BulkFull) => "the share of the spool for pictures is full",
            Refusal::Spool(AppendError::RouteFull) => "a route that wants the event may keep no more in the spool",
            Refusal::Spool(AppendError::TooLarge) => "the record is larger than the spool takes",
            Refusal::Spool(AppendError::Failed) => "the spool cannot sync",
            Refusal::Spool(AppendError::Exhausted) => "no descriptor or memory is left for the spool",
            Refusal::Spool(AppendError::Busy) => "too many requests wait for the disk",
            Refusal::Spool(AppendError::Closed) | Refusal::Stopping => "the server is stopping",
            Refusal::Late => "the disk did not answer in time",
            Refusal::Panicked => "an internal error",
        }
    }

    /// Seconds after which it is worth coming back.
    fn retry_after_s(self) -> u32 {
        match self {
            Refusal::Spool(AppendError::Full | AppendError::BulkFull | AppendError::RouteFull) => 30,
            Refusal::Spool(AppendError::Failed | AppendError::Closed) | Refusal::Stopping => 5,
            _ => 1,
        }
    }

    /// The answer. `unread` is what may be left of the request's body: the connection is closed if anything is.
    pub fn answer(self, unread: Payload) -> HttpResponse {
        let mut response = HttpResponse::build(self.status());
        if self == Refusal::Method {
            response.insert_header((header::ALLOW, "POST"));
        }
        if matches!(
            self.status(),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            response.insert_header((header::RETRY_AFTER, self.retry_after_s()));
        }
        if self.closes() {
            response.force_close();
        }
        let text = if let Refusal::Signature(_) = self {
            response.insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"));
            Bytes::from_static(b"BAD SIGNATURE")
        } else {
            response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
            problem(self.status(), self.code(), self.detail())
        };
        response.body(BoxBody::new(Unread {
            text: Some(text),
            _payload: unread,
        }))
    }

    /// Whether the connection is closed: it is after every refusal, but of a request that was verified.
    fn closes(self) -> bool {
        !matches!(self, Refusal::Spool(_) | Refusal::Late)
    }
}

/// The answer to a load balancer that asks the public server how it is.
pub(super) fn health(phase: Phase) -> HttpResponse {
    let (status, text) = match phase {
        Phase::Ready => (StatusCode::OK, "ok\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    };
    HttpResponse::build(status)
        .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
        .body(text)
}

/// The answer to a request whose record is durable.
pub(super) fn accepted(answer: Answer) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, answer.content_type))
        .body(answer.body)
}

/// An answer that holds on to what was not read of the request.
///
/// actix-web closes a connection with an unread body only if someone still holds the body; a chunked one that was let
/// go it would read on and throw away, for as long as the peer sends.
struct Unread {
    text: Option<Bytes>,
    _payload: Payload,
}

impl MessageBody for Unread {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.text.as_ref().map_or(0, |text| text.len() as u64))
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(self.text.take().map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_documented_with_its_status() {
        let signature = [
            SignatureError::Missing,
            SignatureError::Malformed,
            SignatureError::Wrong,
        ]
        .map(Refusal::Signature);
        let spool = [
            AppendError::Full,
            AppendError::BulkFull,
            AppendError::RouteFull,
            AppendError::TooLarge,
            AppendError::Failed,
            AppendError::Exhausted,
            AppendError::Busy,
            AppendError::Closed,
        ]
        .map(Refusal::Spool);
        let others = [
            Refusal::Path,
            Refusal::Method,
            Refusal::Upgrade,
            Refusal::NotAllowed,
            Refusal::ClientFull,
            Refusal::VerifyingFull,
            Refusal::TooLarge,
            Refusal::Deadline,
            Refusal::TooSlow,
            Refusal::Incomplete,
            Refusal::Framing,
            Refusal::BodiesFull,
            Refusal::Late,
            Refusal::Stopping,
            Refusal::Panicked,
        ];
        let documented = include_str!("../../docs/errors.md");
        for refusal in others.into_iter().chain(spool) {
            let row = format!("| {} | `{}` |", refusal.status().as_u16(), refusal.code());
            assert!(documented.contains(&row), "{row} is missing");
        }
        for refusal in signature {
            assert!(documented.contains(refusal.code()), "{} is missing", refusal.code());
        }
    }

    #[test]
    fn a_problem_names_its_status_and_code() {
        let refusal = Refusal::Spool(AppendError::Full);
        let document: serde_json::Value =
            serde_json::from_slice(&problem(refusal.status(), refusal.code(), refusal.detail())).unwrap();
        assert_eq!(
            document,
            serde_json::json!({
                "type": "about:blank", "title": "Service Unavailable", "status": 503,
                "code": "spool_full", "reason": "spool_full", "detail": "the spool is full",
            })
        );
    }
}
