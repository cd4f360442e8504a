//! What goes over the wire, seen by a server that answers what it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use mega_api::{Api, ApiConfig, ApiError, ErrorClass, Session};
use mega_crypto::MasterKey;
use mega_proto::{SessionId, UserHandle};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// `[{"mstrg":5,"cstrg":1}]`, compressed.
const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x8b\xae\x56\xca\x2d\x2e\x29\x4a\x57\xb2\x32\xd5\x51\x4a\x86\xb0\x0c\x6b\x63\x01\xca\x23\xc0\x57\x17\x00\x00\x00";

/// A request as it came: its head and its body.
type Seen = (String, Vec<u8>);

/// Reads one request; `None` when the client has hung up.
fn read_request(reader: &mut impl BufRead) -> Option<Seen> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_ascii_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

fn serve(stream: impl Read + Write, reply: &[u8], seen: &mpsc::Sender<Seen>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        drop(seen.send(request));
        if reader
            .get_mut()
            .write_all(reply)
            .and_then(|()| reader.get_mut().flush())
            .is_err()
        {
            return;
        }
    }
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn tls() -> Arc<rustls::ServerConfig> {
    let certificate = CertificateDer::from_pem_file(data("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(data("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config)
}

/// Answers everything with `reply`; gives the base URL and what it sees. Lives as long as the process.
fn server(
    reply: Vec<u8>,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> (String, mpsc::Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, reply) = (stream.unwrap(), reply.clone());
            let (tls, sender) = (tls.clone(), sender.clone());
            std::thread::spawn(move || match tls {
                None => serve(stream, &reply, &sender),
                Some(config) => {
                    let connection = rustls::ServerConnection::new(config).unwrap();
                    serve(
                        rustls::StreamOwned::new(connection, stream),
                        &reply,
                        &sender,
                    );
                }
            });
        }
    });
    (format!("{scheme}://{address}"), receiver)
}

fn ok(headers: &str, body: &[u8]) -> Vec<u8> {
    let mut reply = format!(
        "HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    reply.extend_from_slice(body);
    reply
}

fn client(url: &str, ca_cert: Option<PathBuf>) -> Api {
    let api = Api::new(ApiConfig {
        base_url: url.parse().unwrap(),
        ca_cert,
        timeout: Duration::from_secs(1),
        proxy: Some(String::new()),
        ..ApiConfig::default()
    })
    .unwrap();
    api.install(session());
    api
}

fn session() -> Session {
    Session {
        sid: SessionId::new("S".repeat(58)),
        master_key: MasterKey::from_bytes([7; 16]),
        user: UserHandle([1; 8]),
        rsa: None,
    }
}

#[tokio::test]
async fn a_request_has_the_form_of_the_protocol() {
    let (url, seen) = server(ok("", b"[{\"mstrg\":5,\"cstrg\":1}]"), None);
    let api = client(&format!("{url}/"), None);
    assert_eq!(api.quota().await.unwrap().total, Some(5));
    api.quota().await.unwrap();
    let mut ids = Vec::new();
    for (head, body) in seen.try_iter() {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let id = path.strip_prefix("/cs?id=").unwrap();
        let (id, rest) = id.split_once('&').unwrap();
        assert_eq!(rest, format!("sid={}", "S".repeat(58)));
        assert!(id.len() == 10 && id.bytes().all(|byte| byte.is_ascii_lowercase()));
        ids.push(id.to_owned());
        assert!(head.starts_with("POST "));
        let head = head.to_ascii_lowercase();
        assert!(head.contains("content-type: application/json\r\n"));
        assert!(head.contains("accept-encoding: gzip\r\n"));
        assert!(head.contains("user-agent: megamount/"));
        assert!(!head.contains("transfer-encoding"));
        assert_eq!(body, br#"[{"a":"uq","strg":1,"xfer":1}]"#);
    }
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_proxy_is_asked_for_everything() {
    let (proxy, seen) = server(ok("", b"[{\"mstrg\":5,\"cstrg\":1}]"), None);
    // Nobody can resolve this name, and nobody has to.
    let api = Api::new(ApiConfig {
        base_url: "http://mega.invalid".parse().unwrap(),
        proxy: Some(proxy),
        timeout: Duration::from_secs(5),
        ..ApiConfig::default()
    })
    .unwrap();
    api.install(session());
    assert_eq!(api.quota().await.unwrap().total, Some(5));
    let (head, _) = seen.recv().unwrap();
    assert!(head.starts_with("POST http://mega.invalid/cs?"), "{head}");
}

#[tokio::test]
async fn compressed_replies_are_read() {
    let (url, _seen) = server(ok("Content-Encoding: gzip\r\n", GZIP), None);
    let quota = client(&url, None).quota().await.unwrap();
    assert_eq!((quota.total, quota.used), (Some(5), 1));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let reply = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
    let (url, seen) = server(reply.to_vec(), None);
    let error = client(&url, None).quota().await.unwrap_err();
    assert!(matches!(error, ApiError::Status(302)), "{error}");
    assert!(
        seen.try_iter()
            .all(|(head, _)| head.starts_with("POST /cs?"))
    );
}

#[tokio::test]
async fn only_trusted_certificates_are_accepted() {
    let (url, seen) = server(ok("", b"[{\"mstrg\":5}]"), Some(tls()));
    let error = client(&url, None).quota().await.unwrap_err();
    assert!(matches!(error, ApiError::Tls(_)), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Network);
    assert!(!error.to_string().contains("SSS") && !format!("{error:?}").contains("SSS"));
    assert!(seen.try_recv().is_err());
    let trusting = client(&url, Some(data("ca.pem")));
    assert_eq!(trusting.quota().await.unwrap().total, Some(5));
}

#[tokio::test]
async fn pieces_go_up_with_their_length() {
    let (url, seen) = server(ok("", b"0"), None);
    let api = client(&url, None);
    let piece = vec![9_u8; 400_000];
    let ack = api
        .post_chunk(
            &format!("{url}/ul/x"),
            131_072,
            piece.clone().into(),
            [0; 12],
        )
        .await;
    assert_eq!(ack.unwrap(), mega_api::ChunkAck::Stored);
    let (head, body) = seen.try_recv().unwrap();
    assert!(
        head.starts_with("POST /ul/x/131072?d=AAAAAAAAAAAAAAAA HTTP/1.1"),
        "{head}"
    );
    let head = head.to_ascii_lowercase();
    assert!(head.contains("content-length: 400000\r\n") && !head.contains("transfer-encoding"));
    assert!(head.contains("content-type: application/octet-stream\r\n"));
    assert!(body == piece);
}

#[test]
fn unusable_options_are_said() {
    let bad = |change: fn(&mut ApiConfig)| {
        let mut config = ApiConfig::default();
        change(&mut config);
        Api::new(config).unwrap_err()
    };
    for error in [
        bad(|config| config.proxy = Some("not a url".into())),
        bad(|config| config.ca_cert = Some("/nowhere/ca.pem".into())),
        bad(|config| config.base_url = "ftp://example.com".parse().unwrap()),
    ] {
        assert!(matches!(error, ApiError::Config(_)), "{error}");
        assert_eq!(error.class(), ErrorClass::Usage);
    }
}
