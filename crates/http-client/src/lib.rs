//! What Forebay asks of others over HTTP: an identity provider, RabbitMQ's management API, a collector of spans.
//!
//! Of an answer no more is read than is sensible, and an error names its cause and no URL.

use std::{error::Error, fs, iter, path::Path};

use reqwest::{Certificate, Response};

/// The certificates in a file of PEM.
///
/// # Errors
///
/// The file cannot be read, or is not PEM; the text does not name it.
pub fn certificates(path: &Path) -> Result<Vec<Certificate>, String> {
    let pem = fs::read(path).map_err(|error| error.to_string())?;
    Certificate::from_pem_bundle(&pem).map_err(causes)
}

/// The body of an answer. One that is longer ends with the piece that reaches `bytes_max`.
pub async fn body(answer: &mut Response, bytes_max: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < bytes_max
        && let Some(piece) = answer.chunk().await?
    {
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// What an error says, with all that is behind it.
pub fn causes(error: reqwest::Error) -> String {
    chain(error).join(": ")
}

/// What is behind an error in the end, such as `Connection refused`.
pub fn root_cause(error: reqwest::Error) -> String {
    chain(error).pop().unwrap_or_default()
}

/// Without the URL, which whoever asked has named already.
fn chain(error: reqwest::Error) -> Vec<String> {
    let error = error.without_url();
    let first: &(dyn Error + 'static) = &error;
    iter::successors(Some(first), |&error| error.source())
        .map(ToString::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// The URL of a server that gives one answer.
    fn answering(answer: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let asked = stream.read(&mut [0; 4096]).unwrap();
            assert!(asked > 0, "an answer to nothing is an error");
            // Whoever has read enough hangs up.
            let _ = stream.write_all(&answer);
        });
        format!("http://{address}/secret")
    }

    #[tokio::test]
    async fn a_body_is_read_so_far_and_no_further() {
        let body_of = async |bytes: usize| {
            let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n").into_bytes();
            answer.resize(answer.len() + bytes, b'x');
            let mut answer = reqwest::get(answering(answer)).await.unwrap();
            body(&mut answer, 100_000).await.unwrap().len()
        };
        assert_eq!(body_of(10).await, 10);
        let long = body_of(64 << 20).await;
        assert!((100_000..10_000_000).contains(&long), "{long}");
    }

    #[tokio::test]
    async fn an_error_tells_all_that_is_behind_it_but_no_url() {
        let failed = async || {
            let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            reqwest::get(format!("http://{gone}/secret")).await.unwrap_err()
        };
        let all = causes(failed().await);
        assert!(all.contains(": ") && !all.contains("secret"), "{all}");
        let root = root_cause(failed().await);
        assert!(root.contains("refused") && all.ends_with(&root), "{root}; {all}");
    }

    #[test]
    fn what_is_wrong_with_a_file_of_certificates_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        assert!(certificates(&file).unwrap_err().contains("No such file"));
        let broken = "-----BEGIN CERTIFICATE-----\nMDEy\n-----END CERTIFICATE-----\n";
        fs::write(&file, broken).unwrap();
        assert!(certificates(&file).is_err());
    }
}
