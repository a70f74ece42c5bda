//! The socket by which a process is asked.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use super::*;
use crate::support::{ROOT, venv};

fn ask(bench: &Bench, request: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(bench.setup.spool().join("operator.sock")).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (
        code,
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")),
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: forebay\r\nConnection: close\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_its_owner_s_alone_and_answers_in_json() {
    let bench = Bench::new("asked", "1000000", "").await;
    let mut forebay = bench.setup.start();
    let path = bench.setup.spool().join("operator.sock");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, routes) = ask(&bench, &get("/v1/routes"));
    assert_eq!(code, 200);
    let names: Vec<&str> = routes["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| route["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"events"), "{names:?}");
    for (request, code, reason) in [
        (get("/v1/nothing"), 404, "not_found"),
        (get("/v1/routes/events/pause"), 405, "method_not_allowed"),
        (get("/v1/jobs/none"), 404, "unknown_job"),
        (
            "POST /v1/replay HTTP/1.1\r\nHost: forebay\r\nConnection: close\r\nContent-Length: 1\r\n\r\n{".to_owned(),
            400,
            "malformed",
        ),
    ] {
        let (answered, problem) = ask(&bench, &request);
        assert_eq!(
            (answered, problem["reason"].as_str()),
            (code, Some(reason)),
            "{request}"
        );
        assert_eq!(problem["status"], code);
    }
    // One that a killed process left is replaced, and an orderly stop leaves none.
    forebay.kill();
    assert!(path.exists());
    let mut forebay = bench.setup.start();
    assert_eq!(ask(&bench, &get("/v1/jobs")), (200, serde_json::json!({ "jobs": [] })));
    assert_eq!(forebay.terminate(SOON).code(), Some(0));
    assert!(!path.exists());
}

/// A port behind which the socket is, for who knows no sockets of Unix.
fn behind_a_port(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for from in listener.incoming().map_while(Result::ok) {
            let to = UnixStream::connect(&socket).unwrap();
            let (mut back, mut forth) = (to.try_clone().unwrap(), to);
            let (mut asked, mut answered): (TcpStream, TcpStream) = (from.try_clone().unwrap(), from);
            thread::spawn(move || {
                let _ = io::copy(&mut asked, &mut forth);
                let _ = forth.shutdown(Shutdown::Write);
            });
            thread::spawn(move || {
                let _ = io::copy(&mut back, &mut answered);
                let _ = answered.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_as_its_document_says() {
    let bench = Bench::new("conforms", "3000", "").await;
    let forebay = bench.setup.start();
    bench.post(0..20, |number| number.is_multiple_of(10));
    wait_until("there are dead letters", SOON, || letters_kept(&forebay) == 2.0);
    let address = behind_a_port(bench.setup.spool().join("operator.sock"));
    let python = PathBuf::from(venv::python());
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                  negative_data_rejection";
    let output = Command::new(python.with_file_name("schemathesis"))
        .arg("run")
        .arg(Path::new(ROOT).join("docs/operator-api.yaml"))
        .args(["--url", &format!("http://{address}"), "--checks", checks])
        .args(["--max-examples", "30", "--seed", "1", "--no-color", "--workers", "1"])
        .current_dir(bench.setup.dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        said.contains("Selected: 13/13") && said.contains("Tested: 13"),
        "{said}"
    );
    assert_eq!(forebay.get("/readyz").unwrap().0, 200);
}
