//! The daemon's end of the control socket.
//!
//! Promises: a mount comes up also when there is no place for a socket (a warning says so); a client
//! that says nothing, says too much or says nonsense costs one connection for a bounded time; nobody
//! but our own user and root is answered; the socket is gone when the daemon is.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use mega_proto::b64;
use mega_vfs::{Exported, Loading, ResolveError, Vfs};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::place;
use super::protocol::{
    self, Ask, Configuration, Fault, Hello, LONGEST_REQUEST, MOST_CHANGES, Reply,
};
use super::report::Report;
use crate::bwlimit::{BwLimit, Throttle};

mod files;
mod verify;

/// Connections at a time; further ones are told to come back.
const CONNECTIONS: usize = 64;
/// A client that has asked nothing for this long is left. Not one of ours that has something to do between two
/// questions, such as to wait for a pager.
const PATIENCE: Duration = Duration::from_secs(60);
/// A client that does not take an answer for this long is left.
const WRITING: Duration = Duration::from_secs(20);
/// How long a question may take to arrive that was asked before the end.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long the end waits for the clients that want to know of it.
const FAREWELL: Duration = Duration::from_millis(500);

/// The control socket of this mount, until dropped.
#[derive(Debug)]
pub(crate) struct Control {
    socket: Option<PathBuf>,
    ended: watch::Sender<Option<usize>>,
    task: Option<JoinHandle<()>>,
    host: Arc<Host>,
}

/// What the connections share.
#[derive(Debug)]
struct Host {
    /// Empty while the mount is coming up.
    vfs: OnceLock<Arc<Vfs>>,
    loading: Arc<Loading>,
    throttle: OnceLock<Arc<Throttle>>,
    configuration: OnceLock<Configuration>,
    hello: Hello,
    ended: watch::Receiver<Option<usize>>,
    patience: Duration,
    guests: Mutex<Guests>,
}

/// Those who do not want us to end yet.
#[derive(Debug, Default)]
struct Guests {
    count: usize,
    /// We are about to end: it is too late for more.
    is_closed: bool,
}

/// One of them, until dropped.
struct Guest<'h>(&'h Host);

impl Host {
    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, unless it is too late.
    fn guest(&self) -> Option<Guest<'_>> {
        let mut guests = self.guests();
        if guests.is_closed {
            return None;
        }
        guests.count += 1;
        Some(Guest(self))
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.0.guests().count -= 1;
    }
}

impl Control {
    /// Listens for commands about `vfs`. The caller has the lock of `state_dir`.
    pub(crate) fn serve(vfs: &Arc<Vfs>, hello: Hello, state_dir: &Path) -> Self {
        let control = Self::starting(Arc::default(), hello, state_dir);
        control.ready(vfs);
        control
    }

    /// Listens before there is a file system; until [`Control::ready`] it tells no more than how far `loading` is.
    /// The caller has the lock of `state_dir`.
    pub(crate) fn starting(loading: Arc<Loading>, hello: Hello, state_dir: &Path) -> Self {
        let mut control = Self::silent(loading, hello, PATIENCE);
        match listen(&control.host.hello.remote, state_dir) {
            Ok((socket, listener)) => {
                let host = Arc::clone(&control.host);
                control.task = Some(tokio::spawn(accept(listener, host)));
                control.socket = Some(socket);
            }
            Err(error) => {
                tracing::warn!(%error, "no control socket: 'megamount status' will not see this mount");
            }
        }
        control
    }

    /// The file system is up.
    pub(crate) fn ready(&self, vfs: &Arc<Vfs>) {
        // It comes up once.
        let _ = self.host.vfs.set(Arc::clone(vfs));
    }

    /// What the bandwidth can be asked of and changed at.
    pub(crate) fn throttled_by(&self, throttle: &Arc<Throttle>) {
        // It comes up once.
        let _ = self.host.throttle.set(Arc::clone(throttle));
    }

    /// Where the remote is configured.
    pub(crate) fn configured_by(&self, configuration: Configuration) {
        // It comes up once.
        let _ = self.host.configuration.set(configuration);
    }

    /// For this process alone.
    pub(crate) fn private(vfs: &Arc<Vfs>, hello: Hello) -> Self {
        let control = Self::silent(Arc::default(), hello, PATIENCE);
        control.ready(vfs);
        control
    }

    fn silent(loading: Arc<Loading>, hello: Hello, patience: Duration) -> Self {
        let (ended, ended_receiver) = watch::channel(None);
        let host = Arc::new(Host {
            vfs: OnceLock::new(),
            throttle: OnceLock::new(),
            configuration: OnceLock::new(),
            loading,
            hello,
            ended: ended_receiver,
            patience,
            guests: Mutex::default(),
        });
        Self {
            socket: None,
            ended,
            task: None,
            host,
        }
    }

    /// A connection for this process itself; call it on the runtime.
    pub(crate) fn connect(&self) -> io::Result<std::os::unix::net::UnixStream> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        let theirs = UnixStream::from_std(theirs)?;
        tokio::spawn(attend(theirs, Arc::clone(&self.host)));
        Ok(ours)
    }

    /// Who is served here.
    pub(crate) fn hello(&self) -> &Hello {
        &self.host.hello
    }

    /// Whether somebody from outside is connected.
    pub(crate) fn is_in_use(&self) -> bool {
        // Ours, and that of the task that accepts.
        Arc::strong_count(&self.host) > 1 + usize::from(self.task.is_some())
    }

    /// Nobody may stay any more; false, and nothing has changed, while somebody does.
    pub(crate) fn close(&self) -> bool {
        let mut guests = self.host.guests();
        guests.is_closed |= guests.count == 0;
        guests.is_closed
    }

    /// Tells those who wait for it that the daemon ends with `left` changes, and stops.
    pub(crate) async fn end(mut self, left: usize) {
        self.remove();
        let _ = self.ended.send(Some(left));
        if let Some(mut task) = self.task.take()
            && tokio::time::timeout(FAREWELL, &mut task).await.is_err()
        {
            task.abort();
        }
    }

    fn remove(&mut self) {
        if let Some(socket) = self.socket.take()
            && let Err(error) = std::fs::remove_file(&socket)
        {
            tracing::debug!(%error, "the control socket was gone already");
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.remove();
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Listens in the first directory that works.
fn listen(remote: &str, state_dir: &Path) -> io::Result<(PathBuf, UnixListener)> {
    let name = place::socket_name(remote, state_dir);
    let mut failure = io::Error::other("there is no private directory for it");
    for directory in place::directories(place::own_uid()) {
        match listen_in(&directory, &name) {
            Ok(listening) => return Ok(listening),
            Err(error) => {
                failure = io::Error::new(error.kind(), format!("{}: {error}", directory.display()));
            }
        }
    }
    Err(failure)
}

fn listen_in(directory: &Path, name: &str) -> io::Result<(PathBuf, UnixListener)> {
    place::make_private(directory)?;
    let socket = directory.join(name);
    // Left behind by a daemon that was killed.
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    Ok((socket, listener))
}

/// Serves until the end, and then those who want to know of it.
async fn accept(listener: UnixListener, host: Arc<Host>) {
    let mut connections = JoinSet::new();
    let mut ended = host.ended.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if is_welcome(&stream) => {
                    while connections.try_join_next().is_some() {}
                    if connections.len() >= CONNECTIONS {
                        turn_away(&stream);
                    } else {
                        connections.spawn(attend(stream, Arc::clone(&host)));
                    }
                }
                Ok(_) => tracing::warn!("another user tried the control socket"),
                Err(error) => {
                    // Out of descriptors, perhaps: others need the time to close some.
                    tracing::warn!(%error, "a control connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            _ = until_end(&mut ended) => break,
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Returns when the daemon ends, with how many changes are left.
async fn until_end(ended: &mut watch::Receiver<Option<usize>>) -> Option<usize> {
    ended
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|left| *left)
}

/// Whether our own user or root is at the other end.
fn is_welcome(stream: &UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == place::own_uid())
}

fn turn_away(stream: &UnixStream) {
    let reply = Reply::Error {
        code: Fault::Crowded,
        text: "too many commands ask this mount at once. Try again".to_owned(),
    };
    // One line fits the socket's buffer.
    let _ = stream.try_write(&protocol::line(&reply));
}

/// One connection, from its first request to its last.
async fn attend(stream: UnixStream, host: Arc<Host>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut ended = host.ended.clone();
    // Whoever has asked about files is at work, and may take its time.
    let mut is_at_work = false;
    loop {
        let line = tokio::select! {
            biased;
            line = next_line(&mut reader, (!is_at_work).then_some(host.patience)) => line,
            // What was asked before the end is answered, also when it was not read yet.
            _ = until_end(&mut ended) => next_line(&mut reader, Some(LAST_WORDS)).await,
        };
        let Ok(Some(line)) = line else { return };
        let request = protocol::parse_request(&line);
        if request == Ok(Ask::Stay) {
            let guest = host.guest();
            let reply = match guest {
                Some(_) => Reply::Staying,
                None => Reply::Leaving,
            };
            if send(&mut writer, &reply).await.is_ok() && guest.is_some() {
                tokio::select! {
                    _ = until_end(&mut ended) => {}
                    _ = reader.fill_buf() => {}
                }
            }
            return;
        }
        is_at_work |= matches!(request, Ok(Ask::Files { .. }));
        let Some(vfs) = host.vfs.get() else {
            let reply = request.map_or_else(|reply| reply, |ask| too_early(&host, &ask));
            if send(&mut writer, &reply).await.is_err() {
                return;
            }
            continue;
        };
        let is_served = match request {
            Ok(Ask::End) => {
                let left = tokio::select! {
                    left = until_end(&mut ended) => left,
                    // It went away, or says something that makes no sense here.
                    _ = reader.fill_buf() => None,
                };
                let Some(left) = left else { return };
                let _ = send(&mut writer, &Reply::Ended { left }).await;
                return;
            }
            Ok(Ask::Export { path }) => export(vfs, &path, &mut writer).await,
            Ok(Ask::Files { ask }) => {
                let mut talk = files::Talk {
                    vfs,
                    reader: &mut reader,
                    writer: &mut writer,
                    is_mount: !host.hello.mountpoint.is_empty(),
                };
                Box::pin(files::answer(&mut talk, ask)).await
            }
            Ok(Ask::Verify { path }) => verify::verify(vfs, &path, &mut writer).await,
            Ok(ask) => {
                let (host, vfs) = (Arc::clone(&host), Arc::clone(vfs));
                // The file system's locks are waited for here, not on a thread of its operations.
                match tokio::task::spawn_blocking(move || answer(&host, &vfs, ask)).await {
                    Ok(reply) => send(&mut writer, &reply).await,
                    Err(_) => return,
                }
            }
            Err(reply) => {
                let _ = send(&mut writer, &reply).await;
                return;
            }
        };
        if is_served.is_err() {
            return;
        }
    }
}

/// The next line, as [`read_line`]; it is an error if it does not come in time.
async fn next_line(
    reader: &mut BufReader<OwnedReadHalf>,
    patience: Option<Duration>,
) -> io::Result<Option<Vec<u8>>> {
    match patience {
        Some(patience) => tokio::time::timeout(patience, read_line(reader)).await?,
        None => read_line(reader).await,
    }
}

/// The next line, none at the end. A line that is too long is an error.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let most = LONGEST_REQUEST as u64;
    let mut bounded = reader.take(most);
    let length = bounded.read_until(b'\n', &mut line).await?;
    if length == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some(line))
}

async fn send(writer: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let line = protocol::line(reply);
    match tokio::time::timeout(WRITING, writer.write_all(&line)).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// The answer while the mount is coming up.
fn too_early(host: &Host, ask: &Ask) -> Reply {
    match ask {
        Ask::Hello => Reply::Hello(host.hello.clone()),
        Ask::Status { .. } => {
            let report = Report::starting(host.hello.clone(), host.loading.nodes());
            Reply::Status(Box::new(report))
        }
        _ => Reply::Error {
            code: Fault::Busy,
            text:
                "it is still coming up: the account's list of files is being read. Try again in a \
                   moment; 'megamount status' says how far it is"
                    .to_owned(),
        },
    }
}

/// Answers what has one answer.
fn answer(host: &Host, vfs: &Arc<Vfs>, ask: Ask) -> Reply {
    match ask {
        Ask::Status { most, mark } => {
            let snapshot = vfs.snapshot(most.min(MOST_CHANGES), mark);
            Reply::Status(Box::new(Report::new(host.hello.clone(), snapshot)))
        }
        Ask::Bandwidth { limit } => bandwidth(host, limit),
        Ask::Configuration => match host.configuration.get() {
            Some(configuration) => Reply::Configuration(configuration.clone()),
            None => Reply::Error {
                code: Fault::Absent,
                text: "no file of ours has this remote".to_owned(),
            },
        },
        Ask::Flush => Reply::Flushed {
            mark: vfs.flush_queue(),
        },
        Ask::Retry { path } => match vfs.retry(path.as_deref()) {
            Ok(count) => Reply::Retried { count },
            Err(error) => refusal(&error),
        },
        Ask::Discard { path } => match vfs.discard(&path) {
            Ok(paths) => Reply::Discarded { paths },
            Err(error) => refusal(&error),
        },
        // The others are answered by `attend`.
        Ask::Hello
        | Ask::Export { .. }
        | Ask::Verify { .. }
        | Ask::Files { .. }
        | Ask::End
        | Ask::Stay => Reply::Hello(host.hello.clone()),
    }
}

fn bandwidth(host: &Host, limit: Option<String>) -> Reply {
    let failed = |text| Reply::Error {
        code: Fault::Failed,
        text,
    };
    let Some(throttle) = host.throttle.get() else {
        return failed("its bandwidth cannot be limited".to_owned());
    };
    if let Some(limit) = limit {
        match limit.parse::<BwLimit>() {
            Ok(limit) => throttle.set(limit),
            Err(text) => return failed(text),
        }
    }
    let (rule, now) = throttle.get();
    Reply::Bandwidth {
        rule,
        up: now.up,
        down: now.down,
    }
}

async fn export(vfs: &Arc<Vfs>, path: &str, writer: &mut OwnedWriteHalf) -> io::Result<()> {
    let mut export = match vfs.export(path) {
        Ok(export) => export,
        Err(error) => return send(writer, &refusal(&error)).await,
    };
    let size = export.size();
    send(writer, &Reply::Exporting { size }).await?;
    loop {
        let reply = match export.next().await {
            Ok(Some(Exported::Data(offset, data))) => Reply::Piece {
                offset,
                data: b64::encode(&data),
            },
            Ok(Some(Exported::Missing(range))) => Reply::Missing {
                offset: range.start,
                length: range.end - range.start,
            },
            Ok(None) => return send(writer, &Reply::Exported).await,
            Err(error) => return send(writer, &refusal(&error)).await,
        };
        send(writer, &reply).await?;
    }
}

fn refusal(error: &ResolveError) -> Reply {
    let code = match error {
        ResolveError::NoChange(_) | ResolveError::NoContent(_) => Fault::NotFound,
        ResolveError::OnItsWay(_) | ResolveError::Open(_) => Fault::Busy,
        ResolveError::SetAside(_)
        | ResolveError::Lost(_)
        | ResolveError::ReadOnly
        | ResolveError::Local(_) => Fault::Failed,
    };
    Reply::Error {
        code,
        text: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server in a directory of its own that is patient for a moment only.
    fn serving(directory: &Path) -> Control {
        let hello = Hello {
            remote: "r".to_owned(),
            path: String::new(),
            mountpoint: String::new(),
            pid: 1,
            program: String::new(),
        };
        let mut control = Control::silent(Arc::default(), hello, Duration::from_millis(50));
        let (socket, listener) = listen_in(directory, "s").unwrap();
        control.task = Some(tokio::spawn(accept(listener, Arc::clone(&control.host))));
        control.socket = Some(socket);
        control
    }

    async fn connected(control: &Control) -> BufReader<UnixStream> {
        let socket = control.socket.as_ref().unwrap();
        BufReader::new(UnixStream::connect(socket).await.unwrap())
    }

    async fn asked(stream: &mut BufReader<UnixStream>, ask: &Ask) -> Reply {
        stream.write_all(&protocol::request(ask)).await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[tokio::test]
    async fn nobody_ends_under_those_who_stay() {
        let dir = tempfile::tempdir().unwrap();
        let control = serving(&dir.path().join("own"));
        let mut guest = connected(&control).await;
        assert_eq!(asked(&mut guest, &Ask::Stay).await, Reply::Staying);
        // Who says nothing is left, and who stays is not.
        let mut silent = connected(&control).await;
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
        assert!(!control.close() && control.is_in_use());
        let mut second = connected(&control).await;
        assert!(matches!(
            asked(&mut second, &Ask::Hello).await,
            Reply::Hello(_)
        ));
        drop((guest, second));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while control.is_in_use() || !control.close() {
            assert!(tokio::time::Instant::now() < deadline, "it never ends");
            tokio::task::yield_now().await;
        }
        // Whoever comes now opens the account after us.
        let mut late = connected(&control).await;
        assert_eq!(asked(&mut late, &Ask::Stay).await, Reply::Leaving);
        control.end(0).await;
    }
}
