//! The schemas of `docs/schemas/`, built in.

use std::collections::BTreeMap;

use jsonschema::{Draft, Validator};
use serde_json::Value;

use crate::senders;

const SCHEMAS: &[(&str, &str)] = &[
    ("event", include_str!("../../../docs/schemas/event.schema.json")),
    ("feeds", include_str!("../../../docs/schemas/feeds.schema.json")),
    ("media", include_str!("../../../docs/schemas/media.schema.json")),
    (
        "recordings",
        include_str!("../../../docs/schemas/recordings.schema.json"),
    ),
    ("thumbnail", include_str!("../../../docs/schemas/thumbnail.schema.json")),
    (
        "transcoder",
        include_str!("../../../docs/schemas/transcoder.schema.json"),
    ),
    (
        "unreadable",
        include_str!("../../../docs/schemas/unreadable.schema.json"),
    ),
    (
        "viewerconnection",
        include_str!("../../../docs/schemas/viewerconnection.schema.json"),
    ),
];
/// Beside which kinds are called.
const ANY: &str = "event";

/// What events must look like, by kind.
pub struct EventSchemas(BTreeMap<&'static str, Validator>);

impl EventSchemas {
    pub fn load() -> Self {
        let validator = |text: &str| {
            let schema: Value = serde_json::from_str(text).expect("the schemas are JSON");
            let options = jsonschema::options()
                .with_draft(Draft::Draft202012)
                .should_validate_formats(true);
            options.build(&schema).expect("the schemas are schemas")
        };
        Self(SCHEMAS.iter().map(|(kind, text)| (*kind, validator(text))).collect())
    }

    /// The first deviation of an event, without its values: they may be anybody's. `original`: its data is the body as
    /// it came, of which the schemas say nothing.
    pub fn deviation(&self, event: &Value, original: bool) -> Option<String> {
        let kind = event["type"].as_str().unwrap_or_default();
        let prefixes = senders::senders().iter().map(|sender| sender.provider().type_prefix);
        let mut kinds = prefixes.filter_map(|prefix| kind.strip_prefix(prefix)?.strip_prefix('.'));
        let kind = kinds.next().unwrap_or_default().split('.').next().unwrap_or_default();
        let kind = if original || kind == ANY { ANY } else { kind };
        let validator = self
            .0
            .get(kind)
            .or_else(|| self.0.get(ANY))
            .expect("the common schema is built in");
        let error = validator.iter_errors(event).next()?;
        Some(format!("{}: {}", error.instance_path(), error.masked()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_of_the_documents_is_built_in() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schemas");
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), SCHEMAS.len());
        assert_eq!(EventSchemas::load().0.len(), SCHEMAS.len());
    }
}
