//! Tokens from a provider that fails in many ways.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use super::*;

/// A provider that gives these answers in turn, and the last one again and again.
fn provider(answers: &[(&str, &str)]) -> OauthSettings {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/token", listener.local_addr().unwrap());
    let answers: Vec<String> = answers
        .iter()
        .map(|(status, body)| {
            let length = body.len();
            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
        })
        .collect();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            while !request.ends_with(b"grant_type=client_credentials") {
                let length = stream.read(&mut chunk).unwrap();
                request.extend_from_slice(&chunk[..length]);
            }
            let answer = answers.get(n).or(answers.last()).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    settings(&endpoint)
}

fn settings(endpoint: &str) -> OauthSettings {
    OauthSettings {
        owner: "sink 'main'".into(),
        endpoint: endpoint.parse().unwrap(),
        client_id: "forebay".into(),
        client_secret: "s3cret".into(),
        scope: None,
        extensions: Vec::new(),
        ca_file: None,
    }
}

const GOOD: (&str, &str) = ("200 OK", r#"{"access_token":"opaque","expires_in":5}"#);

#[tokio::test]
async fn each_failure_of_a_provider_is_told_with_its_remedy_and_without_the_secret() {
    let table = [
        (
            "401 Unauthorized",
            r#"{"error":"invalid_client"}"#,
            Remedy::Hold,
            "HTTP 401 (invalid_client)",
        ),
        (
            "400 Bad Request",
            r#"{"error":"the secret s3cret is wrong"}"#,
            Remedy::Hold,
            "HTTP 400: correct",
        ),
        (
            "404 Not Found",
            "",
            Remedy::Hold,
            "HTTP 404: correct sasl.oauthbearer.token.endpoint.url",
        ),
        ("302 Found", "", Remedy::Hold, "HTTP 302"),
        ("429 Too Many Requests", "", Remedy::Retry, "HTTP 429"),
        ("503 Service Unavailable", "<html>", Remedy::Retry, "HTTP 503"),
        ("200 OK", r#"{"token":"s3cret"}"#, Remedy::Hold, "HTTP 200, but"),
    ];
    for (status, body, remedy, part) in table {
        let settings = provider(&[(status, body)]);
        let failure = TokenKeeper::fetch(settings.clone()).lease().await.err().unwrap();
        assert_eq!(
            (failure.remedy, failure.cause),
            (remedy, failure::KafkaCause::Token),
            "{status}: {failure}"
        );
        for part in [part, settings.endpoint.as_str()] {
            assert!(failure.text.contains(part), "{part}: {failure}");
        }
        assert!(!failure.text.contains("s3cret"), "{failure}");
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = settings(&format!("http://127.0.0.1:{port}/token"));
    let failure = TokenKeeper::fetch(nobody.clone()).lease().await.err().unwrap();
    assert_eq!(failure.remedy, Remedy::Retry);
    assert!(failure.text.contains("refused"), "{failure}");

    let no_ca = OauthSettings {
        ca_file: Some("/nowhere/ca.pem".into()),
        ..nobody
    };
    let failure = TokenKeeper::fetch(no_ca).lease().await.err().unwrap();
    assert_eq!(failure.remedy, Remedy::Hold);
    assert!(failure.text.contains("/nowhere/ca.pem"), "{failure}");
}

#[tokio::test]
async fn a_token_is_renewed_and_a_failed_renewal_is_no_trouble_while_the_token_lives() {
    let refusal = ("503 Service Unavailable", "");
    let (sender, told) = std::sync::mpsc::channel();
    let tell = move |not_after| sender.send(not_after).unwrap();
    let mut tokens = TokenKeeper::fetch_telling(provider(&[refusal, GOOD, refusal, GOOD]), tell);
    assert!(tokens.lease().await.is_err());
    assert!(told.try_recv().is_err());
    assert!(tokens.trouble().is_some(), "there has been no token yet");
    let mut lease = tokens.lease().await.ok().unwrap();
    assert!(tokens.trouble().is_none());
    assert!(lease.renewed().is_none());

    // Renewed after four seconds of its five, and refused first.
    let mut latest = tokens.latest.clone();
    latest.wait_for(|latest| latest.failure.is_some()).await.unwrap();
    assert!(tokens.trouble().is_none(), "it still lives");
    assert!(lease.next().await.is_some());
    assert!(tokens.trouble().is_none());

    let not_after: Vec<i64> = told.try_iter().collect();
    let now = jiff::Timestamp::now().as_second();
    assert!(
        not_after.len() == 2 && not_after[0] < not_after[1] && (now..now + 6).contains(&not_after[1]),
        "{not_after:?} at {now}"
    );
}

#[tokio::test]
async fn nothing_is_fetched_for_nobody() {
    let tokens = TokenKeeper::fetch(provider(&[GOOD]));
    let mut latest = tokens.latest.clone();
    drop(tokens);
    let over = async { while latest.changed().await.is_ok() {} };
    timeout_at(Instant::now() + Duration::from_secs(10), over)
        .await
        .unwrap();
}
