//! Problem documents (RFC 9457).

use actix_web::http::StatusCode;
use bytes::Bytes;

/// The document of an answer with this status.
///
/// `code` is the reason's stable name, and stands under `reason` too, the name that it has in the log.
pub(crate) fn problem(status: StatusCode, code: &str, detail: &str) -> Bytes {
    let document = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "code": code,
        "reason": code,
        "detail": detail,
    });
    Bytes::from(document.to_string())
}
