//! The event channel (`protocol/05` section 2): waiting for what others do.
//!
//! Both schemes of polling are there. Blocking: `/wsc`, then the address it names, answer with the packets
//! themselves, after a while with `0`. Classic: `/sc` answers at once, and names an address that answers,
//! with nothing, when it is worth asking again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mega_proto::event::{self, EventBody, EventError};
use mega_proto::{ErrorCode, EventReply, Seqno};
use reqwest::Response;

use crate::api::Api;
use crate::backoff::Backoff;
use crate::error::ApiError;
use crate::http;
use crate::request::Trouble;
use crate::retry::{Retry, policy};
use crate::wire;

/// A blocking request is abandoned after this silence; servers answer `0` within 40 s.
const BLOCKING_SILENCE: Duration = Duration::from_secs(45);
/// The classic waiting address may be silent for a minute.
const CLASSIC_SILENCE: Duration = Duration::from_secs(75);
/// A wait that ends sooner and brings nothing is a failing server, not news.
const SUSPICIOUS: Duration = Duration::from_secs(1);
/// The position of what has no stream of events: a file link, or a folder link that came without one. The
/// first poll is current, all others wait for ever.
pub(crate) const NO_EVENTS: &str = "none";
/// The largest reply that is read.
const MAX_REPLY: usize = 256 << 20;

/// How to poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EventScheme {
    /// `/wsc`, as the official client does.
    #[default]
    Blocking,
    /// `/sc`, as most other clients do.
    Classic,
}

/// What is remembered from poll to poll. One per event stream.
#[derive(Default)]
pub struct EventChannel {
    scheme: EventScheme,
    /// Where to wait; may carry secrets, so it is never printed.
    wait_url: Option<String>,
    is_current: bool,
    backoff: Backoff,
}

impl std::fmt::Debug for EventChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventChannel")
            .field("scheme", &self.scheme)
            .field("is_current", &self.is_current)
            .finish_non_exhaustive()
    }
}

impl EventChannel {
    /// A channel that has seen nothing yet.
    #[must_use]
    pub fn new(scheme: EventScheme) -> Self {
        Self {
            scheme,
            ..Self::default()
        }
    }

    /// Whether everything that had happened when the last poll was answered has been delivered.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.is_current
    }
}

impl Api {
    /// Waits for the next packets after `sn`, or for the first news that there are none (then the stream
    /// is current). An empty reply therefore means: nothing more for now.
    ///
    /// Drop the future to stop waiting; nothing is lost.
    ///
    /// # Errors
    /// [`ApiError::Refused`] with `TooMany` if `sn` is too old: fetch the tree again. Network errors after
    /// [`ApiConfig::timeout`](crate::ApiConfig::timeout) of trying; simply call again.
    pub async fn events(
        &self,
        sn: &Seqno,
        channel: &mut EventChannel,
    ) -> Result<EventReply, ApiError> {
        let started = Instant::now();
        if *sn == Seqno::from(NO_EVENTS) {
            if channel.is_current {
                std::future::pending::<()>().await;
            }
            channel.is_current = true;
            return Ok(EventReply::default());
        }
        loop {
            let (authority, generation) = self.0.sessions.authority()?;
            let authority = authority.query();
            let asked = Instant::now();
            let waited = channel.wait_url.is_some();
            let polled = match channel.scheme {
                EventScheme::Blocking => self.poll_blocking(sn, &authority, channel).await,
                EventScheme::Classic => self.poll_classic(sn, &authority, channel).await,
            };
            let error = match polled {
                Ok(EventBody::KeepAlive) => {
                    if asked.elapsed() >= SUSPICIOUS {
                        channel.backoff.reset();
                        continue;
                    }
                    None
                }
                Ok(EventBody::Reply(reply)) => {
                    let is_news = !reply.packets.is_empty()
                        || reply.more
                        || reply.sn.as_ref().is_some_and(|new| new != sn);
                    let becomes_current = !reply.more && !channel.is_current;
                    if reply.wait_url.is_some() {
                        channel.wait_url = self.trusted(reply.wait_url.clone());
                    }
                    channel.is_current = !reply.more;
                    if is_news || becomes_current {
                        channel.backoff.reset();
                        return Ok(reply);
                    }
                    // The first answer names where to wait; that is no failure.
                    if !waited && channel.wait_url.is_some() && channel.backoff.failures() == 0 {
                        continue;
                    }
                    if asked.elapsed() >= SUSPICIOUS {
                        channel.backoff.reset();
                        continue;
                    }
                    None
                }
                Err(PollError::Silence) => {
                    channel.wait_url = None;
                    continue;
                }
                Err(PollError::Refused(ErrorCode::Session)) => {
                    channel.wait_url = None;
                    self.relogin(generation).await?;
                    continue;
                }
                Err(PollError::Refused(ErrorCode::Blocked)) => {
                    return Err(ApiError::Blocked { reason: None });
                }
                Err(PollError::Refused(code)) => match policy(code).api {
                    Retry::Backoff | Retry::After(_) => Some(ApiError::from_code(code)),
                    Retry::Never
                    | Retry::Few
                    | Retry::Relogin
                    | Retry::FreshUrl
                    | Retry::RestartUpload
                    | Retry::Look
                    | Retry::Refetch => {
                        channel.is_current = false;
                        return Err(ApiError::from_code(code));
                    }
                },
                Err(PollError::Failed(error)) => {
                    channel.wait_url = None;
                    Some(error)
                }
            };
            if let Some(error) = error {
                channel.is_current = false;
                let is_final = error.retry() == Retry::Never;
                if is_final || started.elapsed() >= self.0.config.timeout {
                    return Err(error);
                }
                tracing::debug!(%error, "event poll failed, trying again");
            }
            let mut delay = channel.backoff.fail();
            let left = self.0.config.timeout.saturating_sub(started.elapsed());
            delay = delay.min(left.max(Duration::from_millis(250)));
            tokio::time::sleep(delay).await;
        }
    }

    /// A waiting address, unless using it would send the session id in the clear.
    fn trusted(&self, url: Option<String>) -> Option<String> {
        url.filter(|url| {
            url.starts_with("https://") || (!self.0.http.is_https() && url.starts_with("http://"))
        })
    }

    async fn poll_blocking(
        &self,
        sn: &Seqno,
        authority: &str,
        channel: &EventChannel,
    ) -> Result<EventBody, PollError> {
        let url = match &channel.wait_url {
            Some(url) => with_position(url, sn, authority),
            None => with_position(&format!("{}/wsc", self.0.http.origin()), sn, authority),
        };
        self.poll(&url, BLOCKING_SILENCE).await
    }

    async fn poll_classic(
        &self,
        sn: &Seqno,
        authority: &str,
        channel: &mut EventChannel,
    ) -> Result<EventBody, PollError> {
        if let Some(url) = channel.wait_url.take() {
            // Neither body nor status matter: whatever ends the wait, the next poll tells.
            if let Ok(response) = self.event_request(&url, CLASSIC_SILENCE).await {
                drop(http::body(response, CLASSIC_SILENCE, MAX_REPLY).await);
            }
        }
        let url = with_position(&format!("{}/sc", self.0.http.origin()), sn, authority);
        self.poll(&url, self.0.config.timeout).await
    }

    async fn event_request(&self, url: &str, silence: Duration) -> Result<Response, Trouble> {
        Box::pin(self.post(url, Bytes::new(), silence)).await
    }

    async fn poll(&self, url: &str, silence: Duration) -> Result<EventBody, PollError> {
        let failed = |error| match error {
            ApiError::Timeout => PollError::Silence,
            error => PollError::Failed(error),
        };
        let response = self
            .event_request(url, silence)
            .await
            .map_err(|trouble| failed(trouble.error))?;
        let body = http::body(response, silence, MAX_REPLY)
            .await
            .map_err(failed)?;
        wire::came("events", &body);
        event::decode(&body).map_err(|error| match error {
            EventError::Refused(code) => PollError::Refused(code),
            EventError::Malformed => PollError::Failed(ApiError::BadReply("events")),
        })
    }
}

/// Why a poll brought nothing.
enum PollError {
    /// Nobody said anything for long; ask again.
    Silence,
    Refused(ErrorCode),
    Failed(ApiError),
}

/// Adds position and authority to an address.
fn with_position(url: &str, sn: &Seqno, authority: &str) -> String {
    let join = if url.contains('?') { '&' } else { '?' };
    format!("{url}{join}sn={sn}{authority}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_added_to_any_address() {
        let sn = Seqno::from("AAAAAAAAAAA");
        assert_eq!(
            with_position("http://h/w/1", &sn, "&sid=s"),
            "http://h/w/1?sn=AAAAAAAAAAA&sid=s"
        );
        assert_eq!(
            with_position("http://h/w?x=1", &sn, "&sid=s"),
            "http://h/w?x=1&sn=AAAAAAAAAAA&sid=s"
        );
    }
}
