//! What the supervisor is told of the process's state (`sd_notify(3)`), where one wants to be told.

use std::{env, ffi::OsStr, io, os::unix::net::UnixDatagram};

const SOCKET: &str = "NOTIFY_SOCKET";

/// A change that a supervisor acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SupervisorState {
    /// Requests are taken in.
    Ready,
    /// Stopping in order.
    Stopping,
}

/// Tells the supervisor, if there is one. That it cannot be told changes nothing here.
pub(super) fn tell(state: SupervisorState) {
    let Some(to) = env::var_os(SOCKET) else { return };
    let text = match state {
        SupervisorState::Ready => "READY=1",
        SupervisorState::Stopping => "STOPPING=1",
    };
    if let Err(error) = send(text, &to) {
        tracing::warn!(%error, state = text, "failed to tell the supervisor");
    }
}

fn send(text: &str, to: &OsStr) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = to.as_encoded_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt as _;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return socket.send_to_addr(text.as_bytes(), &address).map(drop);
    }
    socket.send_to(text.as_bytes(), to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_is_reached_by_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let supervisor = UnixDatagram::bind(&path).unwrap();
        send("READY=1", path.as_os_str()).unwrap();
        let mut text = [0; 64];
        let bytes = supervisor.recv(&mut text).unwrap();
        assert_eq!(&text[..bytes], b"READY=1");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_supervisor_is_reached_by_an_abstract_name() {
        use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};
        let name = format!("forebay-test-{}", std::process::id());
        let supervisor = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send("STOPPING=1", OsStr::new(&format!("@{name}"))).unwrap();
        let mut text = [0; 64];
        let bytes = supervisor.recv(&mut text).unwrap();
        assert_eq!(&text[..bytes], b"STOPPING=1");
    }
}
