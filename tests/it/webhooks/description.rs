//! The provider's own description of its API, as a judge of requests and answers.

use std::{collections::BTreeMap, fs};

use jsonschema::Draft;
use serde_json::{Value, json};

use crate::support::ROOT;

const FILE: &str = "tests/millicast/webhooks-openapi-2025-04.json";

/// A request as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedRequest {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub authorization: Option<String>,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
}

impl ReceivedRequest {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What the API is.
pub struct ApiDescription(Value);

/// A call of the description that a request makes.
pub struct DescribedCall<'a> {
    pub operation: &'a Value,
    /// What stands in the path in the place of names.
    pub variables: BTreeMap<String, String>,
}

impl DescribedCall<'_> {
    pub fn id(&self) -> &str {
        self.operation["operationId"].as_str().unwrap()
    }

    pub fn variable(&self, name: &str) -> &str {
        &self.variables[name]
    }
}

impl ApiDescription {
    /// As the provider published it.
    pub fn published() -> Self {
        let text = fs::read_to_string(format!("{ROOT}/{FILE}")).unwrap();
        let mut description = serde_json::from_str(&text).unwrap();
        as_json_schema(&mut description);
        Self(description)
    }

    /// With what the API has had since: a filter, and a body of the call for test events.
    pub fn with_filter() -> Self {
        let Self(mut description) = Self::published();
        let schemas = &mut description["components"]["schemas"];
        let filter = |types: Value| json!({ "type": types, "minLength": 1, "maxLength": 128 });
        schemas["WebhookModel"]["properties"]["filter"] = filter(json!(["string", "null"]));
        schemas["AddWebhookModel"]["properties"]["filter"] = filter(json!("string"));
        schemas["UpdateWebhookModel"]["properties"]["filter"] = filter(json!(["string", "null"]));
        let names = json!({ "streamName": { "type": "string" }, "transcoderName": { "type": "string" } });
        let schema = json!({ "type": "object", "additionalProperties": false, "properties": names });
        description["paths"]["/api/webhooks/test/{webhookType}"]["post"]["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        Self(description)
    }

    /// Whether a request has no body where one is required.
    pub fn lacks_body(&self, request: &ReceivedRequest) -> bool {
        let call = self.find(request);
        request.body.is_empty() && call.is_ok_and(|call| call.operation["requestBody"]["required"] == true)
    }

    /// The ids of all calls.
    pub fn calls(&self) -> Vec<String> {
        let paths = self.0["paths"].as_object().unwrap().values();
        let operations = paths.flat_map(|path| path.as_object().unwrap().values());
        let ids = operations.map(|operation| operation["operationId"].as_str().unwrap().to_owned());
        ids.collect()
    }

    /// The call that a request makes, or what is wrong with it.
    pub fn judge(&self, request: &ReceivedRequest) -> Result<DescribedCall<'_>, String> {
        let call = self.find(request)?;
        let bearer = request
            .authorization
            .as_deref()
            .and_then(|text| text.strip_prefix("Bearer "));
        if bearer.is_none_or(str::is_empty) {
            return Err("no bearer token".to_owned());
        }
        self.judge_parameters(&call, request)?;
        let body = &call.operation["requestBody"];
        if body.is_null() {
            return match request.body.is_empty() {
                true => Ok(call),
                false => Err(format!("{} has no body", call.id())),
            };
        }
        if request.content_type.as_deref() != Some("application/json") {
            return Err(format!("the content type of the body is {:?}", request.content_type));
        }
        let schema = &body["content"]["application/json"]["schema"];
        let given: Value = serde_json::from_slice(&request.body).map_err(|error| format!("the body: {error}"))?;
        self.validate(schema, &given)
            .map_err(|problem| format!("the body {given}: {problem}"))?;
        Ok(call)
    }

    fn find(&self, request: &ReceivedRequest) -> Result<DescribedCall<'_>, String> {
        let given: Vec<&str> = request.path.split('/').collect();
        let method = request.method.to_lowercase();
        let mut found = Vec::new();
        for (template, path) in self.0["paths"].as_object().unwrap() {
            let parts: Vec<&str> = template.split('/').collect();
            let mut variables = BTreeMap::new();
            let is_it = parts.len() == given.len()
                && parts
                    .iter()
                    .zip(&given)
                    .all(|(part, given)| match part.strip_prefix('{') {
                        Some(name) => {
                            variables.insert(name.trim_end_matches('}').to_owned(), (*given).to_owned());
                            true
                        }
                        None => part == given,
                    });
            let operation = &path[&method];
            if is_it && !operation.is_null() {
                found.push(DescribedCall { operation, variables });
            }
        }
        // A path without names goes before one with.
        found.sort_by_key(|call| call.variables.len());
        let none = || format!("there is no {} {}", request.method, request.path);
        found.into_iter().next().ok_or_else(none)
    }

    fn judge_parameters(&self, call: &DescribedCall<'_>, request: &ReceivedRequest) -> Result<(), String> {
        let parameters = call.operation["parameters"].as_array().cloned().unwrap_or_default();
        let named = |name: &str, place: &str| {
            let mut all = parameters.iter();
            all.find(|parameter| parameter["name"] == name && parameter["in"] == place)
        };
        let given = (call.variables.iter().map(|(name, text)| (name, text, "path")))
            .chain(request.query.iter().map(|(name, text)| (name, text, "query")));
        for (name, text, place) in given {
            let parameter = named(name, place).ok_or_else(|| format!("there is no {name} in the {place}"))?;
            let value = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
            self.validate(&parameter["schema"], &value)
                .map_err(|problem| format!("{name} in the {place}: {problem}"))?;
        }
        let missing = parameters.iter().find(|parameter| {
            let name = parameter["name"].as_str().unwrap();
            parameter["required"] == true && parameter["in"] == "query" && !request.query.contains_key(name)
        });
        missing.map_or(Ok(()), |parameter| Err(format!("{} is missing", parameter["name"])))
    }

    /// Whether an answer is one that the description has: by its schema, or word for word as in its example, which two
    /// of its schemas contradict.
    pub fn judge_answer(&self, operation: &Value, status: u16, answer: &Value) -> Result<(), String> {
        let responses = &operation["responses"];
        let response = match &responses[status.to_string()] {
            Value::Null => &responses["default"],
            response => response,
        };
        let content = &response["content"]["application/json"];
        let mut examples = content["examples"].as_object().into_iter().flat_map(|all| all.values());
        if examples.any(|example| example["value"] == *answer) {
            return Ok(());
        }
        self.validate(&content["schema"], answer)
            .map_err(|problem| format!("the answer {status} {answer}: {problem}"))
    }

    fn validate(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = json!({ "allOf": [schema], "components": self.0["components"] });
        let options = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true);
        let validator = options.build(&schema).unwrap();
        let problems = validator.iter_errors(value);
        let problems: Vec<String> = problems
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        match problems.is_empty() {
            true => Ok(()),
            false => Err(problems.join("; ")),
        }
    }
}

/// OpenAPI 3.0 says by `nullable` what JSON Schema says by a type.
fn as_json_schema(value: &mut Value) {
    if value["nullable"] == true {
        if let Value::String(name) = &value["type"] {
            value["type"] = json!([name, "null"]);
        }
        if let Value::Array(choices) = &mut value["oneOf"] {
            choices.push(json!({ "type": "null" }));
        }
    }
    match value {
        Value::Object(members) => {
            // What the tests for them have put there.
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(as_json_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(as_json_schema),
        _ => {}
    }
}
