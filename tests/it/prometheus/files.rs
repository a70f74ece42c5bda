//! What the rules, their cases and the runbooks say of themselves.

use std::{collections::BTreeSet, fs, path::Path};

use ::config::{Config, File, FileFormat};
use serde_json::Value;

pub use crate::support::ROOT;
/// The files with cases.
pub const CASES: [&str; 2] = ["rules_test.yml", "rules_test_week.yml"];

pub fn rules() -> Value {
    yaml(&read("deploy/prometheus/rules.yml"))
}

pub fn cases(file: &str) -> Value {
    yaml(&read(&format!("deploy/prometheus/{file}")))
}

pub fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(text: &str) -> Value {
    let config = Config::builder()
        .add_source(File::from_str(text, FileFormat::Yaml))
        .build();
    config.and_then(Config::try_deserialize).unwrap()
}

/// Every rule of a rule file.
pub fn each(rules: &Value) -> impl Iterator<Item = &Value> {
    let groups = rules["groups"].as_array().into_iter().flatten();
    groups.flat_map(|group| group["rules"].as_array().into_iter().flatten())
}

/// The names of the alerts.
pub fn alerts(rules: &Value) -> Vec<&str> {
    each(rules).filter_map(|rule| rule["alert"].as_str()).collect()
}

/// The pages of the runbooks, with their text, without the list of them.
pub fn pages() -> Vec<(String, String)> {
    let dir = fs::read_dir(Path::new(ROOT).join("docs/runbooks")).unwrap();
    let names = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| Some(name.strip_suffix(".md")?.to_owned()))
        .filter(|name| name != "README")
        .map(|name| (name.clone(), read(&format!("docs/runbooks/{name}.md"))))
        .collect()
}

/// What a rule lacks that a person needs.
pub fn unsaid(rules: &Value) -> Vec<String> {
    let mut findings = Vec::new();
    for rule in each(rules) {
        let Some(alert) = rule["alert"].as_str() else { continue };
        if !matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning")) {
            findings.push(format!("{alert}: no severity"));
        }
        for annotation in ["summary", "description"] {
            if rule["annotations"][annotation].as_str().is_none_or(str::is_empty) {
                findings.push(format!("{alert}: no {annotation}"));
            }
        }
        let url = rule["annotations"]["runbook_url"].as_str().unwrap_or_default();
        if !url.ends_with(&format!("/docs/runbooks/{alert}.md")) {
            findings.push(format!("{alert}: its runbook_url is {url:?}"));
        }
    }
    findings
}

/// Alerts without a page, pages without an alert, and pages that do not begin with a command, then how to read it, then
/// cures.
pub fn pages_amiss(alerts: &[&str], pages: &[(String, String)], list: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for alert in alerts {
        if !pages.iter().any(|(name, _)| name == alert) {
            findings.push(format!("{alert}: no page"));
        }
        if !list.contains(&format!("[{alert}]({alert}.md)")) {
            findings.push(format!("{alert}: not in the list of runbooks"));
        }
    }
    for (name, text) in pages {
        if !alerts.contains(&name.as_str()) {
            findings.push(format!("{name}: no alert"));
        }
        if !text.starts_with(&format!("# {name}\n\n```sh\n")) {
            findings.push(format!("{name}: does not begin with a command"));
        }
        let headings: Vec<&str> = text.lines().filter(|line| line.starts_with("## ")).collect();
        if headings != ["## Read the answer", "## Cure"] {
            findings.push(format!("{name}: {headings:?}"));
        }
        let lines = text.lines().count();
        if !(25..=60).contains(&lines) {
            findings.push(format!("{name}: {lines} lines"));
        }
    }
    findings
}

/// Alerts of which no case shows that they fire, or that they are silent.
pub fn untried(alerts: &[&str], files: &[Value]) -> Vec<String> {
    let checks: Vec<&Value> = files
        .iter()
        .flat_map(|file| file["tests"].as_array().unwrap())
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap())
        .collect();
    let tried = |alert: &str, fires: bool| {
        checks.iter().any(|check| {
            let expected = check["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
            check["alertname"] == alert && expected == fires
        })
    };
    let mut findings = Vec::new();
    for alert in alerts {
        for (fires, what) in [(true, "fires"), (false, "is silent")] {
            if !tried(alert, fires) {
                findings.push(format!("{alert}: no case in which it {what}"));
            }
        }
    }
    findings
}

/// The metrics that expressions name and that neither Forebay exposes nor a rule records. `exposed`: pages of
/// `/metrics`.
pub fn unknown_metrics(expressions: &[String], rules: &Value, exposed: &[String]) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut known: BTreeSet<&str> = each(rules).filter_map(|rule| rule["record"].as_str()).collect();
    known.insert("up");
    let samples = exposed
        .iter()
        .flat_map(|page| page.lines())
        .filter(|line| !line.starts_with('#'));
    known.extend(samples.filter_map(|line| line.split(|c| !is_name(c)).next()));
    let mut unknown = BTreeSet::new();
    for expression in expressions {
        // What is in quotation marks is a label's value.
        let code: String = expression.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
        for name in code.split(|c| !is_name(c)) {
            let is_metric = name.contains(':') || name.starts_with("forebay_") || name.starts_with("process_");
            if is_metric && !known.contains(name) {
                unknown.insert(name.to_owned());
            }
        }
    }
    unknown.into_iter().collect()
}

/// The expressions of the rules.
pub fn expressions(rules: &Value) -> Vec<String> {
    let expressions = each(rules).map(|rule| rule["expr"].as_str().unwrap().to_owned());
    expressions.collect()
}

/// The queries that the runbooks tell to type.
pub fn queries(pages: &[(String, String)]) -> Vec<String> {
    let lines = pages.iter().flat_map(|(_, text)| text.lines());
    lines
        .filter(|line| line.trim_start().starts_with("promtool query"))
        .map(|line| line.split('\'').nth(1).expect("a query in quotation marks").to_owned())
        .collect()
}
