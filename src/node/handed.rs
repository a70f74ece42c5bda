//! Listening sockets that a supervisor opened and hands to each process after the other (`sd_listen_fds(3)`): what
//! connects while one process ends and the next one starts waits in the backlog, and is not refused.

use std::{env, io, net::TcpListener};

use listenfd::ListenFd;

const PID: &str = "LISTEN_PID";
const COUNT: &str = "LISTEN_FDS";
const NAMES: &str = "LISTEN_FDNAMES";

/// The sockets that were handed over. Where there is none, the configured address is listened on.
#[derive(Debug, Default)]
pub struct HandedSockets {
    pub ingress: Option<TcpListener>,
    pub admin: Option<TcpListener>,
}

/// Why what was handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HandedError {
    #[error("{count} sockets were handed over ({COUNT}), and {NAMES} names {names}")]
    Unnamed { count: usize, names: usize },
    #[error(
        "a socket that was handed over is called {name:?}: of several each is named ingress or admin (FileDescriptorName=)"
    )]
    Name { name: String },
    #[error("two sockets that were handed over are called {name:?}")]
    Twice { name: &'static str },
    #[error("the socket that was handed over for {name}: {source}")]
    Socket { name: &'static str, source: io::Error },
}

impl HandedSockets {
    /// Takes what was handed to this process, and takes the variables that say so out of the environment. Must be
    /// called once, before any thread is started that reads the environment.
    ///
    /// # Errors
    ///
    /// A socket is not a listening one of TCP, or does not say what it is for.
    pub fn from_environment() -> Result<Self, HandedError> {
        // A process passes its environment on, and its sockets not.
        let ours = env::var(PID).is_ok_and(|pid| pid.parse() == Ok(std::process::id()));
        let names = env::var(NAMES).ok();
        let mut sockets = if ours { ListenFd::from_env() } else { ListenFd::empty() };
        #[allow(unsafe_code, reason = "no other thread that could read the environment runs yet")]
        for variable in [PID, COUNT, NAMES] {
            unsafe { env::remove_var(variable) }
        }
        let mut handed = Self::default();
        for (index, purpose) in purposes(sockets.len(), names.as_deref())?.into_iter().enumerate() {
            let name = purpose.name();
            let socket = (sockets.take_tcp_listener(index))
                .and_then(|socket| socket.ok_or_else(|| io::Error::other("it is gone")))
                .and_then(listening)
                .map_err(|source| HandedError::Socket { name, source })?;
            match purpose {
                SocketPurpose::Ingress => handed.ingress = Some(socket),
                SocketPurpose::Admin => handed.admin = Some(socket),
            }
        }
        Ok(handed)
    }
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketPurpose {
    Ingress,
    Admin,
}

impl SocketPurpose {
    fn name(self) -> &'static str {
        match self {
            SocketPurpose::Ingress => "ingress",
            SocketPurpose::Admin => "admin",
        }
    }
}

/// What each of `count` sockets is for. A single one is for webhooks, unless its name says otherwise.
fn purposes(count: usize, names: Option<&str>) -> Result<Vec<SocketPurpose>, HandedError> {
    let names: Vec<&str> = names
        .filter(|names| !names.is_empty())
        .map_or(Vec::new(), |names| names.split(':').collect());
    if count == 1 {
        let admin = names == [SocketPurpose::Admin.name()];
        return Ok(vec![if admin {
            SocketPurpose::Admin
        } else {
            SocketPurpose::Ingress
        }]);
    }
    if names.len() != count {
        let names = names.len();
        return if count == 0 {
            Ok(Vec::new())
        } else {
            Err(HandedError::Unnamed { count, names })
        };
    }
    let mut purposes = Vec::new();
    for name in names {
        let purpose = [SocketPurpose::Ingress, SocketPurpose::Admin]
            .into_iter()
            .find(|purpose| purpose.name() == name);
        let purpose = purpose.ok_or_else(|| HandedError::Name { name: name.to_owned() })?;
        if purposes.contains(&purpose) {
            return Err(HandedError::Twice { name: purpose.name() });
        }
        purposes.push(purpose);
    }
    Ok(purposes)
}

fn listening(socket: TcpListener) -> io::Result<TcpListener> {
    match rustix::net::sockopt::socket_acceptconn(&socket)? {
        true => Ok(socket),
        false => Err(io::Error::other("it does not listen (of a socket unit: Accept=no)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_socket_is_for_webhooks_and_of_several_each_says_what_it_is_for() {
        use SocketPurpose::{Admin, Ingress};
        let cases: &[(usize, Option<&str>, &[SocketPurpose])] = &[
            (0, None, &[]),
            (0, Some("forebay.socket"), &[]),
            (1, None, &[Ingress]),
            (1, Some(""), &[Ingress]),
            (1, Some("forebay.socket"), &[Ingress]),
            (1, Some("ingress"), &[Ingress]),
            (1, Some("admin"), &[Admin]),
            (2, Some("ingress:admin"), &[Ingress, Admin]),
            (2, Some("admin:ingress"), &[Admin, Ingress]),
        ];
        for (count, names, expected) in cases {
            assert_eq!(purposes(*count, *names).unwrap(), *expected, "{count} {names:?}");
        }
        for (count, names, said) in [
            (
                2,
                None,
                "2 sockets were handed over (LISTEN_FDS), and LISTEN_FDNAMES names 0",
            ),
            (2, Some("ingress"), "names 1"),
            (2, Some("ingress:forebay.socket"), "\"forebay.socket\""),
            (
                2,
                Some("ingress:ingress"),
                "two sockets that were handed over are called \"ingress\"",
            ),
        ] {
            let error = purposes(count, names).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(listening(listener).is_ok());
        let connected = TcpListener::from(std::os::fd::OwnedFd::from(stream));
        assert!(
            listening(connected)
                .unwrap_err()
                .to_string()
                .contains("does not listen")
        );
    }
}
