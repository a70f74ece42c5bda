//! What the senders' events must look like.

use std::collections::BTreeMap;

use jsonschema::{Draft, Validator};
use serde_json::Value;

use crate::senders;

/// Beside which kinds are called.
const ANY: &str = "event";

/// What events must look like, by what the types of a sender's events begin with and by kind.
pub struct EventSchemas(Vec<(&'static str, BTreeMap<&'static str, Validator>)>);

impl EventSchemas {
    /// Those that the senders bring.
    pub fn load() -> Self {
        let validator = |text: &str| {
            let schema: Value = serde_json::from_str(text).expect("the schemas are JSON");
            let options = jsonschema::options()
                .with_draft(Draft::Draft202012)
                .should_validate_formats(true);
            options.build(&schema).expect("the schemas are schemas")
        };
        let of_senders = senders::senders().iter().map(|sender| {
            let schemas = sender.schemas().iter().map(|(kind, text)| (*kind, validator(text)));
            (sender.provider().type_prefix, schemas.collect())
        });
        Self(of_senders.collect())
    }

    /// The first deviation of an event, without its values: they may be anybody's. `original`: its data is the body as
    /// it came, of which the schemas say nothing. Of a sender without schemas everything is right; what is of no sender
    /// deviates from those of the first.
    pub fn deviation(&self, event: &Value, original: bool) -> Option<String> {
        let type_ = event["type"].as_str().unwrap_or_default();
        let mut of_senders = self.0.iter();
        let found = of_senders.find_map(|(prefix, schemas)| {
            let kind = type_.strip_prefix(prefix)?.strip_prefix('.')?;
            Some((kind.split('.').next().unwrap_or_default(), schemas))
        });
        let (kind, schemas) = found.or_else(|| self.0.first().map(|(_, schemas)| ("", schemas)))?;
        let kind = if original || kind == ANY { ANY } else { kind };
        let validator = schemas.get(kind).or_else(|| schemas.get(ANY))?;
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
        let built_in: usize = EventSchemas::load().0.iter().map(|(_, schemas)| schemas.len()).sum();
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), built_in);
    }
}
