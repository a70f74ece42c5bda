//! The provider's API with a memory: webhooks are made, changed, disabled and removed, secrets are renewed.
//!
//! Every request is held against the provider's own description; one that is not as described fails the test at its
//! end. What a test plans is answered in the place of what the API would say, or after it was done.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, mpsc},
    thread,
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::ServerHandle,
    http::{
        StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, HeaderName},
    },
    rt::System,
    web,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::description::{ApiDescription, DescribedCall, ReceivedRequest};
use crate::support::secrets::API_TOKEN;

/// The first webhook's id.
pub const FIRST_ID: u64 = 100;

/// What is answered in the place of what the API would say.
#[derive(Debug, Clone)]
pub struct PlannedAnswer {
    /// The call is carried out first.
    pub is_carried_out: bool,
    pub delay: Duration,
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl PlannedAnswer {
    pub fn new(status: u16, body: impl ToString) -> Self {
        Self {
            is_carried_out: false,
            delay: Duration::ZERO,
            status,
            headers: Vec::new(),
            body: body.to_string(),
        }
    }

    /// As the description has it.
    pub fn error(status: u16, message: &str) -> Self {
        Self::new(status, json!({ "status": "error", "message": message, "code": status }))
    }

    pub fn with(mut self, header: &'static str, value: &str) -> Self {
        self.headers.push((header, value.to_owned()));
        self
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub fn carried_out(mut self) -> Self {
        self.is_carried_out = true;
        self
    }
}

/// How lists are cut into pages, which the description leaves open.
#[derive(Debug, Clone, Copy)]
pub struct PageHabit {
    /// A page begins with the webhook that it starts at, and not after it.
    pub has_start: bool,
    /// However many are asked for.
    pub items_max: usize,
}

pub struct FakeProvider {
    pub address: SocketAddr,
    account: Arc<FakeAccount>,
    server: ServerHandle,
}

struct FakeAccount {
    description: ApiDescription,
    memory: Mutex<AccountMemory>,
}

#[derive(Default)]
struct AccountMemory {
    webhooks: BTreeMap<u64, Value>,
    secrets: u64,
    planned: VecDeque<PlannedAnswer>,
    pages: Option<PageHabit>,
    received: Vec<ReceivedRequest>,
    calls: BTreeSet<String>,
    problems: Vec<String>,
}

impl FakeProvider {
    /// As the API is now.
    pub fn start() -> Self {
        Self::with(ApiDescription::with_filter())
    }

    pub fn with(description: ApiDescription) -> Self {
        let account = Arc::new(FakeAccount {
            description,
            memory: Mutex::default(),
        });
        let shared = web::Data::from(Arc::clone(&account));
        let (sender, started) = mpsc::channel();
        thread::spawn(move || {
            System::new().block_on(async move {
                let app = move || App::new().app_data(shared.clone()).default_service(web::to(answer));
                let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(0);
                let server = server.bind(("127.0.0.1", 0)).unwrap();
                let address = server.addrs()[0];
                let server = server.run();
                sender.send((address, server.handle())).unwrap();
                server.await.unwrap();
            });
        });
        let (address, server) = started.recv().unwrap();
        Self {
            address,
            account,
            server,
        }
    }

    fn memory(&self) -> MutexGuard<'_, AccountMemory> {
        self.account.memory.lock().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts a webhook there; what is not said of it is as by default.
    pub fn has(&self, members: Value) -> u64 {
        self.memory().add(members.as_object().unwrap())
    }

    /// A webhook as the API has it.
    pub fn webhook(&self, id: u64) -> Value {
        self.memory().webhooks.get(&id).cloned().unwrap_or_default()
    }

    pub fn count(&self) -> usize {
        self.memory().webhooks.len()
    }

    pub fn secret(&self, id: u64) -> String {
        self.webhook(id)["secret"].as_str().unwrap().to_owned()
    }

    /// As after too many time-outs.
    pub fn disable(&self, id: u64, until: &str, reason: &str) {
        let mut memory = self.memory();
        let webhook = memory.webhooks.get_mut(&id).unwrap();
        webhook["disabled"] = json!({ "until": until, "reason": reason });
    }

    pub fn plan(&self, answers: impl IntoIterator<Item = PlannedAnswer>) {
        self.memory().planned.extend(answers);
    }

    pub fn cut_lists(&self, pages: PageHabit) {
        self.memory().pages = Some(pages);
    }

    /// The requests since the last look.
    pub fn received(&self) -> Vec<ReceivedRequest> {
        std::mem::take(&mut self.memory().received)
    }

    /// The calls of the description that were made.
    pub fn calls(&self) -> BTreeSet<String> {
        self.memory().calls.clone()
    }
}

/// What was asked must have been as described.
impl Drop for FakeProvider {
    fn drop(&mut self) {
        // It is told by the call; nobody waits for the end.
        drop(self.server.stop(false));
        if !thread::panicking() {
            let problems = &self.memory().problems;
            assert!(problems.is_empty(), "not as described: {problems:#?}");
        }
    }
}

async fn answer(request: HttpRequest, body: web::Bytes, account: web::Data<FakeAccount>) -> HttpResponse {
    let header = |name: HeaderName| {
        let value = request.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let query = web::Query::<BTreeMap<String, String>>::from_query(request.query_string());
    let received = ReceivedRequest {
        method: request.method().to_string(),
        path: request.path().to_owned(),
        query: query.unwrap().into_inner(),
        authorization: header(AUTHORIZATION),
        content_type: header(CONTENT_TYPE),
        body: body.to_vec(),
    };
    let (planned, usual) = account.take(received);
    let Some(planned) = planned else {
        let (status, body) = usual;
        return response(status, "application/json").body(body.to_string());
    };
    actix_web::rt::time::sleep(planned.delay).await;
    let mut response = response(planned.status, "application/json");
    for header in planned.headers {
        response.insert_header(header);
    }
    response.body(planned.body)
}

fn response(status: u16, content_type: &str) -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::build(StatusCode::from_u16(status).unwrap());
    response.content_type(content_type);
    response
}

fn failed(status: u16, message: &str) -> (u16, Value) {
    (
        status,
        json!({ "status": "error", "message": message, "code": status, "data": null }),
    )
}

fn refused(data: Value) -> (u16, Value) {
    (400, json!({ "status": "fail", "data": data }))
}

fn done(data: impl Into<Value>) -> (u16, Value) {
    (200, json!({ "status": "success", "data": data.into() }))
}

impl FakeAccount {
    /// What is planned in the place of an answer, and the answer.
    fn take(&self, request: ReceivedRequest) -> (Option<PlannedAnswer>, (u16, Value)) {
        let mut memory = self.memory.lock().unwrap();
        memory.received.push(request.clone());
        // How the API has changed since it was described is found out by asking.
        if self.description.lacks_body(&request) {
            return (None, failed(415, "Unsupported Media Type"));
        }
        let call = match self.description.judge(&request) {
            Ok(call) => call,
            Err(problem) => {
                let answer = refused(json!(problem));
                memory.problems.push(problem);
                return (None, answer);
            }
        };
        memory.calls.insert(call.id().to_owned());
        let planned = memory.planned.pop_front();
        if planned.as_ref().is_some_and(|planned| !planned.is_carried_out) {
            return (planned, done(Value::Null));
        }
        let answer = match request.authorization.as_deref() == Some(&format!("Bearer {API_TOKEN}")) {
            true => memory.carry_out(&call, &request),
            false => failed(401, "Unauthorized"),
        };
        let (status, body) = &answer;
        if let Err(problem) = self.description.judge_answer(call.operation, *status, body) {
            memory.problems.push(problem);
        }
        (planned, answer)
    }
}

impl AccountMemory {
    fn new_secret(&mut self) -> Value {
        self.secrets += 1;
        STANDARD
            .encode(format!("the provider's secret {:010}", self.secrets))
            .into()
    }

    fn add(&mut self, members: &Map<String, Value>) -> u64 {
        let id = self.webhooks.keys().next_back().map_or(FIRST_ID, |last| last + 1);
        let mut webhook = json!({
            "id": id,
            "url": format!("https://hooks.example/{id}"),
            "secret": self.new_secret(),
            "isFeedHooks": false,
            "isRecordingHooks": false,
            "isThumbnailHooks": false,
            "isTranscoderHooks": false,
            "isMediaHooks": false,
            "isViewerConnectionHooks": false,
            "disabled": null,
        });
        set(&mut webhook, members);
        self.webhooks.insert(id, webhook);
        id
    }

    fn carry_out(&mut self, call: &DescribedCall<'_>, request: &ReceivedRequest) -> (u16, Value) {
        let body = request.json();
        if body["url"].as_str().is_some_and(|url| url.starts_with("http://")) {
            return refused(json!({ "url": "must be https" }));
        }
        match call.id() {
            "Webhooks_ListWebhooks" => done(self.list(&request.query)),
            "Webhooks_AddWebhook" => {
                let id = self.add(body.as_object().unwrap());
                done(self.webhooks[&id].clone())
            }
            "Webhooks_TestWebhook" => self.test(call.variable("webhookType")),
            _ => self.of_one(call, &body),
        }
    }

    fn of_one(&mut self, call: &DescribedCall<'_>, body: &Value) -> (u16, Value) {
        let id = call.variable("webhookId").parse().unwrap();
        if !self.webhooks.contains_key(&id) {
            return failed(404, "Webhook not found");
        }
        match call.id() {
            "Webhooks_Get" => done(self.webhooks[&id].clone()),
            "Webhooks_UpdateWebhook" => done(self.update(id, body.as_object().unwrap())),
            "Webhooks_RemoveWebhook" => {
                self.webhooks.remove(&id);
                done(true)
            }
            other => panic!("the fake does not know {other}"),
        }
    }

    fn update(&mut self, id: u64, change: &Map<String, Value>) -> Value {
        let secret = (change.get("refreshSecret") == Some(&json!(true))).then(|| self.new_secret());
        let webhook = self.webhooks.get_mut(&id).unwrap();
        if change.get("reEnable") == Some(&json!(true)) || change.contains_key("url") {
            webhook["disabled"] = Value::Null;
        }
        let mut change = change.clone();
        change.retain(|name, value| {
            !matches!(&**name, "refreshSecret" | "reEnable") && (!value.is_null() || name == "filter")
        });
        change.extend(secret.map(|secret| ("secret".to_owned(), secret)));
        set(webhook, &change);
        webhook.clone()
    }

    fn list(&self, query: &BTreeMap<String, String>) -> Vec<Value> {
        let number = |name: &str| query.get(name).map(|text| text.parse::<u64>().unwrap());
        let is_descending = query.get("isDescending").is_some_and(|text| text == "true");
        let pages = self.pages.unwrap_or(PageHabit {
            has_start: true,
            items_max: 100,
        });
        let mut ids: Vec<u64> = self.webhooks.keys().copied().collect();
        if let Some(start) = number("startingId") {
            ids.retain(|id| match is_descending {
                _ if *id == start => pages.has_start,
                true => *id < start,
                false => *id > start,
            });
        }
        if is_descending {
            ids.reverse();
        }
        let count = number("itemCount").unwrap_or(10) as usize;
        ids.truncate(count.min(pages.items_max));
        ids.iter().map(|id| self.webhooks[id].clone()).collect()
    }

    fn test(&self, webhook_type: &str) -> (u16, Value) {
        let flag = match webhook_type {
            "Recordings" => "isRecordingHooks".to_owned(),
            "Feeds" => "isFeedHooks".to_owned(),
            other => format!("is{other}Hooks"),
        };
        match self.webhooks.values().any(|webhook| webhook[&flag] == true) {
            true => done(true),
            false => refused(json!(format!("no webhook has {flag}"))),
        }
    }
}

fn set(webhook: &mut Value, members: &Map<String, Value>) {
    for (name, value) in members {
        webhook[name] = value.clone();
    }
}
