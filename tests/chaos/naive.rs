//! The bridge that one writes in an afternoon: checks the signature, hands the body to Kafka, and answers once Kafka
//! has it. It has no disk.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use forebay_test_support::{forebay::PATH, sender::sign};
use rdkafka::{
    ClientConfig,
    client::DefaultClientContext,
    producer::{FutureProducer, FutureRecord},
    util::AsyncRuntime,
};
use serde_json::Value;

/// For a client that is built without one.
struct TokioRuntime;

impl AsyncRuntime for TokioRuntime {
    type Delay = tokio::time::Sleep;

    fn spawn<T: Future<Output = ()> + Send + 'static>(task: T) {
        tokio::spawn(task);
    }

    fn delay_for(duration: Duration) -> Self::Delay {
        tokio::time::sleep(duration)
    }
}

struct Bridge {
    producer: FutureProducer<DefaultClientContext, TokioRuntime>,
    topic: String,
}

/// Serves until the process is ended.
pub fn serve(listen: SocketAddr, brokers: &str, topic: &str) -> std::io::Result<()> {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("message.timeout.ms", "5000")
        .create();
    let bridge = web::Data::from(Arc::new(Bridge {
        producer: producer.map_err(std::io::Error::other)?,
        topic: topic.to_owned(),
    }));
    let server = HttpServer::new(move || {
        let route = web::resource(PATH).route(web::post().to(take));
        App::new().app_data(bridge.clone()).service(route)
    });
    actix_web::rt::System::new().block_on(server.workers(2).bind(listen)?.run())
}

async fn take(request: HttpRequest, body: web::Bytes, bridge: web::Data<Bridge>) -> HttpResponse {
    let signature = request.headers().get("X-Millicast-Signature");
    if signature.and_then(|value| value.to_str().ok()) != Some(&sign(&body)) {
        return HttpResponse::BadRequest().finish();
    }
    let event: Value = serde_json::from_slice(&body).unwrap_or_default();
    let key = event["data"]["streamId"].as_str().unwrap_or_default().to_owned();
    let record = FutureRecord::to(&bridge.topic).key(&key).payload(&body[..]);
    match bridge.producer.send(record, Duration::from_secs(5)).await {
        Ok(_) => HttpResponse::Ok().finish(),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}
