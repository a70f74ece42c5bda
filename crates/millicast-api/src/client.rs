//! The calls.

use std::{
    collections::HashSet,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use forebay_http_client as http_client;
use reqwest::{
    Client, Method, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
    redirect,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    ApiError, ApiRefusal, ApiToken, ClientSetupError, NewWebhook, TestSubject, Webhook, WebhookChange, WebhookType,
    answer::{self, ApiAnswer},
    error::one_line,
    retry::CallRetries,
};

/// Where the API is.
pub const BASE_URL: &str = "https://api.millicast.com";
/// Webhooks of an account, at most.
pub const WEBHOOKS_MAX: usize = 10_000;
/// Of one answer: ten thousand webhooks are about 4 MiB.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// The limits of a client.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// From a request to the last byte of its answer.
    pub deadline: Duration,
    /// Of one call, the first one included.
    pub tries_max: u32,
    /// Before the second try; it doubles from there.
    pub retry_delay_min: Duration,
    pub retry_delay_max: Duration,
    /// Between the tries of one call, in all.
    pub wait_max: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            tries_max: 4,
            retry_delay_min: Duration::from_millis(500),
            retry_delay_max: Duration::from_secs(10),
            wait_max: Duration::from_secs(60),
        }
    }
}

/// In which order webhooks are listed, and how many at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOrder {
    /// `itemCount`: in one answer, at least 2.
    pub item_count: u32,
    /// `isDescending`: the last that was added comes first.
    pub is_descending: bool,
}

impl Default for ListOrder {
    fn default() -> Self {
        Self {
            item_count: 10,
            is_descending: false,
        }
    }
}

/// Asks the API for the webhooks of the account that a token is of.
#[derive(Debug, Clone)]
pub struct WebhookClient {
    http: Client,
    base: Url,
    token: ApiToken,
    options: ClientOptions,
}

/// One request, which may be made several times.
struct ApiCall {
    /// Fits after "failed to".
    text: String,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<String>,
    is_idempotent: bool,
}

impl ApiCall {
    fn read(text: String, path: String) -> Self {
        Self {
            text,
            method: Method::GET,
            path,
            query: Vec::new(),
            body: None,
            is_idempotent: true,
        }
    }

    fn change(text: String, method: Method, path: String) -> Self {
        Self {
            method,
            is_idempotent: false,
            ..Self::read(text, path)
        }
    }

    fn with_body(mut self, body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body);
        self.body = Some(body.expect("texts and flags can be JSON"));
        self
    }

    fn is_change(&self) -> bool {
        self.method != Method::GET
    }
}

impl WebhookClient {
    /// A client of the API at this address, which is [`BASE_URL`] but for tests and proxies.
    ///
    /// # Errors
    ///
    /// It is not the address of an API, or TLS cannot be set up.
    pub fn new(base: &str, token: ApiToken, options: ClientOptions) -> Result<Self, ClientSetupError> {
        let base: Url = base.parse().map_err(|_| ClientSetupError::Address)?;
        let is_bare = base.username().is_empty()
            && base.password().is_none()
            && base.query().is_none()
            && base.fragment().is_none();
        if !matches!(base.scheme(), "http" | "https") || !is_bare {
            return Err(ClientSetupError::Address);
        }
        let http = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_DEADLINE.min(options.deadline))
            .timeout(options.deadline)
            .build();
        Ok(Self {
            http: http.map_err(|error| ClientSetupError::Http(http_client::causes(error)))?,
            base,
            token,
            options,
        })
    }

    /// Whether the token goes to another machine without TLS.
    pub fn sends_in_clear(&self) -> bool {
        let is_local = self.base.host_str().is_some_and(|host| {
            let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        });
        self.base.scheme() == "http" && !is_local
    }

    /// All webhooks: `GET /api/webhooks/list`, until there are no more.
    ///
    /// The description does not say whether a page begins with the webhook that it starts at or after it, nor how many
    /// the API gives at most. So each page starts at the last webhook of the one before, and the end is a page that
    /// brings nothing new.
    ///
    /// # Errors
    ///
    /// The API refuses, does not answer, or has no end.
    pub async fn list(&self, order: &ListOrder) -> Result<Vec<Webhook>, ApiError> {
        let mut found: Vec<Webhook> = Vec::new();
        let mut known = HashSet::new();
        let mut starting_id = None;
        loop {
            let page = self.list_page(order, starting_id).await?;
            starting_id = page.last().map(|webhook| webhook.id);
            let before = found.len();
            found.extend(page.into_iter().filter(|webhook| known.insert(webhook.id)));
            if found.len() == before {
                return Ok(found);
            }
            if found.len() > WEBHOOKS_MAX {
                let call = "list webhooks".to_owned();
                return Err(ApiError::Endless { call });
            }
        }
    }

    async fn list_page(&self, order: &ListOrder, starting_id: Option<u64>) -> Result<Vec<Webhook>, ApiError> {
        let mut call = ApiCall::read("list webhooks".to_owned(), "/api/webhooks/list".to_owned());
        // With one at a time, a page that begins with the webhook that it starts at would bring nothing new.
        call.query.push(("itemCount", order.item_count.max(2).to_string()));
        call.query.push(("isDescending", order.is_descending.to_string()));
        call.query.extend(starting_id.map(|id| ("startingId", id.to_string())));
        self.ask_for(&call).await
    }

    /// One webhook: `GET /api/webhooks/{id}`.
    ///
    /// # Errors
    ///
    /// The API refuses, because there is none with this id for one, or does not answer.
    pub async fn webhook(&self, id: u64) -> Result<Webhook, ApiError> {
        self.ask_for(&ApiCall::read(format!("read webhook {id}"), path(id)))
            .await
    }

    /// Makes a webhook: `POST /api/webhooks`. The answer has its id and secret.
    ///
    /// # Errors
    ///
    /// The API refuses, or does not answer; it is not asked again, because there would be two.
    pub async fn add(&self, webhook: &NewWebhook) -> Result<Webhook, ApiError> {
        let call = ApiCall::change("add a webhook".to_owned(), Method::POST, "/api/webhooks".to_owned());
        self.ask_for(&call.with_body(webhook)).await
    }

    /// Changes a webhook: `PUT /api/webhooks/{id}`. The answer is the webhook as it is then.
    ///
    /// # Errors
    ///
    /// The API refuses, or does not answer; for a new secret it is not asked again, because the first may be in use.
    pub async fn update(&self, id: u64, change: &WebhookChange) -> Result<Webhook, ApiError> {
        let mut call = ApiCall::change(format!("update webhook {id}"), Method::PUT, path(id)).with_body(change);
        call.is_idempotent = change.is_idempotent();
        self.ask_for(&call).await
    }

    /// Removes a webhook: `DELETE /api/webhooks/{id}`.
    ///
    /// # Errors
    ///
    /// The API refuses, or does not answer; it is not asked again, because a second answer would be that there is none.
    pub async fn remove(&self, id: u64) -> Result<(), ApiError> {
        let call = ApiCall::change(format!("remove webhook {id}"), Method::DELETE, path(id));
        self.ask_done(&call).await
    }

    /// Has a test event sent to every webhook of the account that wants this type: `POST /api/webhooks/test/{type}`.
    ///
    /// The description has no body for it, what the API has had since requires one. So without a subject it is asked as
    /// described, and where that form is refused, with a body that is empty.
    ///
    /// # Errors
    ///
    /// The API refuses, or does not answer; it is not asked again, because the event may be on its way.
    pub async fn test(&self, webhook_type: WebhookType, subject: &TestSubject) -> Result<(), ApiError> {
        let name = webhook_type.name();
        let text = format!("have a test event sent of {name}");
        let call = ApiCall::change(text, Method::POST, format!("/api/webhooks/test/{name}"));
        if *subject == TestSubject::default() {
            match self.ask_done(&call).await {
                Err(ApiError::Refused(refusal)) if matches!(refusal.status, 400 | 411 | 415 | 422) => {}
                result => return result,
            }
        }
        self.ask_done(&call.with_body(subject)).await
    }

    async fn ask_for<T: DeserializeOwned>(&self, call: &ApiCall) -> Result<T, ApiError> {
        let (status, data) = self.ask(call).await?;
        serde_json::from_value(data).map_err(|error| self.unreadable(call, status, &error.to_string()))
    }

    /// Asks for what is answered by `true`, in the examples; the schema of a removal has a webhook.
    async fn ask_done(&self, call: &ApiCall) -> Result<(), ApiError> {
        match self.ask(call).await? {
            (status, Value::Bool(false)) => Err(ApiError::Refused(Box::new(ApiRefusal {
                call: call.text.clone(),
                status,
                said: Some("false".to_owned()),
                code: None,
                retry_after: None,
                is_change: true,
            }))),
            _ => Ok(()),
        }
    }

    async fn ask(&self, call: &ApiCall) -> Result<(u16, Value), ApiError> {
        let mut retries = CallRetries::new(&self.options, call.is_idempotent);
        loop {
            let error = match self.try_once(call).await {
                Ok(data) => return Ok(data),
                Err(error) => error,
            };
            let Some(pause) = retries.pause(&error) else {
                return Err(error);
            };
            tracing::warn!("failed to {error}; asking again in {} ms", pause.as_millis());
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_once(&self, call: &ApiCall) -> Result<(u16, Value), ApiError> {
        let request = self.http.request(call.method.clone(), self.url(call));
        let mut request = request
            .header(AUTHORIZATION, self.token.header())
            .header(ACCEPT, "application/json");
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let failed = |error| self.failed(call, error);
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        let retry_after = answer::retry_after(answer.headers(), SystemTime::now());
        let body = http_client::body(&mut answer, ANSWER_BYTES_MAX).await.map_err(failed)?;
        if body.len() >= ANSWER_BYTES_MAX {
            return Err(self.unreadable(call, status, &format!("longer than {ANSWER_BYTES_MAX} bytes")));
        }
        match answer::open(status, &body) {
            ApiAnswer::Success(data) => Ok((status, data)),
            ApiAnswer::Unreadable(cause) => Err(self.unreadable(call, status, cause)),
            ApiAnswer::Refusal { said, code } => Err(ApiError::Refused(Box::new(ApiRefusal {
                call: call.text.clone(),
                status,
                said: said.map(|said| one_line(&self.token.hide_in(&said))),
                code,
                retry_after,
                is_change: call.is_change(),
            }))),
        }
    }

    fn url(&self, call: &ApiCall) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}{}", url.path().trim_end_matches('/'), call.path);
        url.set_path(&path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        url
    }

    fn failed(&self, call: &ApiCall, error: reqwest::Error) -> ApiError {
        let (text, address) = (call.text.clone(), self.base.to_string());
        match (error.is_connect(), error.is_timeout()) {
            (true, true) => ApiError::Unreachable {
                call: text,
                address,
                cause: "no connection in time".to_owned(),
            },
            (true, false) => ApiError::Unreachable {
                call: text,
                address,
                cause: http_client::root_cause(error),
            },
            (false, is_timeout) => ApiError::NoAnswer {
                call: text,
                address,
                cause: match is_timeout {
                    true => format!("none within {} ms", self.options.deadline.as_millis()),
                    false => http_client::root_cause(error),
                },
                is_change: call.is_change(),
            },
        }
    }

    fn unreadable(&self, call: &ApiCall, status: u16, cause: &str) -> ApiError {
        ApiError::Unreadable {
            call: call.text.clone(),
            address: self.base.to_string(),
            status,
            cause: one_line(&self.token.hide_in(cause)),
        }
    }
}

fn path(id: u64) -> String {
    format!("/api/webhooks/{id}")
}
