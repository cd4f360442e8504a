//! Fetching the whole tree in bounded memory (`protocol/03` section 1).
//!
//! The HTTP body goes piece by piece through a bounded channel to a blocking thread, where a JSON visitor
//! hands each node to the caller's sink as soon as it is complete. Nothing is ever held but one piece per
//! slot of the channel and one node. An error code can only stand at the start.

use std::fmt;
use std::io::{self, BufReader, Read};

use bytes::{Buf as _, Bytes};
use mega_proto::{Command, ErrorCode, Link, LooseNode, OwnShareKey, Seqno, Share, TreeItem, User};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

use crate::api::Api;
use crate::error::{ApiError, SinkError};
use crate::events::NO_EVENTS;
use crate::http;
use crate::request::{Clock, Patience, Trouble};
use crate::retry::{Retry, policy};

/// Before the first byte the service may think for minutes (`protocol/01` section 7).
const FIRST_BYTE: Duration = Duration::from_secs(300);
/// Pieces under way between network and parser; a piece is some tens of KiB.
const PIECES: usize = 16;
/// Bytes between the pieces and the parser.
const BUFFER: usize = 64 << 10;

/// What is left when all items are delivered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TreeEnd {
    /// The event position the tree corresponds to.
    pub sn: Option<Seqno>,
    /// How many nodes were delivered.
    pub nodes: u64,
    /// How many elements were no usable nodes.
    pub skipped: u64,
}

/// Reads what the channel brings. An `Err` piece is a broken connection.
struct PieceReader {
    pieces: mpsc::Receiver<Result<Bytes, ()>>,
    current: Bytes,
}

impl Read for PieceReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.current = piece,
                Some(Err(())) => return Err(io::ErrorKind::ConnectionAborted.into()),
                None => return Ok(0),
            }
        }
        let length = buf.len().min(self.current.len());
        let (target, _) = buf.split_at_mut(length);
        self.current.copy_to_slice(target);
        Ok(length)
    }
}

/// Where items go; remembers the sink's failure, which serde's error types cannot carry.
struct Delivery<F> {
    sink: F,
    delivered: u64,
    end: TreeEnd,
    failure: Option<SinkError>,
}

impl<F: FnMut(TreeItem) -> Result<(), SinkError>> Delivery<F> {
    fn deliver<E: de::Error>(&mut self, item: TreeItem) -> Result<(), E> {
        self.delivered += 1;
        (self.sink)(item).map_err(|error| {
            self.failure = Some(error);
            E::custom("the sink failed")
        })
    }
}

/// Which list an element stands in.
#[derive(Clone, Copy)]
enum List {
    Nodes,
    OwnShareKeys,
    Shares,
    Links,
    Users,
}

/// The elements of one list, delivered one by one.
struct Elements<'a, F>(List, &'a mut Delivery<F>);

impl<'de, F: FnMut(TreeItem) -> Result<(), SinkError>> DeserializeSeed<'de> for Elements<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(TreeItem) -> Result<(), SinkError>> de::Visitor<'de> for Elements<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self(list, delivery) = self;
        if matches!(list, List::Nodes) {
            while let Some(LooseNode(node)) = seq.next_element()? {
                let Some(node) = node else {
                    delivery.end.skipped += 1;
                    continue;
                };
                delivery.end.nodes += 1;
                delivery.deliver(TreeItem::Node(node))?;
            }
            return Ok(());
        }
        while let Some(value) = seq.next_element::<Value>()? {
            let item = match list {
                List::Nodes => None,
                List::OwnShareKeys => OwnShareKey::from_value(&value).map(TreeItem::OwnShareKey),
                List::Shares => Share::from_value(&value).map(TreeItem::Share),
                List::Links => Link::from_value(&value).map(TreeItem::Link),
                List::Users => User::from_value(&value).map(TreeItem::User),
            };
            if let Some(item) = item {
                delivery.deliver(item)?;
            }
        }
        Ok(())
    }

    // A member that is no list is as good as an empty one.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Either the tree, or the code that stands in its place.
enum Parsed {
    Tree,
    Refused(ErrorCode),
}

/// The reply as a whole, or the one element of the list it is.
struct Whole<'a, F>(&'a mut Delivery<F>);

impl<'de, F: FnMut(TreeItem) -> Result<(), SinkError>> DeserializeSeed<'de> for Whole<'_, F> {
    type Value = Parsed;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parsed, D::Error> {
        deserializer.deserialize_any(self)
    }
}

fn refused<E: de::Error>(code: i64) -> Result<Parsed, E> {
    // A number that is not negative is impossible here.
    Ok(Parsed::Refused(ErrorCode::from_code(if code < 0 {
        code
    } else {
        -1
    })))
}

impl<'de, F: FnMut(TreeItem) -> Result<(), SinkError>> de::Visitor<'de> for Whole<'_, F> {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tree or an error code")
    }

    fn visit_i64<E: de::Error>(self, code: i64) -> Result<Parsed, E> {
        refused(code)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Parsed, E> {
        refused(-1)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Parsed, A::Error> {
        let parsed = seq.next_element_seed(Whole(&mut *self.0))?;
        let parsed = parsed.ok_or_else(|| de::Error::custom("an empty list"))?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(parsed)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed, A::Error> {
        let mut code = None;
        let mut has_nodes = false;
        while let Some(name) = map.next_key::<String>()? {
            let list = match name.as_str() {
                "f" => {
                    has_nodes = true;
                    List::Nodes
                }
                "f2" => List::Nodes,
                "ok" | "ok0" => List::OwnShareKeys,
                "s" | "ps" => List::Shares,
                "ph" => List::Links,
                "u" => List::Users,
                "sn" => {
                    let sn = map.next_value::<Value>()?;
                    let sn = sn.as_str().filter(|sn| !sn.is_empty());
                    self.0.end.sn = sn.map(Seqno::from);
                    continue;
                }
                "err" => {
                    code = map.next_value::<Value>()?.as_i64();
                    continue;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            map.next_value_seed(Elements(list, &mut *self.0))?;
        }
        match code {
            Some(code) if !has_nodes => refused(code),
            _ if !has_nodes => Err(de::Error::custom("no nodes")),
            _ => Ok(Parsed::Tree),
        }
    }
}

fn parse<F: FnMut(TreeItem) -> Result<(), SinkError>>(
    reader: PieceReader,
    delivery: &mut Delivery<F>,
) -> Result<Parsed, ApiError> {
    // The parser asks for one byte at a time.
    let reader = BufReader::with_capacity(BUFFER, reader);
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    let parsed = Whole(&mut *delivery)
        .deserialize(&mut deserializer)
        .and_then(|parsed| {
            deserializer.end()?;
            Ok(parsed)
        });
    match parsed {
        Ok(parsed) => Ok(parsed),
        Err(_) if delivery.failure.is_some() => {
            let failure = delivery
                .failure
                .take()
                .unwrap_or_else(|| "the sink failed".into());
            Err(ApiError::Sink(Arc::from(failure)))
        }
        // An empty body counts as -3 (protocol/01 section 4).
        Err(error) if error.is_eof() && error.line() <= 1 && error.column() == 0 => {
            Ok(Parsed::Refused(ErrorCode::Again))
        }
        Err(_) => Err(ApiError::BadReply("the tree is damaged or incomplete")),
    }
}

/// Moves the body into the channel; gives the network's failure, if there is one.
async fn pump(
    mut response: reqwest::Response,
    idle: Duration,
    pieces: mpsc::Sender<Result<Bytes, ()>>,
) -> Option<ApiError> {
    loop {
        match http::chunk(&mut response, idle).await {
            Ok(Some(piece)) => {
                // The parser has stopped: it knows why.
                if pieces.send(Ok(piece)).await.is_err() {
                    return None;
                }
            }
            Ok(None) => return None,
            Err(error) => {
                drop(pieces.send(Err(())).await);
                return Some(error);
            }
        }
    }
}

impl Api {
    /// Fetches the tree; `sink` gets every item in the order of arrival, on a blocking thread.
    ///
    /// Before the first item, failures are retried for
    /// [`ApiConfig::timeout`](crate::ApiConfig::timeout). After it, the caller starts again with a fresh
    /// sink.
    ///
    /// # Errors
    /// [`ApiError::Sink`] with the sink's own error, otherwise as [`send`](Self::send).
    pub async fn fetch_tree<F>(&self, sink: F) -> Result<TreeEnd, ApiError>
    where
        F: FnMut(TreeItem) -> Result<(), SinkError> + Send + 'static,
    {
        if let Some(link) = self.link().filter(|link| !link.is_folder()) {
            return self.fetch_file_link(&link, sink).await;
        }
        let _permit = self.reader().await?;
        let frozen = self.freeze([Command::fetch_nodes(false)]);
        let idle = self.0.config.timeout.max(FIRST_BYTE);
        let mut clock = Clock::new(Patience::Within(self.0.config.timeout));
        let mut delivery = Delivery {
            sink,
            delivered: 0,
            end: TreeEnd::default(),
            failure: None,
        };
        loop {
            let (authority, generation) = self.0.sessions.authority()?;
            let answered = Box::pin(self.exchange(&frozen, &authority.query(), idle)).await;
            let error = match answered {
                Err(Trouble { error, .. }) => error,
                Ok(response) => {
                    let (sender, receiver) = mpsc::channel(PIECES);
                    let reader = PieceReader {
                        pieces: receiver,
                        current: Bytes::new(),
                    };
                    let parser = tokio::task::spawn_blocking(move || {
                        let parsed = parse(reader, &mut delivery);
                        (delivery, parsed)
                    });
                    let broken = pump(response, self.0.config.timeout, sender).await;
                    let (back, parsed) = parser
                        .await
                        .map_err(|_| ApiError::Internal("the tree's sink panicked"))?;
                    delivery = back;
                    match (parsed, broken) {
                        (Ok(Parsed::Tree), _) => {
                            if self.link().is_some() {
                                let none = || Seqno::from(NO_EVENTS);
                                delivery.end.sn.get_or_insert_with(none);
                            }
                            return Ok(delivery.end);
                        }
                        (Ok(Parsed::Refused(ErrorCode::Session)), _) => {
                            self.relogin(generation).await?;
                            continue;
                        }
                        (Ok(Parsed::Refused(ErrorCode::Blocked)), _) => {
                            return Err(ApiError::Blocked { reason: None });
                        }
                        (Ok(Parsed::Refused(code)), _) => match policy(code).api {
                            Retry::Backoff | Retry::After(_) | Retry::Few => {
                                ApiError::from_code(code)
                            }
                            Retry::Never
                            | Retry::Relogin
                            | Retry::FreshUrl
                            | Retry::RestartUpload
                            | Retry::Look
                            | Retry::Refetch => return Err(ApiError::from_code(code)),
                        },
                        (Err(error @ ApiError::Sink(_)), _) => return Err(error),
                        (Err(_), Some(error)) | (Err(error), None) => error,
                    }
                }
            };
            let is_final = error.retry() == Retry::Never;
            if is_final || delivery.delivered > 0 || !clock.pause(Duration::ZERO).await {
                return Err(error);
            }
            delivery.end = TreeEnd::default();
            tracing::debug!(%error, "the tree could not be fetched, trying again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Items = Vec<TreeItem>;

    /// Parses a body that arrives in pieces of `size` bytes.
    fn run(body: &str, size: usize) -> (Result<Parsed, ApiError>, Items, TreeEnd) {
        let (sender, pieces) = mpsc::channel(body.len() + 1);
        for piece in body.as_bytes().chunks(size) {
            sender.try_send(Ok(Bytes::copy_from_slice(piece))).unwrap();
        }
        drop(sender);
        let mut items = Vec::new();
        let sink = |item| {
            items.push(item);
            Ok(())
        };
        let mut delivery = Delivery {
            sink,
            delivered: 0,
            end: TreeEnd::default(),
            failure: None,
        };
        let parsed = parse(
            PieceReader {
                pieces,
                current: Bytes::new(),
            },
            &mut delivery,
        );
        let end = delivery.end;
        (parsed, items, end)
    }

    const TREE: &str = r#" [{"x":{"f":[1]},"f":[{"h":"AQIAAABl","p":"","u":"Kbocb5Q6ti4","t":2},
        {"h":"AQIAAABq","p":"AQIAAABl","t":0,"a":"QQ","k":"Kbocb5Q6ti4:AA","s":5,"ts":7},{"h":1},7],
        "ok":[{"h":"AQIAAABq","ha":"x","k":"y"}],"s":0,"ph":[{"h":"AQIAAABq","ph":"AQIAAABr"}],
        "u":[{"u":"Kbocb5Q6ti4","c":2,"m":"a\u0040b.c"}],"f2":[{"h":"AQIAAABs","t":0}],
        "sn":"AAAAAAAAAAA","noc":1}] "#;

    #[test]
    fn delivers_in_order_whatever_the_pieces() {
        for size in [1, 2, 7, 64, 1_000_000] {
            let (parsed, items, end) = run(TREE, size);
            assert!(matches!(parsed, Ok(Parsed::Tree)), "{size}");
            let kinds: Vec<&str> = items
                .iter()
                .map(|item| match item {
                    TreeItem::Node(_) => "node",
                    TreeItem::OwnShareKey(_) => "key",
                    TreeItem::Share(_) => "share",
                    TreeItem::Link(_) => "link",
                    TreeItem::User(_) => "user",
                })
                .collect();
            assert_eq!(kinds, ["node", "node", "key", "link", "user", "node"]);
            assert_eq!((end.nodes, end.skipped), (3, 2));
            assert_eq!(end.sn, Some(Seqno::from("AAAAAAAAAAA")));
        }
    }

    #[test]
    fn codes_stand_in_its_place() {
        for (body, code) in [
            ("-3", -3),
            ("[-15]", -15),
            ("", -3),
            ("{\"err\":-16}", -16),
            ("[{\"err\":-9}]", -9),
        ] {
            let (parsed, items, _) = run(body, 1);
            assert!(
                matches!(parsed, Ok(Parsed::Refused(c)) if c.code() == code) && items.is_empty(),
                "{body}"
            );
        }
    }

    #[test]
    fn damage_is_noticed() {
        let whole = TREE.trim_end();
        for body in [
            "[]",
            "<html>",
            "null",
            "[{}]",
            "\"x\"",
            "[{\"f\":[",
            &whole[..whole.len() - 1],
        ] {
            let (parsed, ..) = run(body, 3);
            assert!(matches!(parsed, Err(ApiError::BadReply(_))), "{body}");
        }
        let (parsed, ..) = run(&format!("{whole}x"), 3);
        assert!(matches!(parsed, Err(ApiError::BadReply(_))));
    }
}
