//! Validates published events with the schemas of `docs/schemas/`.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::LazyLock};

use jsonschema::{Draft, Validator};
use serde_json::Value;

/// Where the schemas are.
pub fn dir() -> PathBuf {
    PathBuf::from(crate::ROOT).join("docs/schemas")
}

/// Checks a structured event with normalised data against the schema of its kind, or, where the kind is unknown,
/// against the one that every event obeys. A binary event goes in as an object of its attributes.
///
/// `Err` names each deviation.
pub fn validate(event: &Value) -> Result<(), String> {
    static VALIDATORS: LazyLock<BTreeMap<String, Validator>> = LazyLock::new(load);

    let type_ = event["type"].as_str().unwrap_or_default();
    let kind = type_
        .strip_prefix("com.millicast.")
        .and_then(|rest| rest.split('.').next())
        .unwrap_or_default();
    let validator = VALIDATORS.get(kind).unwrap_or(&VALIDATORS["event"]);
    let problems: Vec<String> = validator
        .iter_errors(event)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("{type_}: {}", problems.join("; ")))
    }
}

fn load() -> BTreeMap<String, Validator> {
    let files = fs::read_dir(dir()).unwrap().map(|file| file.unwrap().path());
    files
        .filter_map(|path| {
            let kind = path.file_name()?.to_str()?.strip_suffix(".schema.json")?.to_owned();
            let schema: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let options = jsonschema::options()
                .with_draft(Draft::Draft202012)
                .should_validate_formats(true);
            Some((kind, options.build(&schema).unwrap()))
        })
        .collect()
}
