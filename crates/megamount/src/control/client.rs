//! The commands' end of the control socket: finding a mount and asking it.
//!
//! Never touches the mount itself, which may hang; the daemon is asked for its mountpoint instead.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::{FileAsk, FileReply, PIECE};
use super::place;
use super::protocol::{self, Ask, Configuration, Fault, Hello, LONGEST_REPLY, Reply};
use super::report::Report;
use crate::config::{RemoteSpec, link};
use crate::failure::Failure;
use crate::{exit, mountpoint, paths};

/// How long a daemon may take to answer. It never takes long; one that is stopped never does.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same while looking for mounts: one that is stopped must not hide the others for long.
const FINDING: Duration = Duration::from_secs(3);

/// Content comes in large pieces.
const BUFFER: usize = 64 << 10;

/// A connection to a daemon.
#[derive(Debug)]
pub(crate) struct Link {
    hello: Hello,
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

/// All mounts of this user, by mountpoint.
pub(crate) fn find_all() -> Vec<Link> {
    let mut found = links(place::own_uid(), None);
    found.retain(Link::is_mount);
    found
}

/// Whoever serves this remote with this state directory: a mount, or a command that is running, which does not
/// end before this link does.
pub(crate) fn serving(remote: &str, state_dir: &Path) -> Option<Link> {
    let name = place::socket_name(remote, state_dir);
    let mut sockets = place::sockets(place::own_uid(), Some(remote));
    sockets.retain(|socket| socket.file_name().is_some_and(|file| *file == *name));
    sockets
        .into_iter()
        .find_map(|socket| Link::open(socket).ok()?.stay())
}

/// The mount of this remote, if it stands in the configuration `file`; none if there are several.
pub(crate) fn mounted_from(remote: &str, file: &Path) -> Option<(Link, Configuration)> {
    let file = paths::resolved(file);
    let mut found = links(place::own_uid(), Some(remote));
    found.retain(|link| link.is_mount() && link.hello.remote == remote);
    // Others of this name may be other accounts.
    let mut found = found
        .into_iter()
        .filter_map(|mut link| match link.ask(&Ask::Configuration) {
            Ok(Reply::Configuration(configuration)) if Path::new(&configuration.file) == file => {
                Some((link.stay()?, configuration))
            }
            _ => None,
        });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// The mount that `target` means: `REMOTE:`, a mountpoint, or a path below one.
pub(crate) fn find(target: &str) -> Result<Link, Failure> {
    let not_mounted = || Failure::NotMounted {
        target: target.to_owned(),
    };
    if let Some(remote) = remote_name(target) {
        let mut found = links(place::own_uid(), Some(&remote));
        found.retain(|link| link.is_mount() && link.hello.remote == remote);
        return match (found.pop(), found.is_empty()) {
            (Some(link), true) => Ok(link),
            (Some(link), false) => {
                found.push(link);
                let places = found.iter().map(|link| link.hello.mountpoint.clone());
                Err(Failure::Ambiguous {
                    target: target.to_owned(),
                    mountpoints: places.collect(),
                })
            }
            (None, _) => Err(not_mounted()),
        };
    }
    let spellings = spellings(Path::new(target))?;
    let mut uids = vec![place::own_uid()];
    if place::own_uid() == 0 {
        // Root asks the daemons of others too.
        let owners = spellings.iter().filter_map(|path| mountpoint::owner(path));
        uids.extend(owners.filter(|uid| *uid != 0));
    }
    let mut found: Vec<_> = uids.into_iter().flat_map(|uid| links(uid, None)).collect();
    found.retain(|link| {
        if !link.is_mount() {
            return false;
        }
        let place = Path::new(&link.hello.mountpoint);
        spellings.iter().any(|path| path.starts_with(place))
    });
    // The innermost, should one mount lie in another.
    found.sort_by_key(|link| link.hello.mountpoint.len());
    match found.pop() {
        Some(link) => Ok(link),
        None if spellings.iter().any(|path| mountpoint::is_mounted(path)) => {
            Err(Failure::NoControl {
                mountpoint: target.to_owned(),
            })
        }
        None => Err(not_mounted()),
    }
}

/// The remote that a target names, if it does not name a directory.
fn remote_name(target: &str) -> Option<String> {
    if let Ok(public) = link::parse(target) {
        return Some(link::name(&public));
    }
    let is_path = target.starts_with(['/', '.']) || !target.contains(':');
    if is_path {
        return None;
    }
    Some(target.parse::<RemoteSpec>().ok()?.name)
}

/// The ways to write a path: as given, and with the links in its directories resolved. The last
/// component is not looked at, unless it is a link: it may be a mount that hangs.
fn spellings(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let given = paths::absolute(path)?;
    let mut spellings = vec![given.clone()];
    let mut at = given;
    for _ in 0..8 {
        if let (Some(parent), Some(name)) = (at.parent(), at.file_name()) {
            let resolved = paths::resolved(parent).join(name);
            if !spellings.contains(&resolved) {
                spellings.push(resolved);
            }
        }
        match at.read_link() {
            Ok(target) => at = at.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => break,
        }
        spellings.push(at.clone());
    }
    Ok(spellings)
}

/// The daemons of `uid` that answer, sorted by mountpoint.
fn links(uid: u32, remote: Option<&str>) -> Vec<Link> {
    let sockets = place::sockets(uid, remote);
    let mut links: Vec<_> = sockets
        .into_iter()
        .filter_map(|socket| Link::open(socket).ok())
        .collect();
    links.sort_by(|a, b| a.hello.mountpoint.cmp(&b.hello.mountpoint));
    links
}

impl Link {
    fn open(socket: PathBuf) -> Result<Self, Failure> {
        let stream = UnixStream::connect(&socket).map_err(|error| silent(&error))?;
        let patience = |time| {
            stream
                .set_read_timeout(Some(time))
                .and_then(|()| stream.set_write_timeout(Some(time)))
                .map_err(|error| silent(&error))
        };
        patience(FINDING)?;
        let mut stream = BufReader::new(stream.try_clone().map_err(|error| silent(&error))?);
        let hello = match ask(&mut stream, &Ask::Hello)? {
            Reply::Hello(hello) => hello,
            other => return Err(unexpected(&other)),
        };
        patience(PATIENCE)?;
        Ok(Self {
            hello,
            socket,
            stream,
        })
    }

    /// A connection to the server in this process, whose other end is served already.
    pub(crate) fn to_ourselves(stream: UnixStream, hello: Hello) -> Result<Self, Failure> {
        stream
            .set_nonblocking(false)
            .map_err(|error| silent(&error))?;
        Ok(Self {
            hello,
            socket: PathBuf::new(),
            stream: BufReader::with_capacity(BUFFER, stream),
        })
    }

    /// Lets the other end wait for us; none when it is about to end. From then on the link is good for no more
    /// than [`Link::second`].
    fn stay(mut self) -> Option<Self> {
        match self.ask(&Ask::Stay) {
            Ok(Reply::Staying) => Some(self),
            // A mount by an older program, which does not know the question.
            Err(Failure::Other(_)) if self.is_mount() => Some(self),
            _ => None,
        }
    }

    /// Whether a mount is at the other end, and not a command.
    fn is_mount(&self) -> bool {
        !self.hello.mountpoint.is_empty()
    }

    /// Asks about files, and leaves the answers to [`Link::file_reply`].
    pub(crate) fn ask_files(&mut self, ask: FileAsk) -> Result<(), Failure> {
        self.send(&Ask::Files { ask })
    }

    /// The next answer about files.
    pub(crate) fn file_reply(&mut self) -> Result<FileReply, Failure> {
        match self.next()? {
            Reply::Files { reply } => Ok(*reply),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a piece of content; an empty one is the end. When the other end has refused it meanwhile, its
    /// refusal is the error.
    pub(crate) fn send_piece(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let length = u32::try_from(bytes.len()).map_err(|_| Failure::DaemonGone)?;
        let stream = self.stream.get_mut();
        let sent = stream
            .write_all(&length.to_be_bytes())
            .and_then(|()| stream.write_all(bytes));
        match sent {
            Ok(()) => Ok(()),
            Err(_) => match self.file_reply() {
                Err(failure) => Err(failure),
                Ok(_) => Err(Failure::DaemonGone),
            },
        }
    }

    /// The answers to a change, up to the last; `told` hears how many bytes of an upload Mega has.
    pub(crate) fn until_done(&mut self, mut told: impl FnMut(u64)) -> Result<(), Failure> {
        loop {
            match self.file_reply()? {
                FileReply::Progress { sent } => told(sent),
                FileReply::Done => return Ok(()),
                _ => return Err(Failure::DaemonGone),
            }
        }
    }

    /// The bytes that a `bytes` reply has announced.
    pub(crate) fn bytes(&mut self, length: usize, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        if length > PIECE {
            return Err(Failure::DaemonGone);
        }
        buffer.resize(length, 0);
        self.stream
            .read_exact(buffer)
            .map_err(|error| silent(&error))
    }

    /// Who is there.
    pub(crate) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Another connection to the same daemon that waits as long as it takes.
    pub(crate) fn second(&self) -> Result<Self, Failure> {
        let link = Self::open(self.socket.clone())?;
        link.stream
            .get_ref()
            .set_read_timeout(None)
            .map_err(|error| silent(&error))?;
        Ok(link)
    }

    /// Asks, and returns the first answer.
    pub(crate) fn ask(&mut self, question: &Ask) -> Result<Reply, Failure> {
        ask(&mut self.stream, question)
    }

    /// Asks, and leaves the answer to [`Link::next`].
    pub(crate) fn send(&mut self, question: &Ask) -> Result<(), Failure> {
        send(&mut self.stream, question)
    }

    /// The next answer to the same question.
    pub(crate) fn next(&mut self) -> Result<Reply, Failure> {
        receive(&mut self.stream)
    }

    /// A report with the details of up to `most` changes.
    pub(crate) fn status(&mut self, most: usize, mark: Option<i64>) -> Result<Report, Failure> {
        match self.ask(&Ask::Status { most, mark })? {
            Reply::Status(report) => Ok(*report),
            other => Err(unexpected(&other)),
        }
    }

    /// Everything that waits is due now; the mark for [`Link::status`].
    pub(crate) fn flush(&mut self) -> Result<i64, Failure> {
        match self.ask(&Ask::Flush)? {
            Reply::Flushed { mark } => Ok(mark),
            other => Err(unexpected(&other)),
        }
    }
}

fn ask(stream: &mut BufReader<UnixStream>, question: &Ask) -> Result<Reply, Failure> {
    send(stream, question)?;
    receive(stream)
}

fn send(stream: &mut BufReader<UnixStream>, question: &Ask) -> Result<(), Failure> {
    let line = protocol::request(question);
    let sent = stream.get_mut().write_all(&line);
    sent.map_err(|error| silent(&error))
}

fn receive(stream: &mut BufReader<UnixStream>) -> Result<Reply, Failure> {
    let mut line = Vec::new();
    let mut bounded = stream.take(LONGEST_REPLY as u64);
    bounded
        .read_until(b'\n', &mut line)
        .map_err(|error| silent(&error))?;
    if line.last() != Some(&b'\n') {
        return Err(Failure::DaemonGone);
    }
    match serde_json::from_slice(&line) {
        Ok(Reply::Error { code, text }) => Err(refused(code, text)),
        Ok(reply) => Ok(reply),
        Err(_) => Err(Failure::DaemonGone),
    }
}

fn refused(code: Fault, text: String) -> Failure {
    match code {
        Fault::NotFound => Failure::NoChange { text },
        Fault::Absent | Fault::Network | Fault::Login | Fault::Local | Fault::Late => {
            let code = match code {
                Fault::Absent => exit::NOT_FOUND,
                Fault::Network => exit::NETWORK,
                Fault::Login => exit::LOGIN,
                Fault::Late => exit::WORK_LEFT,
                _ => exit::LOCAL,
            };
            let text = format!("{text}.");
            Failure::Relayed { code, text }
        }
        Fault::Busy | Fault::Crowded | Fault::Failed | Fault::BadRequest | Fault::Version => {
            Failure::Other(format!("{text}."))
        }
    }
}

/// An answer to another question.
pub(crate) fn unexpected(_reply: &Reply) -> Failure {
    Failure::DaemonGone
}

fn silent(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Failure::DaemonSilent,
        _ => Failure::DaemonGone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_are_told_from_paths() {
        assert_eq!(remote_name("work:").as_deref(), Some("work"));
        assert_eq!(remote_name("my remote:a/b").as_deref(), Some("my remote"));
        for path in ["/mnt/a:b", "./work:", "work", "../x:", "mnt/a:b"] {
            assert_eq!(remote_name(path), None, "{path}");
        }
    }

    #[test]
    fn links_to_a_mountpoint_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("mnt")).unwrap();
        std::os::unix::fs::symlink("mnt", root.join("link")).unwrap();
        let spellings = spellings(&root.join("link")).unwrap();
        assert!(spellings.contains(&root.join("mnt")), "{spellings:?}");
    }
}
