//! systemd's readiness protocol, sd_notify(3): a datagram to the socket in `NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use crate::env_vars as env;

/// What the service manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State<'a> {
    /// Start-up is done; one line for `systemctl status`.
    Ready(&'a str),
    /// Still shutting down: another line for `systemctl status`.
    Status(&'a str),
    /// Shutting down; one line for `systemctl status`.
    Stopping(&'a str),
}

/// Tells the service manager, if there is one. A manager that does not listen is not an error.
pub(crate) fn notify(state: State<'_>) {
    let Some(path) = env::path(env::NOTIFY_SOCKET) else {
        return;
    };
    if let Err(error) = send(&path, state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

fn send(path: &Path, state: State<'_>) -> std::io::Result<()> {
    let message = match state {
        State::Ready(status) => format!("READY=1\nSTATUS={status}\nMAINPID={}", std::process::id()),
        State::Status(status) => format!("STATUS={status}"),
        State::Stopping(status) => format!("STOPPING=1\nSTATUS={status}"),
    };
    // A leading @ stands for the zero byte of an abstract address.
    let address = match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn received(listener: &UnixDatagram) -> String {
        listener
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut buffer = [0; 256];
        let length = listener.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_path_socket_receives_ready() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        send(&path, State::Ready("Mounted at /m")).unwrap();
        let text = received(&listener);
        assert!(
            text.starts_with("READY=1\nSTATUS=Mounted at /m\n"),
            "{text}"
        );
    }

    #[test]
    fn an_abstract_socket_receives_stopping() {
        let name = format!("megamount-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        send(
            Path::new(&format!("@{name}")),
            State::Stopping("3 files left"),
        )
        .unwrap();
        assert_eq!(received(&listener), "STOPPING=1\nSTATUS=3 files left");
    }

    #[test]
    fn nobody_listening_is_an_error_here_only() {
        assert!(send(Path::new("/nonexistent/notify"), State::Stopping("x")).is_err());
    }
}
