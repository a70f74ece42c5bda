//! What the tests of this crate share.

use crate::HeaderLookup;

/// Headers by their names as a sender writes them.
pub struct Given(pub Vec<(&'static str, String)>);

impl HeaderLookup for Given {
    fn value(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(given, _)| *given == name);
        found.map(|(_, value)| value.as_bytes())
    }
}
