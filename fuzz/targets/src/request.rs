//! A request as a server hands it on.

use bytes::Bytes;
use forebay_event::Time;
use forebay_senders::{HeaderLookup, UnverifiedRequest};

/// When every request is received.
pub const RECEIVED: Time = Time(1_700_000_000_000);

/// The headers of a request.
pub struct GivenHeaders(pub Vec<(&'static str, Vec<u8>)>);

impl HeaderLookup for GivenHeaders {
    fn value(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_slice())
    }
}

impl GivenHeaders {
    pub fn request(&self, body: &Bytes) -> UnverifiedRequest<'_> {
        UnverifiedRequest {
            headers: self,
            body: body.clone(),
            received: RECEIVED,
        }
    }
}
