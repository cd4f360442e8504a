//! Sending a frozen request until it is answered (`protocol/01` section 2-4, section 7).
//!
//! One state-changing request is under way per client, in the order of arrival; read-only ones run
//! beside it. What comes back decides:
//!
//! ```text
//! answered            done; commands that got -3 or -4 alone are sent again under a new id
//! refused, -3 -4 ...  nothing was executed: the same bytes again after a delay
//! refused, -15        the session is replaced once, then the same bytes again
//! lost                it may have been executed: the same bytes again, in the same session, for two
//!                     minutes; after that `OutcomeUnknown`
//! ```

use std::time::{Duration, Instant};

use bytes::Bytes;
use mega_proto::reply::{ApiVersion, DecodeError, decode};
use mega_proto::{Command, ErrorCode};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tokio::sync::{MutexGuard, SemaphorePermit};

use crate::api::Api;
use crate::backoff::Backoff;
use crate::bandwidth::CALL;
use crate::error::ApiError;
use crate::frozen::{Answer, Frozen};
use crate::hashcash;
use crate::http;
use crate::retry::{Retry, policy};
use crate::wire;

/// How long the service is trusted to remember a request id (`design/writeback.md`, "Pushing").
const MEMORY: Duration = Duration::from_secs(120);
/// The largest reply that is read whole. Only `f` may be longer, and that one is streamed.
const MAX_REPLY: usize = 64 << 20;
/// How often "internal error" is believed to be a passing one (`protocol/01` section 5.1).
const FEW: u32 = 2;

/// How long to go on when the service is busy or unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until this has passed since the request's turn came.
    Within(Duration),
    /// Until it succeeds or fails for good.
    Endless,
}

/// Delays between tries, until patience ends.
pub(crate) struct Clock {
    deadline: Option<Instant>,
    backoff: Backoff,
}

impl Clock {
    pub(crate) fn new(patience: Patience) -> Self {
        let deadline = match patience {
            Patience::Within(time) => Instant::now().checked_add(time),
            Patience::Endless => None,
        };
        Self {
            deadline,
            backoff: Backoff::default(),
        }
    }

    /// Waits before the next try, at least as long as asked; `false` at once if patience ends before.
    pub(crate) async fn pause(&mut self, at_least: Duration) -> bool {
        let delay = self.backoff.fail().max(at_least);
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() + delay >= deadline)
        {
            return false;
        }
        tokio::time::sleep(delay).await;
        true
    }
}

/// A try that brought no answer.
pub(crate) struct Trouble {
    pub(crate) error: ApiError,
    /// Whether the service may have executed the request all the same.
    pub(crate) may_be_done: bool,
}

impl Trouble {
    /// A failure to get an answer's head or body.
    pub(crate) fn lost(error: ApiError) -> Self {
        let may_be_done = match &error {
            ApiError::Network(network) => !network.is_connect(),
            ApiError::Tls(_) => false,
            _ => true,
        };
        Self { error, may_be_done }
    }
}

/// Which session a request belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Auth {
    Session,
    /// Login requests have none.
    None,
}

enum Outcome {
    Answers(Vec<Answer>),
    Refused(ErrorCode),
    Trouble(Trouble),
}

impl Outcome {
    /// Whether this try left it open if the service has executed the request.
    fn may_be_done(&self) -> bool {
        match self {
            Self::Answers(_) | Self::Refused(_) => false,
            Self::Trouble(trouble) => trouble.may_be_done,
        }
    }
}

#[expect(dead_code, reason = "held, not looked at")]
enum Lane<'a> {
    Read(SemaphorePermit<'a>),
    Write(MutexGuard<'a, ()>),
}

impl Api {
    /// Fixes id and bytes of a request, to be sent with [`send`](Self::send) now or again.
    #[must_use]
    pub fn freeze(&self, commands: impl AsRef<[Command]>) -> Frozen {
        Frozen::new(self.0.ids.next(), commands.as_ref())
    }

    /// Sends a request and gives one answer per command, in their order. Busy and unreachable services
    /// are asked again for [`ApiConfig::timeout`](crate::ApiConfig::timeout).
    ///
    /// May be called again with the same request after any error: nothing is executed twice.
    ///
    /// # Errors
    /// [`ApiError::OutcomeUnknown`] if a state-changing request may have been executed and nobody can
    /// tell any more; [`ApiError::SessionDead`]; otherwise nothing was executed.
    pub async fn send(&self, frozen: &Frozen) -> Result<Vec<Result<Value, ErrorCode>>, ApiError> {
        self.send_within(frozen, Patience::Within(self.0.config.timeout))
            .await
    }

    /// As [`send`](Self::send), with another patience.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_within(
        &self,
        frozen: &Frozen,
        patience: Patience,
    ) -> Result<Vec<Result<Value, ErrorCode>>, ApiError> {
        if frozen.is_empty() {
            return Ok(Vec::new());
        }
        let _lane = if frozen.is_read_only() {
            Lane::Read(self.reader().await?)
        } else {
            Lane::Write(self.0.writer.lock().await)
        };
        let mut clock = Clock::new(patience);
        loop {
            let Some((which, request)) = to_send(frozen) else {
                return Ok(final_answers(frozen));
            };
            let (answers, generation) =
                Box::pin(self.round(&request, Auth::Session, &mut clock)).await?;
            let is_session_lost = answers.contains(&Err(ErrorCode::Session));
            let again = merge(frozen, &which, answers);
            if again.is_empty() {
                continue;
            }
            let Some(request) = frozen.subset(self.0.ids.next(), &again) else {
                return Err(ApiError::Internal("a request cannot be taken apart"));
            };
            frozen.progress().again = Some((again, request));
            if is_session_lost {
                self.relogin(generation).await?;
            } else if !clock.pause(Duration::ZERO).await {
                return Ok(final_answers(frozen));
            }
        }
    }

    /// Sends one command; its data is the result.
    ///
    /// # Errors
    /// [`ApiError::Refused`] or [`ApiError::OverQuota`] if the service refused it.
    pub async fn command(&self, command: Command) -> Result<Value, ApiError> {
        let frozen = self.freeze(std::slice::from_ref(&command));
        let answer = self
            .send(&frozen)
            .await?
            .pop()
            .ok_or(ApiError::BadReply("it is empty"))?;
        answer.map_err(ApiError::from_code)
    }

    /// Sends one command that belongs to no session.
    pub(crate) async fn anonymous(&self, command: Command) -> Result<Value, ApiError> {
        let mut clock = Clock::new(Patience::Within(self.0.config.timeout));
        loop {
            let frozen = self.freeze(std::slice::from_ref(&command));
            let (mut answers, _) = Box::pin(self.round(&frozen, Auth::None, &mut clock)).await?;
            match answers.pop().ok_or(ApiError::BadReply("it is empty"))? {
                Err(code @ (ErrorCode::Again | ErrorCode::RateLimit)) => {
                    if !clock.pause(Duration::ZERO).await {
                        return Err(ApiError::Busy(code));
                    }
                }
                answer => return answer.map_err(ApiError::from_code),
            }
        }
    }

    pub(crate) async fn reader(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.0
            .readers
            .acquire()
            .await
            .map_err(|_| ApiError::Internal("the client was closed"))
    }

    /// One request until it is answered; also the generation of the session that did.
    async fn round(
        &self,
        frozen: &Frozen,
        auth: Auth,
        clock: &mut Clock,
    ) -> Result<(Vec<Answer>, u64), ApiError> {
        let is_careful = auth == Auth::Session && !frozen.is_read_only();
        let doubtful = |error: ApiError| {
            if is_careful && frozen.progress().doubt.is_some() {
                return ApiError::OutcomeUnknown(Box::new(error));
            }
            error
        };
        let mut few = 0;
        loop {
            let (authority, generation) = match auth {
                Auth::Session => {
                    let (authority, generation) = self.0.sessions.authority().map_err(doubtful)?;
                    (authority.query(), generation)
                }
                Auth::None => (String::new(), 0),
            };
            let doubt = frozen.progress().doubt;
            let is_forgotten =
                |(then, since): (u64, Instant)| then != generation || since.elapsed() > MEMORY;
            if is_careful && doubt.is_some_and(is_forgotten) {
                return Err(doubtful(ApiError::Timeout));
            }
            // Noted before sending, because the caller may drop us while we wait.
            frozen
                .progress()
                .doubt
                .get_or_insert((generation, Instant::now()));
            let outcome = Box::pin(self.once(frozen, &authority)).await;
            if !outcome.may_be_done() {
                frozen.progress().doubt = doubt;
            }
            let error = match outcome {
                Outcome::Answers(answers) => return Ok((answers, generation)),
                Outcome::Refused(ErrorCode::Session) if auth == Auth::Session => {
                    self.relogin(generation).await.map_err(doubtful)?;
                    continue;
                }
                Outcome::Refused(ErrorCode::Blocked) => {
                    return Err(doubtful(ApiError::Blocked { reason: None }));
                }
                Outcome::Refused(code) => {
                    let error = ApiError::from_code(code);
                    match policy(code).api {
                        Retry::Backoff | Retry::After(_) => {}
                        Retry::Few if few < FEW => few += 1,
                        Retry::Never
                        | Retry::Few
                        | Retry::Relogin
                        | Retry::FreshUrl
                        | Retry::RestartUpload
                        | Retry::Look
                        | Retry::Refetch => return Err(doubtful(error)),
                    }
                    error
                }
                Outcome::Trouble(Trouble { error, .. }) => {
                    if error.retry() == Retry::Never {
                        return Err(doubtful(error));
                    }
                    error
                }
            };
            tracing::debug!(id = frozen.id(), %error, "request failed, trying again");
            let at_least = match error.retry() {
                Retry::After(delay) => delay,
                _ => Duration::ZERO,
            };
            if !clock.pause(at_least).await {
                return Err(doubtful(error));
            }
        }
    }

    /// One try.
    async fn once(&self, frozen: &Frozen, authority: &str) -> Outcome {
        let idle = self.0.config.timeout;
        let response = match self.exchange(frozen, authority, idle).await {
            Ok(response) => response,
            Err(trouble) => return Outcome::Trouble(trouble),
        };
        let body = match http::body(response, idle, MAX_REPLY).await {
            Ok(body) => body,
            Err(error) => return Outcome::Trouble(Trouble::lost(error)),
        };
        wire::came(frozen.id(), &body);
        match decode(&body, frozen.traits(), ApiVersion::V1) {
            Ok(replies) => Outcome::Answers(
                replies
                    .into_iter()
                    .map(|reply| reply.map(|reply| reply.data).map_err(|error| error.code))
                    .collect(),
            ),
            Err(DecodeError::Refused(error)) => Outcome::Refused(error.code),
            Err(DecodeError::Malformed) => {
                let error = ApiError::BadReply("it is not what was asked for");
                Outcome::Trouble(Trouble {
                    error,
                    may_be_done: true,
                })
            }
        }
    }

    /// Posts to `/cs`, meeting challenges, until there is a status 200. `authority` is what
    /// [`Authority::query`](crate::session::Authority::query) adds to the address.
    pub(crate) async fn exchange(
        &self,
        frozen: &Frozen,
        authority: &str,
        idle: Duration,
    ) -> Result<Response, Trouble> {
        let url = format!("{}/cs?id={}{authority}", self.0.http.origin(), frozen.id());
        wire::sent(frozen.id(), &frozen.body());
        self.post(&url, frozen.body(), idle).await
    }

    /// Posts anything to the service, meeting challenges, until there is a status 200.
    pub(crate) async fn post(
        &self,
        url: &str,
        body: Bytes,
        idle: Duration,
    ) -> Result<Response, Trouble> {
        let mut solution: Option<String> = None;
        let mut challenges = 0;
        loop {
            let mut request = self.0.http.api.post(url).body(body.clone());
            request = request.header(CONTENT_TYPE, "application/json");
            if let Some(solution) = solution.take() {
                request = request.header(hashcash::HEADER, solution);
            }
            self.0.budgets.calls.take(CALL).await;
            let sent = http::send(request, idle).await;
            let is_answered = sent.as_ref().is_ok_and(|it| it.status() == StatusCode::OK);
            self.0.counters.requested(is_answered);
            let response = sent.map_err(Trouble::lost)?;
            self.note_clock(response.headers());
            if let Some(challenge) = hashcash::challenge(&response) {
                if challenges == hashcash::ROUNDS {
                    return Err(Trouble {
                        error: ApiError::Hashcash,
                        may_be_done: false,
                    });
                }
                let solved = hashcash::solve(challenge, challenges).await;
                solution = solved.map_err(|error| Trouble {
                    error,
                    may_be_done: false,
                })?;
                challenges += 1;
                continue;
            }
            return match response.status() {
                StatusCode::OK => Ok(response),
                StatusCode::INTERNAL_SERVER_ERROR => Err(Trouble {
                    error: ApiError::Busy(ErrorCode::Again),
                    may_be_done: true,
                }),
                status => Err(Trouble {
                    error: ApiError::Status(status.as_u16()),
                    may_be_done: status != StatusCode::PAYMENT_REQUIRED,
                }),
            };
        }
    }
}

/// What is still to be sent of a request: the places of the commands, and the bytes.
fn to_send(frozen: &Frozen) -> Option<(Vec<usize>, Frozen)> {
    let progress = frozen.progress();
    if let Some(again) = &progress.again {
        return Some(again.clone());
    }
    progress
        .answers
        .is_empty()
        .then(|| ((0..frozen.len()).collect(), frozen.clone()))
}

/// Takes the final answers in; gives the places of those that are to be sent again.
fn merge(frozen: &Frozen, which: &[usize], answers: Vec<Answer>) -> Vec<usize> {
    let mut progress = frozen.progress();
    progress.again = None;
    if progress.answers.is_empty() {
        progress.answers = vec![None; frozen.len()];
    }
    let mut again = Vec::new();
    for (index, answer) in which.iter().zip(answers) {
        match answer {
            Err(ErrorCode::Again | ErrorCode::RateLimit | ErrorCode::Session) => again.push(*index),
            answer => {
                if let Some(slot) = progress.answers.get_mut(*index) {
                    *slot = Some(answer);
                }
            }
        }
    }
    again
}

/// The answers; those that never became final are "again".
fn final_answers(frozen: &Frozen) -> Vec<Answer> {
    let progress = frozen.progress();
    progress
        .answers
        .iter()
        .map(|answer| answer.clone().unwrap_or(Err(ErrorCode::Again)))
        .collect()
}
