//! Whether the process that serves a configuration is alive: what asks is the same binary, because an image has no
//! other program.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// For the connection, and for each part of the answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// The first line of an answer is short.
const LINE_BYTES_MAX: u64 = 1024;

/// Asks `/livez` of the process whose admin server listens on `listen`. `Err`: it is not alive, and how that showed.
pub(super) fn ask(listen: SocketAddr) -> Result<(), String> {
    let address = reachable(listen);
    match status(address) {
        Ok(line) if line.starts_with("HTTP/1.1 200 ") => Ok(()),
        Ok(line) => Err(format!("{address} answered /livez with {:?}", line.trim_end())),
        Err(error) => Err(format!("{address}: {error}")),
    }
}

/// A server that listens on every address is asked on this machine's own.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}

fn status(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let request = format!("GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What is said of a server that gives this answer.
    fn said(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let head = BufReader::new(&stream).lines().map(Result::unwrap);
            // All of it: a server that closes with something unread resets the connection.
            let head: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
            assert_eq!(head[0], "GET /livez HTTP/1.1");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let said = ask(address);
        server.join().unwrap();
        said.map_err(|text| text.replace(&address.to_string(), "it"))
    }

    #[test]
    fn alive_is_who_answers_200() {
        assert_eq!(said("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"), Ok(()));
        let dead = said("HTTP/1.1 500 Internal Server Error\r\n\r\n");
        assert_eq!(
            dead,
            Err("it answered /livez with \"HTTP/1.1 500 Internal Server Error\"".to_owned())
        );
        assert_eq!(said(""), Err("it answered /livez with \"\"".to_owned()));
    }

    #[test]
    fn who_listens_everywhere_is_asked_here() {
        for (listen, asked) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
            ("10.1.2.3:9464", "10.1.2.3:9464"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
