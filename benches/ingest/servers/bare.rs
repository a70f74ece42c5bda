//! The least that answers: actix-web reads the body and says 200.

use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Result;

use crate::load::PATH;

pub fn run(port: u16) -> Result<()> {
    let server = HttpServer::new(|| App::new().route(PATH, web::post().to(take)));
    let server = server.bind(("127.0.0.1", port))?.run();
    Ok(actix_web::rt::System::new().block_on(server)?)
}

async fn take(body: web::Bytes) -> HttpResponse {
    // The extractor has read all of it.
    drop(body);
    HttpResponse::Ok().body("OK")
}
