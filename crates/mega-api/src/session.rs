//! The session in use, and replacing it once when it dies.
//!
//! State: none -> live (installed) -> live again (one silent re-login) -> dead. `install` brings it back
//! to live from anywhere. Every live session has a generation number; a request that failed with ESID
//! names the generation it used, so that many failing at once cause one login.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mega_crypto::{MasterKey, RsaPrivateKey};
use mega_proto::{SessionId, UserHandle};

use crate::api::Api;
use crate::error::{ApiError, ErrorClass};
use crate::link::PublicLink;
use crate::login::Credentials;

/// A second silent login is not made sooner: two programs that end each other's sessions must not go on
/// for ever.
const RELOGIN_SPACING: Duration = Duration::from_secs(3600);

/// What a logged-in client knows.
#[derive(Clone)]
pub struct Session {
    /// The session id.
    pub sid: SessionId,
    /// The account's key.
    pub master_key: MasterKey,
    /// Ourselves.
    pub user: UserHandle,
    /// The account's RSA key; after a resume it comes from [`Api::user_data`].
    pub rsa: Option<RsaPrivateKey>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Gives the credentials for a silent re-login; `None` if there are none. May block.
pub type CredentialSource = Arc<dyn Fn() -> Option<Credentials> + Send + Sync>;
/// Is told how a silent re-login ended: with a session, to store it, or why there is none. May block.
pub type ReloginHook = Arc<dyn Fn(Result<&Session, &ApiError>) + Send + Sync>;

/// In whose name a request is made.
#[derive(Clone)]
pub(crate) enum Authority {
    /// Of an account.
    Session(Arc<Session>),
    /// Of anybody who has the link.
    Link(Arc<PublicLink>),
}

impl Authority {
    /// What it adds to the address of a request; nothing for a file link.
    pub(crate) fn query(&self) -> String {
        match self {
            Self::Session(session) => format!("&sid={}", session.sid.as_str()),
            Self::Link(link) if link.is_folder() => format!("&n={}", link.handle),
            Self::Link(_) => String::new(),
        }
    }
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    link: Option<Arc<PublicLink>>,
    generation: u64,
    is_dead: bool,
    relogged_at: Option<Instant>,
    hooks: Option<(CredentialSource, ReloginHook)>,
}

#[derive(Default)]
pub(crate) struct Sessions {
    state: Mutex<State>,
    /// Held during a silent re-login; taken before `state`.
    relogin: tokio::sync::Mutex<()>,
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session to use now, with its generation.
    pub(crate) fn current(&self) -> Result<(Arc<Session>, u64), ApiError> {
        let state = self.state();
        if state.is_dead {
            return Err(ApiError::SessionDead);
        }
        let session = state.session.clone().ok_or(ApiError::NoSession)?;
        Ok((session, state.generation))
    }

    /// In whose name to ask now, with the generation of the session.
    pub(crate) fn authority(&self) -> Result<(Authority, u64), ApiError> {
        if let Some(link) = &self.state().link {
            return Ok((Authority::Link(Arc::clone(link)), 0));
        }
        let (session, generation) = self.current()?;
        Ok((Authority::Session(session), generation))
    }

    pub(crate) fn visit(&self, link: PublicLink) {
        self.state().link = Some(Arc::new(link));
    }

    pub(crate) fn link(&self) -> Option<Arc<PublicLink>> {
        self.state().link.clone()
    }

    fn install(&self, session: Session) {
        let mut state = self.state();
        state.session = Some(Arc::new(session));
        state.generation += 1;
        state.is_dead = false;
    }

    fn kill(&self) -> ApiError {
        self.state().is_dead = true;
        ApiError::SessionDead
    }
}

impl Api {
    /// Uses this session from now on: the one kept from an earlier run, for instance.
    pub fn install(&self, session: Session) {
        self.0.sessions.state().relogged_at = None;
        self.0.sessions.install(session);
    }

    /// The session in use; `None` before a login and after a logout. A dead one is still given, because
    /// its keys still decrypt what is known.
    #[must_use]
    pub fn session(&self) -> Option<Arc<Session>> {
        self.0.sessions.state().session.clone()
    }

    /// Whether the session has died and was not replaced.
    #[must_use]
    pub fn is_session_dead(&self) -> bool {
        self.0.sessions.state().is_dead
    }

    /// Permits one silent re-login when the session turns out to be dead.
    pub fn set_relogin(&self, credentials: CredentialSource, on_end: ReloginHook) {
        self.0.sessions.state().hooks = Some((credentials, on_end));
    }

    /// Adds what was learnt later, the RSA key, unless the session has been replaced meanwhile.
    pub(crate) fn remember_rsa(&self, sid: &SessionId, rsa: RsaPrivateKey) {
        let mut state = self.0.sessions.state();
        if let Some(session) = state.session.as_ref().filter(|session| session.sid == *sid) {
            let mut session = Session::clone(session);
            session.rsa = Some(rsa);
            state.session = Some(Arc::new(session));
        }
    }

    /// Forgets the session, after a logout.
    pub(crate) fn forget_session(&self) {
        let mut state = self.0.sessions.state();
        state.session = None;
        state.is_dead = false;
        state.generation += 1;
    }

    /// Replaces the session of that generation, which the service called invalid.
    pub(crate) async fn relogin(&self, generation: u64) -> Result<(), ApiError> {
        let sessions = &self.0.sessions;
        let _one_at_a_time = sessions.relogin.lock().await;
        let (old, current) = sessions.current()?;
        if current != generation {
            return Ok(());
        }
        let (hooks, relogged_at) = {
            let state = sessions.state();
            (state.hooks.clone(), state.relogged_at)
        };
        let Some((credentials, on_end)) = hooks else {
            return Err(sessions.kill());
        };
        if relogged_at.is_some_and(|at| at.elapsed() < RELOGIN_SPACING) {
            tracing::warn!("the session has died again shortly after a new login");
            return Err(sessions.kill());
        }
        let credentials = tokio::task::spawn_blocking(move || credentials())
            .await
            .map_err(|_| ApiError::Internal("the source of credentials failed"))?;
        let Some(credentials) = credentials else {
            return Err(sessions.kill());
        };
        tracing::info!("the session has ended, logging in again");
        let session = match Box::pin(self.log_in(&credentials)).await {
            Ok(session) => session,
            Err(error) => {
                let told = tokio::task::spawn_blocking(move || {
                    on_end(Err(&error));
                    error
                });
                let error = told
                    .await
                    .map_err(|_| ApiError::Internal("nobody was told of a failed login"))?;
                if error.class() == ErrorClass::Network {
                    return Err(error);
                }
                tracing::warn!(%error, "logging in again failed");
                return Err(sessions.kill());
            }
        };
        if session.user != old.user || session.master_key != old.master_key {
            tracing::warn!("logging in again led to another account or key");
            return Err(sessions.kill());
        }
        sessions.install(session.clone());
        sessions.state().relogged_at = Some(Instant::now());
        let told = tokio::task::spawn_blocking(move || on_end(Ok(&session))).await;
        told.map_err(|_| ApiError::Internal("the new session could not be stored"))
    }
}
