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
    lifecycle::ProcessPhase,
    senders::{SenderAnswer, SignatureError},
    spool::AppendError,
};

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestRefusal {
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

impl RequestRefusal {
    pub fn status(self) -> StatusCode {
        match self {
            RequestRefusal::Path => StatusCode::NOT_FOUND,
            RequestRefusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            RequestRefusal::NotAllowed => StatusCode::FORBIDDEN,
            RequestRefusal::ClientFull => StatusCode::TOO_MANY_REQUESTS,
            RequestRefusal::Upgrade
            | RequestRefusal::Incomplete
            | RequestRefusal::Framing
            | RequestRefusal::Signature(_) => StatusCode::BAD_REQUEST,
            RequestRefusal::TooLarge | RequestRefusal::Spool(AppendError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            RequestRefusal::Deadline | RequestRefusal::TooSlow => StatusCode::REQUEST_TIMEOUT,
            RequestRefusal::BodiesFull
            | RequestRefusal::VerifyingFull
            | RequestRefusal::Spool(_)
            | RequestRefusal::Late
            | RequestRefusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            RequestRefusal::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The stable name of the reason: `code` in the answer, `reason` in the log.
    pub fn code(self) -> &'static str {
        match self {
            RequestRefusal::Path => "not_found",
            RequestRefusal::Method => "method_not_allowed",
            RequestRefusal::Upgrade => "upgrade_not_supported",
            RequestRefusal::NotAllowed => "not_allowed",
            RequestRefusal::ClientFull => "client_connections",
            RequestRefusal::TooLarge => "body_too_large",
            RequestRefusal::Deadline => "body_deadline",
            RequestRefusal::TooSlow => "body_too_slow",
            RequestRefusal::Incomplete => "body_incomplete",
            RequestRefusal::Framing => "body_framing",
            RequestRefusal::BodiesFull => "bodies_full",
            RequestRefusal::VerifyingFull => "verifying_full",
            RequestRefusal::Signature(SignatureError::Missing) => "signature_missing",
            RequestRefusal::Signature(SignatureError::Malformed) => "signature_malformed",
            RequestRefusal::Signature(SignatureError::Wrong) => "signature_wrong",
            RequestRefusal::Spool(AppendError::Full) => "spool_full",
            RequestRefusal::Spool(AppendError::BulkFull) => "spool_bulk_full",
            RequestRefusal::Spool(AppendError::RouteFull) => "spool_route_full",
            RequestRefusal::Spool(AppendError::TooLarge) => "record_too_large",
            RequestRefusal::Spool(AppendError::Failed) => "spool_failed",
            RequestRefusal::Spool(AppendError::Exhausted) => "spool_exhausted",
            RequestRefusal::Spool(AppendError::Busy) => "spool_busy",
            RequestRefusal::Spool(AppendError::Closed) | RequestRefusal::Stopping => "stopping",
            RequestRefusal::Late => "spool_late",
            RequestRefusal::Panicked => "internal",
        }
    }

    fn detail(self) -> &'static str {
        match self {
            RequestRefusal::Path => "no endpoint has this path",
            RequestRefusal::Method => "webhooks are sent with POST",
            RequestRefusal::Upgrade => "the connection is not upgraded",
            RequestRefusal::NotAllowed => "the endpoint does not take webhooks from this address",
            RequestRefusal::ClientFull => "the client has connections_per_client_max connections",
            RequestRefusal::TooLarge => "the body is larger than body_bytes_max",
            RequestRefusal::Deadline => "the body was not complete within body_deadline",
            RequestRefusal::TooSlow => "the body came more slowly than 1 KiB a second",
            RequestRefusal::Incomplete => "the body ended before its length",
            RequestRefusal::Framing => "the body's framing is malformed",
            RequestRefusal::BodiesFull => "the memory for bodies is used up",
            RequestRefusal::VerifyingFull => "too many large bodies are being verified",
            RequestRefusal::Signature(_) => "the signature is not right",
            RequestRefusal::Spool(AppendError::Full) => "the spool is full",
            RequestRefusal::Spool(AppendError::BulkFull) => "the share of the spool for pictures is full",
            RequestRefusal::Spool(AppendError::RouteFull) => {
                "a route that wants the event may keep no more in the spool"
            }
            RequestRefusal::Spool(AppendError::TooLarge) => "the record is larger than the spool takes",
            RequestRefusal::Spool(AppendError::Failed) => "the spool cannot sync",
            RequestRefusal::Spool(AppendError::Exhausted) => "no descriptor or memory is left for the spool",
            RequestRefusal::Spool(AppendError::Busy) => "too many requests wait for the disk",
            RequestRefusal::Spool(AppendError::Closed) | RequestRefusal::Stopping => "the server is stopping",
            RequestRefusal::Late => "the disk did not answer in time",
            RequestRefusal::Panicked => "an internal error",
        }
    }

    /// Seconds after which it is worth coming back.
    fn retry_after_s(self) -> u32 {
        match self {
            RequestRefusal::Spool(AppendError::Full | AppendError::BulkFull | AppendError::RouteFull) => 30,
            RequestRefusal::Spool(AppendError::Failed | AppendError::Closed) | RequestRefusal::Stopping => 5,
            _ => 1,
        }
    }

    /// The answer. `unread` is what may be left of the request's body: the connection is closed if anything is.
    pub fn answer(self, unread: Payload) -> HttpResponse {
        let mut response = HttpResponse::build(self.status());
        if self == RequestRefusal::Method {
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
        let text = if let RequestRefusal::Signature(_) = self {
            response.insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"));
            Bytes::from_static(b"BAD SIGNATURE")
        } else {
            response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
            problem(self.status(), self.code(), self.detail())
        };
        response.body(BoxBody::new(UnreadPayload {
            text: Some(text),
            _payload: unread,
        }))
    }

    /// Whether the connection is closed: it is after every refusal, but of a request that was verified.
    fn closes(self) -> bool {
        !matches!(self, RequestRefusal::Spool(_) | RequestRefusal::Late)
    }
}

/// The answer to a load balancer that asks the public server how it is.
pub(super) fn health(phase: ProcessPhase) -> HttpResponse {
    let (status, text) = match phase {
        ProcessPhase::Ready => (StatusCode::OK, "ok\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    };
    HttpResponse::build(status)
        .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
        .body(text)
}

/// The answer to a request whose record is durable.
pub(super) fn accepted(answer: SenderAnswer) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, answer.content_type))
        .body(answer.body)
}

/// An answer that holds on to what was not read of the request.
///
/// actix-web closes a connection with an unread body only if someone still holds the body; a chunked one that was let
/// go it would read on and throw away, for as long as the peer sends.
struct UnreadPayload {
    text: Option<Bytes>,
    _payload: Payload,
}

impl MessageBody for UnreadPayload {
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
        .map(RequestRefusal::Signature);
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
        .map(RequestRefusal::Spool);
        let others = [
            RequestRefusal::Path,
            RequestRefusal::Method,
            RequestRefusal::Upgrade,
            RequestRefusal::NotAllowed,
            RequestRefusal::ClientFull,
            RequestRefusal::VerifyingFull,
            RequestRefusal::TooLarge,
            RequestRefusal::Deadline,
            RequestRefusal::TooSlow,
            RequestRefusal::Incomplete,
            RequestRefusal::Framing,
            RequestRefusal::BodiesFull,
            RequestRefusal::Late,
            RequestRefusal::Stopping,
            RequestRefusal::Panicked,
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
        let refusal = RequestRefusal::Spool(AppendError::Full);
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
