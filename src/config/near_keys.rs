//! Variables of the environment that are nearly those of keys, and are not read: `FOREBAY_SPOOL_DIR`,
//! `forebay__spool__dir`.

use std::collections::BTreeSet;

use forebay_section::ENV_PREFIX;

/// The variables that begin so and are no keys.
const OF_THE_COMMAND_LINE: [&str; 3] = ["FOREBAY_CONFIG", "FOREBAY_LOG", "FOREBAY_LOG_FORMAT"];
/// A name is only nearly another one when its length is: `FOREBAY_LOG_LEVEL`.
const LENGTH_DIFFERENCE_MAX: usize = 6;
/// Tables whose keys stand below a name of the user's own.
const NAMED: [&str; 3] = ["endpoints", "sinks", "routes"];

/// Each such variable, and what is wrong with it. `known`: every key that was looked for, with its tables.
pub(super) fn find(env: &[(String, String)], known: &BTreeSet<String>) -> Vec<(String, String)> {
    let set = env.iter().filter(|(_, value)| !value.is_empty());
    let mut found: Vec<_> = set
        .filter_map(|(name, _)| Some((name.clone(), meant(name, known)?)))
        .collect();
    found.sort();
    found
}

/// What is wrong with a variable; `None` when it is a key's, or has nothing to do with Forebay.
fn meant(name: &str, known: &BTreeSet<String>) -> Option<String> {
    if name.starts_with(ENV_PREFIX) || OF_THE_COMMAND_LINE.contains(&name) {
        return None;
    }
    let plain_name = plain(name);
    let below = plain_name.strip_prefix("FOREBAY_")?;
    let variable = match key(below, known) {
        Some((variable, key)) => return Some(format!("is not read; the variable of {key} is {variable}")),
        None => OF_THE_COMMAND_LINE
            .into_iter()
            .filter(|meant| plain_name.len().abs_diff(meant.len()) <= LENGTH_DIFFERENCE_MAX)
            .find(|meant| plain_name.replace('_', "").starts_with(&meant.replace('_', "")))?,
    };
    Some(format!("is not read; did you mean {variable}"))
}

/// The variable and the name of the key that `below`, a plain name without `FOREBAY_`, nearly is.
fn key(below: &str, known: &BTreeSet<String>) -> Option<(String, String)> {
    let is_leaf = |key: &&String| {
        let table = format!("{key}.");
        key.contains('.') && !known.iter().any(|other| other.starts_with(&table))
    };
    let leaves: Vec<&String> = known.iter().filter(is_leaf).collect();
    if let Some(key) = leaves.iter().find(|key| plain(key) == below) {
        return Some((variable(key), (*key).clone()));
    }
    // A name that the file does not have: the key behind it is known from another one.
    let mut candidates = leaves.iter().filter_map(|key| {
        let mut parts = key.splitn(3, '.');
        let (table, _, rest) = (parts.next()?, parts.next()?, parts.next()?);
        if !NAMED.contains(&table) {
            return None;
        }
        let of_table = below.strip_prefix(&format!("{}_", plain(table)))?;
        let (own, rest) = match of_table.split_once("_PROPERTIES_") {
            Some((own, property)) if rest == "properties" => {
                (own, format!("properties.{}", property.replace('_', ".")))
            }
            _ => (of_table.strip_suffix(&format!("_{}", plain(rest)))?, rest.to_owned()),
        };
        (!own.is_empty()).then(|| format!("{table}.{}.{}", own.to_lowercase(), rest.to_lowercase()))
    });
    // `…_TLS_CA_FILE` is that of the longest key that fits.
    let first = candidates.next()?;
    let key = candidates.fold(first, |best, key| {
        if key.matches('.').count() > best.matches('.').count() {
            key
        } else {
            best
        }
    });
    Some((variable(&key), key))
}

/// The variable of a key.
fn variable(key: &str) -> String {
    let parts = key.split('.').map(|part| part.replace('-', "_").to_uppercase());
    format!("{ENV_PREFIX}{}", parts.collect::<Vec<_>>().join("__"))
}

/// In upper case, with one underscore for whatever stands between words.
fn plain(text: &str) -> String {
    let words = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    words.map(str::to_uppercase).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_nearly_a_keys_names_the_right_one() {
        let known: BTreeSet<String> = [
            "server",
            "server.listen",
            "spool.dir",
            "spool.bytes_max",
            "endpoints",
            "endpoints.Acme-Live.secrets",
            "endpoints.Acme-Live.path",
            "sinks.main.brokers",
            "sinks.main.properties",
            "sinks.main.tls",
            "sinks.main.tls.ca_file",
        ]
        .map(str::to_owned)
        .into();
        for (name, variable) in [
            ("FOREBAY_SPOOL_DIR", "FOREBAY__SPOOL__DIR"),
            ("FOREBAY_SPOOL__DIR", "FOREBAY__SPOOL__DIR"),
            ("forebay__spool__bytes_max", "FOREBAY__SPOOL__BYTES_MAX"),
            ("Forebay.Spool.Dir", "FOREBAY__SPOOL__DIR"),
            (
                "FOREBAY_ENDPOINTS_ACME_LIVE_SECRETS",
                "FOREBAY__ENDPOINTS__ACME_LIVE__SECRETS",
            ),
            ("FOREBAY_ENDPOINTS_OTHER_PATH", "FOREBAY__ENDPOINTS__OTHER__PATH"),
            (
                "FOREBAY_SINKS_RABBIT_TLS_CA_FILE",
                "FOREBAY__SINKS__RABBIT__TLS__CA_FILE",
            ),
            (
                "FOREBAY_SINKS_MAIN_PROPERTIES_SASL_PASSWORD",
                "FOREBAY__SINKS__MAIN__PROPERTIES__SASL__PASSWORD",
            ),
            ("FOREBAY_LOG_LEVEL", "FOREBAY_LOG"),
            ("FOREBAY_LOGFORMAT", "FOREBAY_LOG"),
            ("FOREBAY_CONFIG_FILE", "FOREBAY_CONFIG"),
        ] {
            let wrong = meant(name, &known).unwrap_or_else(|| panic!("{name}: nothing"));
            assert!(wrong.ends_with(variable), "{name}: {wrong}");
        }
        for name in [
            "FOREBAY__SPOOL__DIR",
            "FOREBAY_CONFIG",
            "FOREBAY_LOG",
            "FOREBAY_LOG_FORMAT",
            "FOREBAY_REVISION",
            "FOREBAY_SERVER",
            // Of a Service of Kubernetes that is called so.
            "FOREBAY_SERVICE_HOST",
            "FOREBAY_PORT_8080_TCP_ADDR",
            "FOREBAY_CONFIG_SERVICE_HOST",
            "FOREBAY_TEST_KAFKA",
            "SPOOL_DIR",
            "PATH",
        ] {
            assert_eq!(meant(name, &known), None, "{name}");
        }
    }
}
