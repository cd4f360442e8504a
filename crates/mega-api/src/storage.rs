//! Storage servers: ranges of ciphertext out, pieces of ciphertext in (`protocol/04` section 2, section 5).
//!
//! One request per call and no retry here: the transfer engine knows what else it could do meanwhile. The
//! length of every answer is checked; a short one is an error, never an end.

use std::ops::Range;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use mega_proto::{ErrorCode, UploadToken, b64};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Response, StatusCode};

use crate::api::{Api, Inner};
use crate::calls::DEFAULT_QUOTA_WAIT;
use crate::error::{ApiError, NetworkError};
use crate::http;
use crate::retry::{Retry, policy};

/// How much of an upload is handed to the connection at a time; progress is seen in these steps.
const STEP: usize = 128 << 10;
/// The same where the bandwidth is limited: everybody has his turn soon.
const LIMITED_STEP: usize = 16 << 10;
/// The largest acknowledgement that is read.
const MAX_ACK: usize = 4 << 10;
/// Pause after "slow down" (429).
const SLOW_DOWN: Duration = Duration::from_millis(500);
/// Pause after "not served for now" (503).
const NOT_SERVED: Duration = Duration::from_secs(5);

/// Ciphertext as it arrives.
pub type CipherStream = BoxStream<'static, Result<Bytes, StorageError>>;

/// Why a storage request did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// The address is not valid any more.
    #[error("the storage address has expired")]
    Expired,
    /// No transfer quota before this.
    #[error("no transfer quota for now")]
    OverQuota {
        /// When to try again.
        until: Instant,
    },
    /// The server asks for patience.
    #[error("the storage server is busy")]
    Busy {
        /// How much.
        after: Duration,
    },
    /// The answer ended early or was too long.
    #[error("the storage server sent {got} bytes instead of {wanted}")]
    Short {
        /// Bytes received.
        got: u64,
        /// Bytes asked for.
        wanted: u64,
    },
    /// The upload is lost: upload again from the beginning, with a new key.
    #[error("the upload is lost: {0}")]
    UploadLost(ErrorCode),
    /// The server found the piece damaged.
    #[error("a piece was damaged on its way")]
    Damaged,
    /// The server refused for good.
    #[error("{0}")]
    Refused(ErrorCode),
    /// An HTTP status without a meaning of its own.
    #[error("the storage server answered with HTTP status {0}")]
    Status(u16),
    /// An answer without a meaning.
    #[error("the storage server's answer makes no sense")]
    BadReply,
    /// The server could not be reached, or the connection broke.
    #[error("cannot reach the storage server: {0}")]
    Network(#[source] NetworkError),
    /// Nothing moved for the whole inactivity time.
    #[error("the storage server did not answer in time")]
    Timeout,
}

impl StorageError {
    /// What to do next.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Expired => Retry::FreshUrl,
            Self::OverQuota { until } => {
                Retry::After(until.saturating_duration_since(Instant::now()))
            }
            Self::Busy { after } => Retry::After(*after),
            Self::UploadLost(_) => Retry::RestartUpload,
            Self::Refused(_) => Retry::Never,
            Self::Short { .. }
            | Self::Damaged
            | Self::Status(_)
            | Self::BadReply
            | Self::Network(_)
            | Self::Timeout => Retry::Backoff,
        }
    }

    /// For a code in the body of an upload's answer.
    fn from_upload_code(code: ErrorCode) -> Self {
        match policy(code).upload {
            Retry::RestartUpload => Self::UploadLost(code),
            Retry::Backoff if code == ErrorCode::Key => Self::Damaged,
            Retry::Backoff => Self::Busy { after: SLOW_DOWN },
            Retry::After(after) => Self::Busy { after },
            Retry::Never
            | Retry::Few
            | Retry::Relogin
            | Retry::FreshUrl
            | Retry::Look
            | Retry::Refetch => Self::Refused(code),
        }
    }
}

impl From<ApiError> for StorageError {
    /// Only for what the HTTP layer fails with.
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Network(error) | ApiError::Tls(error) => Self::Network(error),
            ApiError::Timeout => Self::Timeout,
            _ => Self::BadReply,
        }
    }
}

/// What an accepted piece means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkAck {
    /// Stored; more are expected.
    Stored,
    /// All pieces are stored, those too whose answers are still under way.
    Complete(UploadToken),
}

/// One piece of an upload.
#[derive(Debug, Clone)]
pub struct ChunkPost {
    /// Where it starts in the file.
    pub offset: u64,
    /// The ciphertext; every repetition sends the same bytes.
    pub body: Bytes,
    /// The check value of the ciphertext.
    pub checksum: [u8; 12],
    /// Bytes that the connection has taken in the present try. What it has taken may still be on its way.
    pub taken: Arc<AtomicU64>,
}

/// A download under way.
struct Incoming {
    api: Arc<Inner>,
    response: Response,
    idle: Duration,
    wanted: u64,
    got: u64,
    is_over: bool,
}

impl Incoming {
    async fn next(&mut self) -> Option<Result<Bytes, StorageError>> {
        if self.is_over {
            return None;
        }
        let short = |got| StorageError::Short {
            got,
            wanted: self.wanted,
        };
        let result = match http::chunk(&mut self.response, self.idle).await {
            Ok(Some(piece)) => {
                self.got += piece.len() as u64;
                if self.got > self.wanted {
                    Err(short(self.got))
                } else {
                    // While we wait the connection fills up, and the server waits too.
                    self.api.budgets.down.take(piece.len() as u64).await;
                    self.api.counters.downloaded(piece.len() as u64);
                    Ok(piece)
                }
            }
            Ok(None) if self.got == self.wanted => {
                self.is_over = true;
                return None;
            }
            Ok(None) => Err(short(self.got)),
            Err(error) => Err(error.into()),
        };
        self.is_over = result.is_err();
        Some(result)
    }
}

impl Api {
    /// Until when the service has no transfer quota for us, if it said so.
    #[must_use]
    pub fn no_downloads_before(&self) -> Option<Instant> {
        let paused = self
            .0
            .no_downloads_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        paused.filter(|until| *until > Instant::now())
    }

    /// Forgets that there was no transfer quota: after buying some, or with an address of its own.
    pub fn allow_downloads(&self) {
        *self
            .0
            .no_downloads_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Downloads `range` (in bytes, of the ciphertext) of a file. The stream ends after exactly that many
    /// bytes or with an error. Dropping it closes the connection.
    ///
    /// # Errors
    /// [`StorageError`]; over quota fails at once until the time the server gave has come.
    pub async fn get_range(
        &self,
        url: &str,
        range: Range<u64>,
    ) -> Result<CipherStream, StorageError> {
        let Some(wanted) = range
            .end
            .checked_sub(range.start)
            .filter(|wanted| *wanted > 0)
        else {
            return Ok(stream::empty().boxed());
        };
        if let Some(until) = self.no_downloads_before() {
            return Err(StorageError::OverQuota { until });
        }
        let idle = self.0.config.timeout;
        let url = format!(
            "{}/{}-{}",
            url.trim_end_matches('/'),
            range.start,
            range.end - 1
        );
        let response = http::send(self.0.http.storage.get(url), idle).await?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
            status => return Err(self.download_failure(status, &response)),
        }
        if let Some(got) = response.content_length().filter(|got| *got != wanted) {
            return Err(StorageError::Short { got, wanted });
        }
        let incoming = Incoming {
            api: Arc::clone(&self.0),
            response,
            idle,
            wanted,
            got: 0,
            is_over: false,
        };
        let stream = stream::unfold(incoming, |mut incoming| async move {
            incoming.next().await.map(|piece| (piece, incoming))
        });
        // Fused: whoever polls it after its end gets `None` again.
        Ok(stream.fuse().boxed())
    }

    fn download_failure(&self, status: StatusCode, response: &Response) -> StorageError {
        match status.as_u16() {
            403 | 404 | 410 => StorageError::Expired,
            429 => StorageError::Busy { after: SLOW_DOWN },
            503 => StorageError::Busy { after: NOT_SERVED },
            509 => {
                let left = response.headers().get("X-MEGA-Time-Left");
                let left = left.and_then(|left| left.to_str().ok()?.trim().parse().ok());
                let wait = left
                    .filter(|seconds: &i64| *seconds > 0)
                    .and_then(|seconds| u64::try_from(seconds).ok())
                    .map_or(DEFAULT_QUOTA_WAIT, Duration::from_secs);
                let now = Instant::now();
                let until = now.checked_add(wait).unwrap_or(now + DEFAULT_QUOTA_WAIT);
                let paused = &self.0.no_downloads_before;
                *paused.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
                StorageError::OverQuota { until }
            }
            status => StorageError::Status(status),
        }
    }

    /// Uploads one piece of ciphertext that starts at `offset`. `checksum` is that of the piece
    /// (`protocol/04` section 5, `?d=`).
    ///
    /// # Errors
    /// [`StorageError`]; the same piece may be posted again, with the same bytes only.
    pub async fn post_chunk(
        &self,
        url: &str,
        offset: u64,
        body: Bytes,
        checksum: [u8; 12],
    ) -> Result<ChunkAck, StorageError> {
        let post = ChunkPost {
            offset,
            body,
            checksum,
            taken: Arc::default(),
        };
        self.post_watched(url, &post).await
    }

    /// As [`post_chunk`](Self::post_chunk); `post.taken` tells how far it is. Dropping the future closes
    /// the connection.
    ///
    /// # Errors
    /// As [`post_chunk`](Self::post_chunk).
    pub async fn post_watched(
        &self,
        url: &str,
        post: &ChunkPost,
    ) -> Result<ChunkAck, StorageError> {
        let idle = self.0.config.timeout;
        let url = format!(
            "{}/{}?d={}",
            url.trim_end_matches('/'),
            post.offset,
            b64::encode(&post.checksum)
        );
        let length = post.body.len();
        let moved = &post.taken;
        moved.store(0, Ordering::Relaxed);
        let request = self
            .0
            .http
            .storage
            .post(url)
            .header(CONTENT_TYPE, "application/octet-stream")
            // A stream would go out chunked, which storage servers are not known to accept.
            .header(CONTENT_LENGTH, length)
            .body(watched(&self.0, post.body.clone(), Arc::clone(moved)));
        let mut sending = Box::pin(request.send());
        let response = loop {
            let before = moved.load(Ordering::Relaxed);
            match tokio::time::timeout(idle, &mut sending).await {
                Ok(sent) => {
                    break sent
                        .map_err(|error| StorageError::from(ApiError::from_network(error)))?;
                }
                Err(_) if moved.load(Ordering::Relaxed) == before => {
                    return Err(StorageError::Timeout);
                }
                Err(_) => {}
            }
        };
        match response.status().as_u16() {
            200 => self.0.counters.uploaded(length as u64),
            403 | 404 | 410 => return Err(StorageError::UploadLost(ErrorCode::NotFound)),
            429 => return Err(StorageError::Busy { after: SLOW_DOWN }),
            503 => return Err(StorageError::Busy { after: NOT_SERVED }),
            status => return Err(StorageError::Status(status)),
        }
        acknowledgement(&http::body(response, idle, MAX_ACK).await?)
    }
}

/// A request body that counts what the connection has taken, and keeps to the bandwidth.
fn watched(api: &Arc<Inner>, body: Bytes, moved: Arc<AtomicU64>) -> Body {
    if api.budgets.up.rate().is_some() {
        return limited(Arc::clone(api), body, moved);
    }
    if body.len() <= STEP {
        moved.store(body.len() as u64, Ordering::Relaxed);
        return Body::from(body);
    }
    let steps = (0..body.len()).step_by(STEP).map(move |start| {
        let step = body.slice(start..body.len().min(start + STEP));
        moved.fetch_add(step.len() as u64, Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>(step)
    });
    Body::wrap_stream(stream::iter(steps))
}

fn limited(api: Arc<Inner>, body: Bytes, moved: Arc<AtomicU64>) -> Body {
    let steps = stream::unfold((api, body, moved), async |(api, mut body, moved)| {
        if body.is_empty() {
            return None;
        }
        let step = body.split_to(body.len().min(LIMITED_STEP));
        api.budgets.up.take(step.len() as u64).await;
        moved.fetch_add(step.len() as u64, Ordering::Relaxed);
        Some((Ok::<_, std::convert::Infallible>(step), (api, body, moved)))
    });
    Body::wrap_stream(steps)
}

/// What a storage server answered to a piece.
fn acknowledgement(body: &[u8]) -> Result<ChunkAck, StorageError> {
    if let Some(token) = UploadToken::from_reply(body) {
        return Ok(ChunkAck::Complete(token));
    }
    match std::str::from_utf8(body).map(str::trim) {
        Ok("" | "0") => Ok(ChunkAck::Stored),
        Ok(text) => match text.parse() {
            Ok(code) if code < 0 => Err(StorageError::from_upload_code(ErrorCode::from_code(code))),
            _ => Err(StorageError::BadReply),
        },
        Err(_) => Err(StorageError::BadReply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_are_told_apart() {
        assert!(matches!(acknowledgement(b""), Ok(ChunkAck::Stored)));
        assert!(matches!(acknowledgement(b"0"), Ok(ChunkAck::Stored)));
        let mut token = [0x55; 36];
        token[35] = 1;
        assert!(matches!(acknowledgement(&token), Ok(ChunkAck::Complete(_))));
        assert!(matches!(
            acknowledgement(&[b'a'; 36]),
            Ok(ChunkAck::Complete(_))
        ));
        let retries: Vec<Retry> = [
            "-3", "-4", "-5", "-7", "-8", "-9", "-13", "-14", "-17", "-18", "-20",
        ]
        .iter()
        .map(|text| acknowledgement(text.as_bytes()).unwrap_err().retry())
        .collect();
        let lost = Retry::RestartUpload;
        let busy = Retry::After(SLOW_DOWN);
        let never = Retry::Never;
        assert_eq!(
            retries,
            [
                busy,
                lost,
                lost,
                lost,
                lost,
                lost,
                lost,
                Retry::Backoff,
                never,
                busy,
                lost
            ]
        );
        for body in [&b"1"[..], b"x", &[0xff; 3], &[2; 36], b"<html>"] {
            assert!(matches!(acknowledgement(body), Err(StorageError::BadReply)));
        }
    }
}
