//! Owns HTTP/1.1 on a blocking socket: one thread per connection, keep-alive, Content-Length on
//! every reply, and the ways a reply can go wrong on purpose. Written by hand because faults need
//! the socket itself (reset instead of reply, a body that stops) and because bodies are written
//! straight from stored pieces.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::content::{Content, raid_part};
use crate::faults::FaultAction;
use crate::server::{Pacer, Shared};
use crate::tree::TreeReply;

/// A request with its whole body.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Number of the connection it came by.
    pub(crate) connection: u64,
}

impl Request {
    /// A query member.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// A header by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// A reply body.
pub(crate) enum Body {
    /// Bytes at hand.
    Bytes(Vec<u8>),
    /// A range of stored ciphertext.
    Range(Arc<Content>, u64, u64),
    /// A range of a CloudRAID part: content, file size, part, from, to.
    Part(Arc<Content>, u64, u64, u64, u64),
    /// A tree, serialised while it is sent.
    Tree(Box<TreeReply>),
}

/// Deliberate damage to a reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Damage {
    pub(crate) lost: bool,
    pub(crate) truncate: Option<u64>,
    pub(crate) shorten: Option<u64>,
    pub(crate) extra: bool,
    pub(crate) flip: Option<u64>,
    pub(crate) stall: Option<(u64, Duration)>,
    pub(crate) slow: Option<Duration>,
    pub(crate) trickle: Option<u64>,
}

/// A reply.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
    pub(crate) damage: Damage,
    /// Counts towards the bandwidth caps and `bytes_down`.
    pub(crate) payload: bool,
}

impl Reply {
    /// Status 200 with this body.
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200, body)
    }

    /// Any status.
    pub(crate) fn status(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::with(status, Body::Bytes(body.into()))
    }

    /// Any body.
    pub(crate) fn with(status: u16, body: Body) -> Self {
        let payload = matches!(body, Body::Range(..) | Body::Part(..));
        Self {
            status,
            headers: Vec::new(),
            body,
            damage: Damage::default(),
            payload,
        }
    }

    /// No reply at all.
    pub(crate) fn reset() -> Self {
        let mut r = Self::ok("");
        r.damage.lost = true;
        r
    }
}

impl Body {
    /// Exact length in bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(b) => b.len() as u64,
            Self::Range(_, from, to) | Self::Part(_, _, _, from, to) => to - from,
            Self::Tree(t) => t.len(),
        }
    }

    /// Hands the body to `sink` in slices.
    pub(crate) fn write(&self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Bytes(b) => sink(b),
            Self::Range(content, from, to) => {
                let mut at = *from;
                while at < *to {
                    let slice = content.slice(at, *to)?;
                    let data = slice.as_ref();
                    if data.is_empty() {
                        return Err(io::Error::other("content has a hole"));
                    }
                    sink(data)?;
                    at += data.len() as u64;
                }
                Ok(())
            }
            Self::Part(content, size, part, from, to) => {
                let mut at = *from;
                while at < *to {
                    let end = (at + (1 << 18)).min(*to);
                    sink(&raid_part(content, *size, *part, at, end)?)?;
                    at = end;
                }
                Ok(())
            }
            Self::Tree(t) => t.write(sink),
        }
    }
}

const HEAD_LIMIT: u64 = 64 << 10;
const BODY_LIMIT: u64 = 1 << 30;

/// Serves one connection until it ends.
pub(crate) fn serve(shared: &Arc<Shared>, stream: &TcpStream, connection: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let mut up = Pacer::default();
    let mut down = Pacer::default();
    loop {
        let Some((mut request, keep)) = read_request(shared, &mut reader, stream, &mut up)? else {
            return Ok(());
        };
        request.connection = connection;
        if shared.is_stopped() {
            return Ok(());
        }
        let head = request.method == "HEAD";
        let reply = crate::router::route(shared, request);
        if reply.damage.lost {
            return reset(stream);
        }
        write_reply(shared, stream, &reply, keep, head, &mut down)?;
        if !keep {
            return stream.shutdown(Shutdown::Write);
        }
    }
}

fn reset(stream: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
    Ok(())
}

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn read_line(reader: &mut impl BufRead, left: &mut u64) -> io::Result<String> {
    let mut line = Vec::new();
    let n = reader.take(*left).read_until(b'\n', &mut line)?;
    *left -= n as u64;
    if n > 0 && line.last() != Some(&b'\n') {
        return Err(bad("head too long or cut"));
    }
    while line.last().is_some_and(|b| matches!(b, b'\r' | b'\n')) {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| bad("head is not UTF-8"))
}

fn read_request(
    shared: &Shared,
    reader: &mut BufReader<&TcpStream>,
    stream: &TcpStream,
    pacer: &mut Pacer,
) -> io::Result<Option<(Request, bool)>> {
    if reader.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut left = HEAD_LIMIT;
    let first = read_line(reader, &mut left)?;
    let mut words = first.split(' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Err(bad("request line"));
    };
    let mut request = Request {
        method: method.to_owned(),
        ..Request::default()
    };
    // Absolute form, as sent through proxies.
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').and_then(|i| rest.get(i..)).unwrap_or("/"),
        None => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    request.path = unescape(path);
    for member in query.split('&').filter(|m| !m.is_empty()) {
        let (n, v) = member.split_once('=').unwrap_or((member, ""));
        request.query.push((unescape(n), unescape(v)));
    }
    loop {
        let line = read_line(reader, &mut left)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("header"))?;
        request
            .headers
            .push((name.trim().to_lowercase(), value.trim().to_owned()));
    }
    let connection = request
        .header("connection")
        .unwrap_or_default()
        .to_lowercase();
    let keep = connection != "close" && (version != "HTTP/1.0" || connection == "keep-alive");
    if request
        .header("expect")
        .is_some_and(|e| e.eq_ignore_ascii_case("100-continue"))
    {
        (&mut &*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let metered = request.path.starts_with("/ul/");
    if metered && let Some(FaultAction::Cut { after }) = shared.faults.for_body() {
        shared.tally.lock().faults += 1;
        let length = request.header("content-length");
        let length = length.and_then(|l| l.parse().ok()).unwrap_or(0);
        io::copy(
            &mut reader.by_ref().take(after.min(length)),
            &mut io::sink(),
        )?;
        reset(stream)?;
        return Ok(None);
    }
    if request
        .header("transfer-encoding")
        .is_some_and(|t| t.eq_ignore_ascii_case("chunked"))
    {
        loop {
            let mut left = HEAD_LIMIT;
            let line = read_line(reader, &mut left)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| bad("chunk size"))?;
            read_body(shared, reader, size, metered, pacer, &mut request.body)?;
            read_line(reader, &mut left)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = request.header("content-length") {
        let length = length.parse::<u64>().map_err(|_| bad("content length"))?;
        if metered {
            request.body = shared.buffers.take(length);
        }
        read_body(shared, reader, length, metered, pacer, &mut request.body)?;
    }
    Ok(Some((request, keep)))
}

fn read_body(
    shared: &Shared,
    reader: &mut impl Read,
    length: u64,
    metered: bool,
    pacer: &mut Pacer,
    body: &mut Vec<u8>,
) -> io::Result<()> {
    if body.len() as u64 + length > BODY_LIMIT {
        return Err(bad("body too long"));
    }
    body.reserve_exact(length as usize);
    let mut left = length;
    while left > 0 {
        let piece = if metered { shared.up.slice(left) } else { left };
        let n = reader.by_ref().take(piece).read_to_end(body)? as u64;
        if n < piece {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= n;
        if metered {
            shared.up.wait(pacer, n);
        }
    }
    Ok(())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Server Too Busy",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        509 => "Bandwidth Limit Exceeded",
        _ => "Unknown",
    }
}

fn write_reply(
    shared: &Shared,
    stream: &TcpStream,
    reply: &Reply,
    keep: bool,
    head_only: bool,
    pacer: &mut Pacer,
) -> io::Result<()> {
    let damage = &reply.damage;
    if let Some(delay) = damage.slow {
        shared.pause(delay);
    }
    let whole = reply.body.len();
    let length = damage.shorten.map_or(whole, |s| s.min(whole)) + u64::from(damage.extra);
    let mut head = format!(
        "HTTP/1.1 {} {}\r\nContent-Length: {length}\r\nContent-Type: {}\r\n",
        reply.status,
        reason(reply.status),
        if reply.payload {
            "application/octet-stream"
        } else {
            "application/json"
        }
    );
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !keep {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("Access-Control-Allow-Origin: *\r\n\r\n");
    if head_only {
        return (&mut &*stream).write_all(head.as_bytes());
    }
    let mut out = Out {
        shared,
        stream,
        pacer,
        pending: head.into_bytes(),
        sent: 0,
        limit: length.min(damage.truncate.unwrap_or(u64::MAX)),
        damage,
        payload: reply.payload,
        started: Instant::now(),
    };
    let sent = match &reply.body {
        Body::Range(content, from, to) if *damage == Damage::default() => match content.file() {
            Some(file) => out.splice(file, *from, *to),
            None => reply.body.write(&mut |data| out.push(data)),
        },
        body => body.write(&mut |data| out.push(data)),
    };
    match sent {
        Err(e) if e.kind() == io::ErrorKind::WriteZero => {}
        other => other?,
    }
    if damage.extra {
        out.push(b"x")?;
    }
    out.flush()?;
    if damage.truncate.is_some_and(|t| t < length) {
        return Err(bad("cut on purpose"));
    }
    Ok(())
}

struct Out<'a> {
    shared: &'a Shared,
    stream: &'a TcpStream,
    pacer: &'a mut Pacer,
    /// Head, glued to the first slice so that small replies are one segment.
    pending: Vec<u8>,
    sent: u64,
    limit: u64,
    damage: &'a Damage,
    payload: bool,
    started: Instant,
}

impl Out<'_> {
    fn flush(&mut self) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        (&mut &*self.stream).write_all(&pending)
    }

    /// Sends part of a file without a copy through this process.
    fn splice(&mut self, file: &std::fs::File, from: u64, to: u64) -> io::Result<()> {
        self.flush()?;
        let mut at = from;
        while at < to {
            let take = self.shared.down.slice((to - at).min(1 << 20));
            let n = rustix::fs::sendfile(self.stream, file, Some(&mut at), take as usize)?;
            if n == 0 {
                return Err(io::Error::other("content has a hole"));
            }
            self.sent += n as u64;
            self.shared.tally.lock().bytes_down += n as u64;
            self.shared.down.wait(self.pacer, n as u64);
        }
        Ok(())
    }

    fn push(&mut self, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let room = self.limit - self.sent;
            if room == 0 {
                // Tells the producer to stop; not an error of the connection.
                return Err(io::ErrorKind::WriteZero.into());
            }
            let mut take = room.min(rest.len() as u64);
            if self.payload {
                take = take.min(self.shared.down.slice(take));
            }
            if let Some(rate) = self.damage.trickle {
                take = take.min((rate / 10).max(1));
            }
            if let Some((after, pause)) = self.damage.stall {
                if self.sent < after {
                    take = take.min(after - self.sent);
                } else if self.sent == after {
                    self.flush()?;
                    self.shared.pause(pause);
                }
            }
            let (now, later) = rest.split_at_checked(take as usize).unwrap_or((rest, &[]));
            rest = later;
            self.write(now)?;
            self.sent += take;
            if self.payload {
                self.shared.tally.lock().bytes_down += take;
                self.shared.down.wait(self.pacer, take);
            }
            if let Some(rate) = self.damage.trickle {
                let due = Duration::from_secs_f64(self.sent as f64 / rate.max(1) as f64);
                self.shared
                    .pause(due.saturating_sub(self.started.elapsed()));
            }
        }
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        if let Some(at) = self.damage.flip
            && let Some(i) = at.checked_sub(self.sent)
            && i < data.len() as u64
        {
            let mut copy = data.to_vec();
            if let Some(b) = copy.get_mut(i as usize) {
                *b ^= 1;
            }
            return self.write_raw(&copy);
        }
        self.write_raw(data)
    }

    fn write_raw(&mut self, data: &[u8]) -> io::Result<()> {
        if self.pending.is_empty() {
            return (&mut &*self.stream).write_all(data);
        }
        if data.len() <= 16 << 10 {
            self.pending.extend_from_slice(data);
            return self.flush();
        }
        self.flush()?;
        (&mut &*self.stream).write_all(data)
    }
}

/// Percent decoding; malformed escapes stay as they are.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        let mut ahead = bytes.clone();
        let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (b, hex(ahead.next()), hex(ahead.next())) {
            (b'%', Some(hi), Some(lo)) => {
                out.push((hi << 4 | lo) as u8);
                bytes = ahead;
            }
            _ => out.push(b),
        }
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}
