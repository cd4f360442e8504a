//! `--metrics-addr`: figures of a mount for Prometheus, in the OpenMetrics text format.
//!
//! Owns one listening socket. Promises: only this machine is answered (the address is one of its loopback
//! interface, whatever was asked for) and no page of a browser that only looks like it (the name it was asked by
//! is checked); whoever asks, however often, takes a bounded share of the daemon; nothing of the account is in the
//! figures but how much there is of it. Never: paths or names in the account, addresses or keys.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST};
use hyper::http::uri::Authority;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mega_api::Api;
use mega_vfs::{SessionState, Vfs};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::control::protocol::Hello;
use crate::failure::Failure;

/// A client that has not asked its question by then is left.
const PATIENCE: Duration = Duration::from_secs(10);
/// So long one connection lasts at most, with its one question and answer.
const LONGEST: Duration = Duration::from_secs(30);
/// Connections at a time; the others wait until one ends.
const CONNECTIONS: usize = 16;
/// As the specification of OpenMetrics names it.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `PORT`, `:PORT`, `localhost:PORT` or a loopback address with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct MetricsAddr(SocketAddr);

impl FromStr for MetricsAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let port = text
            .strip_prefix("localhost")
            .map_or(text, |rest| if rest.is_empty() { text } else { rest });
        let port = port.strip_prefix(':').unwrap_or(port);
        let address = match port.parse() {
            Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            Err(_) => text
                .parse()
                .map_err(|_| "an address is a port, or localhost and a port: localhost:9184")?,
        };
        if address.ip().to_canonical().is_loopback() {
            return Ok(Self(address));
        }
        Err(
            "only this machine is answered, because nobody is asked for a password: \
             write localhost:PORT, and let a proxy of yours, that asks localhost by this name, answer others"
                .to_owned(),
        )
    }
}

impl TryFrom<String> for MetricsAddr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for MetricsAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.ip() {
            IpAddr::V4(Ipv4Addr::LOCALHOST) => write!(f, "localhost:{}", self.0.port()),
            _ => self.0.fmt(f),
        }
    }
}

/// A place that is taken and where nobody is answered yet.
#[derive(Debug)]
pub(crate) struct Listener(tokio::net::TcpListener);

impl Listener {
    /// Takes the place.
    ///
    /// # Errors
    /// [`Failure::Usage`] when somebody else has it, or it cannot be had.
    pub(crate) fn bind(address: &MetricsAddr) -> Result<Self, Failure> {
        TcpListener::bind(address.0)
            .and_then(|listener| {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener)
            })
            .map(Self)
            .map_err(|error| {
                Failure::Usage(format!(
                    "--metrics-addr {address} cannot be used: {error}. Choose another port for each mount, \
                     or leave the option out."
                ))
            })
    }

    /// Answers from now on, until dropped.
    pub(crate) fn serve(self, vfs: &Arc<Vfs>, api: &Api, hello: &Hello) -> Server {
        if let Ok(address) = self.0.local_addr() {
            tracing::info!("figures for Prometheus are at http://{address}/metrics");
        }
        let source = Arc::new(Source {
            vfs: Arc::clone(vfs),
            api: api.clone(),
            hello: hello.clone(),
            turn: Arc::default(),
        });
        Server(tokio::spawn(answer(self.0, source)))
    }
}

/// The end that answers.
#[derive(Debug)]
pub(crate) struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Source {
    vfs: Arc<Vfs>,
    api: Api,
    hello: Hello,
    /// Figures are made for one client at a time: each takes a thread while it looks at files.
    turn: Arc<tokio::sync::Mutex<()>>,
}

async fn answer(listener: tokio::net::TcpListener, source: Arc<Source>) {
    // Connections end with us.
    let mut open = tokio::task::JoinSet::new();
    loop {
        let connection = tokio::select! {
            accepted = listener.accept(), if open.len() < CONNECTIONS => accepted,
            Some(_) = open.join_next() => continue,
        };
        let Ok((stream, _)) = connection else {
            // Out of file descriptors: some come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let source = Arc::clone(&source);
        open.spawn(async move {
            let service = service_fn(move |request| reply(request, Arc::clone(&source)));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                // Whoever asks and asks on one connection would keep the others out.
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(LONGEST, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a connection for figures has ended"),
                Err(_) => tracing::debug!("a connection for figures took too long"),
            }
        });
    }
}

async fn reply(
    request: Request<Incoming>,
    source: Arc<Source>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |status: StatusCode, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    };
    if !is_asked_here(&request) {
        return Ok(text(
            StatusCode::FORBIDDEN,
            "The figures are for this machine: ask localhost for them.\n".to_owned(),
        ));
    }
    if request.uri().path() != "/metrics" {
        return Ok(text(
            StatusCode::NOT_FOUND,
            "The figures are at /metrics.\n".to_owned(),
        ));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "The figures can only be read.\n".to_owned(),
        );
        let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return Ok(response);
    }
    let turn = Arc::clone(&source.turn).lock_owned().await;
    // It looks at files and at the database. The turn lasts as long as that does, and not only as long as the client.
    let figures = tokio::task::spawn_blocking(move || {
        let figures = source.figures();
        drop(turn);
        figures
    })
    .await;
    let Ok(figures) = figures else {
        return Ok(text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The mount is ending.\n".to_owned(),
        ));
    };
    let mut response = text(StatusCode::OK, figures);
    let format = hyper::header::HeaderValue::from_static(FORMAT);
    response.headers_mut().insert(CONTENT_TYPE, format);
    Ok(response)
}

/// Whether the client used a name of this machine. A page whose name was made to lead here uses its own.
fn is_asked_here(request: &Request<Incoming>) -> bool {
    let Some(host) = request.headers().get(HOST) else {
        // Every browser names one.
        return true;
    };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

type Level = Gauge<u64, AtomicU64>;
type Labels = Vec<(&'static str, &'static str)>;

fn level(value: u64) -> Level {
    let gauge = Level::default();
    gauge.set(value);
    gauge
}

fn total(value: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(value);
    counter
}

impl Source {
    fn figures(&self) -> String {
        let snapshot = self.vfs.snapshot(0, None);
        let traffic = self.api.traffic();
        let mut registry = Registry::with_prefix("megamount");
        let Hello {
            remote,
            mountpoint,
            program,
            ..
        } = &self.hello;
        let info = Info::new(vec![
            ("remote", remote.clone()),
            ("mountpoint", mountpoint.clone()),
            ("version", program.clone()),
        ]);
        registry.register("mount", "What is mounted and where", info);

        let counts = snapshot.counts;
        let changes = Family::<Labels, Level>::default();
        for (state, count) in [
            ("waiting", counts.waiting),
            ("uploading", counts.uploading),
            ("sending", counts.sending),
            ("failed", counts.parked),
        ] {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            changes.get_or_create(&vec![("state", state)]).set(count);
        }
        registry.register(
            "queue_changes",
            "Local changes that Mega does not have, by what becomes of them; the failed ones wait for a decision",
            changes,
        );
        let mut flag = |name: &str, help: &str, is_so: bool| {
            registry.register(name, help, level(u64::from(is_so)));
        };
        flag(
            "safe",
            "1 when Mega has everything: the machine can be switched off, the disk thrown away",
            counts.is_safe(),
        );
        flag(
            "events_up",
            "1 when changes made elsewhere are seen at once",
            snapshot.is_channel_up,
        );
        flag(
            "session_alive",
            "0 when Mega has ended the session and nobody could log in again",
            snapshot.session == SessionState::Live,
        );
        flag(
            "broken",
            "1 when nothing can be written any more, because stable storage has failed",
            snapshot.broken.is_some(),
        );
        let entries = u64::try_from(snapshot.entries).unwrap_or(u64::MAX);
        registry.register(
            "entries_loaded",
            "Entries of directories in memory",
            level(entries),
        );
        registry.register_with_unit(
            "downloads_blocked",
            "For so long nothing is read from Mega, because the transfer quota is used up",
            Unit::Seconds,
            level(snapshot.no_downloads_for.map_or(0, |time| time.as_secs())),
        );
        let mut bytes = |name: &str, help: &str, value: u64| {
            registry.register_with_unit(name, help, Unit::Bytes, level(value));
        };
        bytes(
            "queue",
            "New content that Mega does not have yet",
            counts.bytes,
        );
        bytes("cache", "Content in the cache on disk", snapshot.cache.0);
        bytes("cache_limit", "The most there may be", snapshot.cache.1);
        if let Some(quota) = &snapshot.quota {
            bytes("account_used", "Space that the account uses", quota.used);
            bytes("account_total", "Space that the account has", quota.total);
        }
        let mut moved = |name: &str, help: &str, value: u64| {
            registry.register_with_unit(name, help, Unit::Bytes, total(value));
        };
        moved(
            "uploaded",
            "Content that storage servers took",
            traffic.uploaded,
        );
        moved(
            "downloaded",
            "Content that came from storage servers",
            traffic.downloaded,
        );
        registry.register(
            "api_requests",
            "Requests to the API",
            total(traffic.requests),
        );
        registry.register(
            "api_failures",
            "Of those, the ones that got no answer",
            total(traffic.failed),
        );
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_this_machine() {
        let shown = |text: &str| text.parse::<MetricsAddr>().map(|it| it.to_string());
        for text in ["9184", ":9184", "localhost:9184", "127.0.0.1:9184"] {
            assert_eq!(shown(text).as_deref(), Ok("localhost:9184"), "{text}");
        }
        assert_eq!(shown("[::1]:9184").as_deref(), Ok("[::1]:9184"));
        for text in ["0.0.0.0:9184", "192.0.2.1:1", "[::]:9184"] {
            assert!(shown(text).unwrap_err().contains("this machine"), "{text}");
        }
        for text in [
            "",
            "localhost",
            "localhost:",
            "example.com:1",
            "99999",
            "unix:///x",
        ] {
            assert!(shown(text).unwrap_err().contains("port"), "{text}");
        }
    }
}
