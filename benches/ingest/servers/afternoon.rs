//! The bridge that one writes in an afternoon: actix-web, the signature, the stream as the key, `FutureProducer::send`,
//! and 200 once Kafka has it. It keeps nothing on disk: while Kafka is away it answers 503.

use std::{future::Future, time::Duration};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use anyhow::Result;
use rdkafka::{
    ClientConfig,
    client::DefaultClientContext,
    producer::{FutureProducer, FutureRecord},
    util::AsyncRuntime,
};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::load::{PATH, sign};

struct Bridge {
    producer: FutureProducer<DefaultClientContext, Tokio>,
    topic: String,
}

/// The crate's own is behind a feature that Forebay does without.
struct Tokio;

impl AsyncRuntime for Tokio {
    type Delay = tokio::time::Sleep;

    fn spawn<T: Future<Output = ()> + Send + 'static>(task: T) {
        tokio::spawn(task);
    }

    fn delay_for(duration: Duration) -> Self::Delay {
        tokio::time::sleep(duration)
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Stream<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stream<'a> {
    stream_id: &'a str,
}

pub fn run(port: u16, brokers: &str, topic: &str) -> Result<()> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true");
    actix_web::rt::System::new().block_on(async {
        let bridge = web::Data::new(Bridge {
            producer: config.create()?,
            topic: topic.to_owned(),
        });
        let server = HttpServer::new(move || App::new().app_data(bridge.clone()).route(PATH, web::post().to(take)));
        Ok(server.bind(("127.0.0.1", port))?.run().await?)
    })
}

async fn take(request: HttpRequest, body: web::Bytes, bridge: web::Data<Bridge>) -> HttpResponse {
    let given = request
        .headers()
        .get("x-millicast-signature")
        .map(|value| value.as_bytes());
    let genuine = given.is_some_and(|given| bool::from(given.ct_eq(sign(&body).as_bytes())));
    let Some(event) = genuine
        .then(|| serde_json::from_slice::<Envelope<'_>>(&body).ok())
        .flatten()
    else {
        return HttpResponse::BadRequest().finish();
    };
    let record = FutureRecord::to(&bridge.topic)
        .key(event.data.stream_id)
        .payload(&body[..]);
    match bridge.producer.send(record, Duration::from_secs(5)).await {
        Ok(_) => HttpResponse::Ok().body("OK"),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}
