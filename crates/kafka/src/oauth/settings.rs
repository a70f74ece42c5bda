//! The properties that say where tokens come from. Their names are librdkafka's; it never sees them.

use std::{collections::BTreeMap, sync::Arc};

use reqwest::Url;

use crate::settings;

const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";
const METHOD: &str = "sasl.oauthbearer.method";
const GRANT_TYPE: &str = "sasl.oauthbearer.grant.type";
const SCOPE: &str = "sasl.oauthbearer.scope";
const EXTENSIONS: &str = "sasl.oauthbearer.extensions";
/// The provider's, not the brokers'.
pub(crate) const CA: &str = "https.ca.location";
/// With the alias.
const CLIENT_ID: [&str; 2] = [
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.credentials.client.id",
];
const CLIENT_SECRET: [&str; 2] = [
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
];

/// How a sink gets its tokens: an OAuth client and its provider.
#[derive(Clone)]
pub(crate) struct OauthSettings {
    /// Whose tokens they are, for messages.
    pub owner: Arc<str>,
    pub endpoint: Url,
    pub client_id: String,
    pub client_secret: String,
    pub scope: Option<String>,
    /// Names and values for the broker.
    pub extensions: Vec<(String, String)>,
    /// A file of certificates to trust, instead of the system's.
    pub ca_file: Option<String>,
}

impl OauthSettings {
    /// `None`: the sink, whose properties were checked, does not use tokens.
    pub fn from_config(owner: &str, config: &settings::KafkaConfig) -> Option<Self> {
        let properties = &config.properties;
        let get = |names: &[&str]| names.iter().find_map(|name| properties.get(*name)).cloned();
        let protocol = get(&["security.protocol"])?.to_ascii_lowercase();
        if !protocol.starts_with("sasl") || !is_used(properties) {
            return None;
        }
        Some(Self {
            owner: owner.into(),
            endpoint: endpoint(&get(&[ENDPOINT])?).ok()?,
            client_id: get(&CLIENT_ID)?,
            client_secret: get(&CLIENT_SECRET)?,
            scope: get(&[SCOPE]),
            extensions: get(&[EXTENSIONS])
                .and_then(|text| extensions(&text))
                .unwrap_or_default(),
            ca_file: get(&[CA]).filter(|path| path != "probe"),
        })
    }
}

/// It is one of the properties that are not for librdkafka; `name` in lower case.
pub(crate) fn is_own(name: &str) -> bool {
    [ENDPOINT, METHOD, GRANT_TYPE, SCOPE, EXTENSIONS, CA].contains(&name)
        || CLIENT_ID.contains(&name)
        || CLIENT_SECRET.contains(&name)
}

/// What is wrong with the value of one of the properties that are not for librdkafka.
pub(crate) fn problem(name: &str, value: &str) -> Option<String> {
    match name {
        ENDPOINT => endpoint(value).err(),
        METHOD if value != "oidc" => Some("is always oidc: Forebay fetches the tokens".to_owned()),
        GRANT_TYPE if value != "client_credentials" => Some("is always client_credentials".to_owned()),
        EXTENSIONS if extensions(value).is_none() => {
            Some("is a list name=value,name=value, where names have only letters and are not 'auth'".to_owned())
        }
        _ if value.is_empty() => Some("is empty".to_owned()),
        _ => None,
    }
}

/// What tokens need and `properties` does not have, or has in vain: the property to blame, and the reason.
pub(crate) fn missing(properties: &BTreeMap<String, String>) -> Option<(String, String)> {
    let has = |names: &[&str]| names.iter().any(|name| properties.contains_key(*name));
    let Some(mechanism) = mechanism(properties).filter(|_| is_used(properties)) else {
        let in_vain = properties
            .keys()
            .find(|key| is_own(key.as_str()) && key.starts_with("sasl."))?;
        return Some((in_vain.clone(), "is for sasl.mechanisms = OAUTHBEARER only".to_owned()));
    };
    let needed: [&[&str]; 3] = [&[ENDPOINT], &CLIENT_ID, &CLIENT_SECRET];
    let absent: Vec<&str> = needed
        .iter()
        .filter(|names| !has(names))
        .map(|names| names[0])
        .collect();
    (!absent.is_empty()).then(|| {
        (
            mechanism.clone(),
            format!("OAUTHBEARER needs also {}", absent.join(", ")),
        )
    })
}

/// The key that chooses the mechanism.
fn mechanism(properties: &BTreeMap<String, String>) -> Option<&String> {
    properties
        .keys()
        .find(|key| matches!(key.as_str(), "sasl.mechanisms" | "sasl.mechanism"))
}

fn is_used(properties: &BTreeMap<String, String>) -> bool {
    mechanism(properties).is_some_and(|key| properties[key].trim().eq_ignore_ascii_case("OAUTHBEARER"))
}

fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is not an http:// or https:// URL".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("names a user: sasl.oauthbearer.client.id and .client.secret are for that".to_owned());
    }
    Ok(url)
}

fn extensions(text: &str) -> Option<Vec<(String, String)>> {
    let pairs = text.split(',').map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic()) && name != "auth";
        let is_value = value.chars().all(|c| c == ' ' || c.is_ascii_graphic());
        (is_name && is_value).then(|| (name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    const COMPLETE: [(&str, &str); 5] = [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "oauthbearer"),
        (ENDPOINT, "https://id.example.com/token"),
        (CLIENT_ID[1], "forebay"),
        (CLIENT_SECRET[0], "s3cret"),
    ];

    #[test]
    fn what_a_token_needs_is_asked_for() {
        assert_eq!(missing(&properties(&COMPLETE)), None);
        let (key, reason) = missing(&properties(&COMPLETE[..2])).unwrap();
        assert_eq!(key, "sasl.mechanism");
        assert_eq!(
            reason,
            "OAUTHBEARER needs also sasl.oauthbearer.token.endpoint.url, sasl.oauthbearer.client.id, \
             sasl.oauthbearer.client.secret"
        );
        let (key, _) = missing(&properties(&[("sasl.mechanisms", "PLAIN"), (SCOPE, "kafka")])).unwrap();
        assert_eq!(key, SCOPE);
        assert_eq!(
            missing(&properties(&[("sasl.mechanisms", "PLAIN"), (CA, "/a.pem")])),
            None
        );
    }

    #[test]
    fn values_that_cannot_be_used_are_refused() {
        for (name, value) in [
            (ENDPOINT, "id.example.com/token"),
            (ENDPOINT, "ftp://id.example.com/token"),
            (ENDPOINT, "https://forebay:s3cret@id.example.com/token"),
            (METHOD, "default"),
            (GRANT_TYPE, "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            (EXTENSIONS, "logicalCluster"),
            (EXTENSIONS, "logical.cluster=a"),
            (EXTENSIONS, "auth=a"),
            (CLIENT_SECRET[0], ""),
        ] {
            let reason = problem(name, value).unwrap_or_default();
            assert!(
                !reason.is_empty() && !reason.contains("s3cret"),
                "{name}={value}: {reason}"
            );
        }
        for (name, value) in [
            (ENDPOINT, "http://127.0.0.1:8080/realms/a/token"),
            (METHOD, "oidc"),
            (GRANT_TYPE, "client_credentials"),
            (EXTENSIONS, "logicalCluster=lkc-1, identityPoolId=pool-1"),
        ] {
            assert_eq!(problem(name, value), None, "{name}={value}");
        }
    }

    #[test]
    fn only_a_sink_that_authenticates_by_tokens_has_settings() {
        let config = |pairs: &[(&str, &str)]| settings::KafkaConfig {
            brokers: Vec::new(),
            properties: properties(pairs),
            create_topics: None,
        };
        let settings = OauthSettings::from_config("sink 'main'", &config(&COMPLETE)).unwrap();
        assert_eq!(
            (settings.client_id.as_str(), settings.client_secret.as_str()),
            ("forebay", "s3cret")
        );
        assert!(
            OauthSettings::from_config("sink 'main'", &config(&COMPLETE[1..])).is_none(),
            "without SASL"
        );
        assert!(
            OauthSettings::from_config("sink 'main'", &config(&[COMPLETE[0], ("sasl.mechanisms", "PLAIN")])).is_none()
        );
    }
}
