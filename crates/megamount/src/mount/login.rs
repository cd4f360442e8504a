//! The session: resumed, taken over or by a login; one login per device.
//!
//! A login is made only when no session is saved. While somebody waits at the terminal, passwords
//! and codes are asked there through the [`Herald`]; afterwards, when a session dies, only what is
//! configured can answer.

use std::sync::{Arc, Mutex, PoisonError};

use mega_api::{Api, ApiError, Credentials, Session};
use mega_crypto::{MasterKey, RsaPrivateKey, Secret, normalise_email, session_user};
use mega_proto::{SessionId, b64};
use mega_store::{SavedSession, Store, StoreError};

use super::attempts::Attempts;
use super::plan::Plan;
use super::translate;
use crate::config::{Account, ForeignSession, PasswordSource, RemoteKind};
use crate::demo;
use crate::failure::Failure;
use crate::launch::{Answerer, Herald, Question};
use crate::password;
use crate::terminal::{self, Echo, NoAnswer};

/// The account's RSA key as Mega keeps it, encrypted by the master key: some nodes' keys need it.
const PRIVATE_KEY: &str = "program.private_key";
/// How often a password that was typed may be typed again.
const TYPING_ATTEMPTS: u32 = 3;

/// Opens the account: a session is installed in `api`, the store pinned and unlocked, and the
/// session saved. `origin` is what the state is pinned to.
pub(super) async fn open(
    plan: &Arc<Plan>,
    herald: &Herald,
    store: &Arc<Store>,
    api: &Api,
    origin: &str,
) -> Result<(), Failure> {
    let lost = |e: &mega_store::StoreError| translate::store(plan, e);
    if let Some(saved) = store.session().map_err(|e| lost(&e))? {
        check_owner(plan, &saved)?;
        let session = resumed(&saved);
        if let Some(mut session) = session {
            tracing::info!("resuming the saved session");
            store.pin(&saved.user, origin).map_err(|e| lost(&e))?;
            store.unlock(&session.master_key).map_err(|e| lost(&e))?;
            session.rsa = private_key(store, &session.master_key).map_err(|e| lost(&e))?;
            api.install(session);
            return Ok(());
        }
        tracing::warn!("the saved session cannot be read");
    }
    let session = match foreign(plan, api).await {
        Some(session) => session,
        None => log_in(plan, herald, (store, api), origin).await?,
    };
    store
        .pin(&session.user.to_string(), origin)
        .map_err(|e| lost(&e))?;
    store.unlock(&session.master_key).map_err(|e| lost(&e))?;
    keep_private_key(store, &session).map_err(|e| lost(&e))?;
    store
        .save_session(&to_save(plan, &session))
        .map_err(|e| lost(&e))
}

/// The session that rclone has left, unless Mega has ended it: then only a login helps.
async fn foreign(plan: &Plan, api: &Api) -> Option<Session> {
    let account = plan.account()?;
    let session = account.session.as_ref().and_then(taken_over)?;
    api.install(session.clone());
    match api.user_data().await {
        Err(ApiError::SessionDead) => {
            tracing::info!("the session of rclone has ended");
            return None;
        }
        Err(error) => {
            tracing::warn!(%error, "it is not known whether the session of rclone is valid")
        }
        Ok(_) => {}
    }
    tracing::info!("taking over the session of rclone");
    // With the RSA key, which has just come.
    Some(
        api.session()
            .map_or(session, |session| Session::clone(&session)),
    )
}

/// Asks for the RSA key where no login has brought it: a session taken over from rclone. Only before
/// the first load of the tree, which cannot do without the server anyway.
pub(super) async fn complete(plan: &Plan, store: &Store, api: &Api) -> Result<(), Failure> {
    let lost = |e: &StoreError| translate::store(plan, e);
    let is_first = store.seqno().map_err(|e| lost(&e))?.is_none();
    if is_first && api.session().is_some_and(|session| session.rsa.is_none()) {
        if let Err(error) = api.user_data().await {
            tracing::warn!(%error, "the account's RSA key is not known");
        }
        if let Some(session) = api.session() {
            keep_private_key(store, &session).map_err(|e| lost(&e))?;
        }
    }
    Ok(())
}

fn keep_private_key(store: &Store, session: &Session) -> Result<(), StoreError> {
    let Some(rsa) = &session.rsa else {
        return Ok(());
    };
    let sealed = b64::encode(rsa.sealed());
    store.write(|tx| tx.meta_set(PRIVATE_KEY, &sealed))
}

fn private_key(store: &Store, master_key: &MasterKey) -> Result<Option<RsaPrivateKey>, StoreError> {
    let sealed = store.meta(PRIVATE_KEY)?;
    Ok(sealed
        .and_then(|text| b64::decode(&text).ok())
        .and_then(|sealed| RsaPrivateKey::decrypt_from(master_key, &sealed).ok()))
}

/// Lets the API log in again, once and silently, when the session dies.
pub(super) fn allow_relogin(plan: &Arc<Plan>, store: &Arc<Store>, api: &Api) {
    let (asked, told, store) = (Arc::clone(plan), Arc::clone(plan), Arc::clone(store));
    let counted = Arc::clone(&store);
    let before = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&before);
    let credentials = move || {
        let credentials = check_patience(&asked, &counted).and_then(|()| unattended(&asked));
        match credentials {
            Ok(Some(credentials)) => {
                match Attempts::begin(&counted) {
                    Ok(before) => *lock(&noted) = Some(before),
                    Err(error) => tracing::warn!(%error, "the login is not counted"),
                }
                Some(credentials)
            }
            Ok(None) => None,
            Err(failure) => {
                tracing::error!(error = %failure, "cannot log in again");
                None
            }
        }
    };
    let ended = move |outcome: Result<&Session, &ApiError>| {
        let before = lock(&before).take();
        let counted = match (outcome, before) {
            (Ok(_), _) => Attempts::forget(&store),
            (Err(error), Some(before)) if !is_refusal(error) => before.take_back(&store),
            (Err(_), _) => Ok(()),
        };
        if let Err(error) = counted {
            tracing::warn!(%error, "earlier logins still count as refused");
        }
        if let Ok(session) = outcome
            && let Err(error) = store.save_session(&to_save(&told, session))
        {
            tracing::error!(%error, "the new session is not saved");
        }
    };
    api.set_relogin(Arc::new(credentials), Arc::new(ended));
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A saved session of another account than the configured one is no session of ours.
fn check_owner(plan: &Plan, saved: &SavedSession) -> Result<(), Failure> {
    let (saved, wanted) = (normalise_email(&saved.email), normalise_email(plan.user()));
    if saved.is_empty() || saved == wanted {
        return Ok(());
    }
    Err(Failure::StateMismatch {
        path: plan.paths.state_dir.clone(),
        reason: format!("the account {saved}, and this remote is {wanted}"),
    })
}

fn resumed(saved: &SavedSession) -> Option<Session> {
    Some(Session {
        sid: SessionId::new(saved.sid.clone()),
        master_key: MasterKey::from_bytes(saved.master_key),
        user: saved.user.parse().ok()?,
        rsa: None,
    })
}

/// A session as rclone keeps it; none if it is not one.
fn taken_over(foreign: &ForeignSession) -> Option<Session> {
    let key = b64::decode(&foreign.master_key).ok()?;
    Some(Session {
        user: session_user(&foreign.session_id).ok()?.parse().ok()?,
        sid: SessionId::new(foreign.session_id.clone()),
        master_key: MasterKey::from_slice(&key).ok()?,
        rsa: None,
    })
}

fn to_save(plan: &Plan, session: &Session) -> SavedSession {
    SavedSession {
        sid: session.sid.as_str().to_owned(),
        master_key: *session.master_key.as_bytes(),
        user: session.user.to_string(),
        email: plan.user().to_owned(),
    }
}

/// Logs in with somebody at the terminal, if there is one.
async fn log_in(
    plan: &Plan,
    herald: &Herald,
    (store, api): (&Store, &Api),
    origin: &str,
) -> Result<Session, Failure> {
    let lost = |e: &StoreError| translate::store(plan, e);
    let is_typed = plan
        .account()
        .is_some_and(|account| account.password == PasswordSource::Ask);
    // Why there was no code; the API carries only its text.
    let reason = Arc::new(Mutex::new(None));
    for attempt in 1.. {
        check_patience(plan, store)?;
        let (asking, herald_for_code) = (herald.clone(), herald.clone());
        let asked = tokio::task::spawn_blocking(move || asking.ask(Question::Password)).await;
        let password =
            asked.map_err(|_| Failure::Other("asking for the password failed.".to_owned()))??;
        let why = Arc::clone(&reason);
        let totp = move || match herald_for_code.ask(Question::Code) {
            Ok(code) => Ok(code.expose().to_owned()),
            Err(failure) => {
                let text = failure.to_string();
                *lock(&why) = Some(failure);
                Err(text)
            }
        };
        let credentials = Credentials {
            email: plan.user().to_owned(),
            password,
            totp: Some(Arc::new(totp)),
        };
        let before = Attempts::begin(store).map_err(|e| lost(&e))?;
        let error = match Box::pin(api.login(&credentials)).await {
            Ok(session) => {
                Attempts::forget(store).map_err(|e| lost(&e))?;
                return Ok(session);
            }
            Err(error) => error,
        };
        if !is_refusal(&error) {
            before.take_back(store).map_err(|e| lost(&e))?;
        }
        if matches!(error, ApiError::WrongPassword) && is_typed && attempt < TYPING_ATTEMPTS {
            herald.note("the e-mail address or the password is wrong, please try again.");
            continue;
        }
        let failure = lock(&reason).take();
        return Err(match (&error, failure) {
            (ApiError::TwoFactorSource(_), Some(failure)) => failure,
            _ => match translate::api(plan, origin, &error) {
                Failure::CodeWrong { user, .. } => {
                    let skew = api.clock_skew();
                    Failure::CodeWrong { user, skew }
                }
                failure => failure,
            },
        });
    }
    Err(Failure::Interrupted)
}

/// Whether Mega has looked at credentials and refused them.
fn is_refusal(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::WrongPassword
            | ApiError::UnknownUser
            | ApiError::OldPassword
            | ApiError::TwoFactorWrong
    )
}

/// After several refusals in a row the next login has to wait.
fn check_patience(plan: &Plan, store: &Store) -> Result<(), Failure> {
    let attempts = Attempts::of(store).map_err(|e| translate::store(plan, &e))?;
    match attempts.wait() {
        None => Ok(()),
        Some(wait) => Err(Failure::TooManyLogins {
            name: plan.remote.name.clone(),
            user: plan.user().to_owned(),
            count: attempts.count,
            minutes: wait.as_secs().div_ceil(60),
        }),
    }
}

/// Credentials without anybody to ask.
fn unattended(plan: &Plan) -> Result<Option<Credentials>, Failure> {
    let Some(account) = plan.account() else {
        return Ok(Some(Credentials {
            email: demo::USER.to_owned(),
            password: Secret::new(demo::PASSWORD.to_owned()),
            totp: None,
        }));
    };
    let Some(password) = password::configured(&plan.remote.name, account)? else {
        return Ok(None);
    };
    let (name, owner) = (plan.remote.name.clone(), account.clone());
    let totp = move || match password::code(&name, &owner) {
        Ok(Some(code)) => Ok(code),
        Ok(None) => Err("no totp-command is configured".to_owned()),
        Err(failure) => Err(failure.to_string()),
    };
    Ok(Some(Credentials {
        email: account.user.clone(),
        password,
        totp: Some(Arc::new(totp)),
    }))
}

/// Knows how to find a password and a code while somebody is at the terminal.
pub(super) struct LoginHelp {
    remote: String,
    account: Option<Account>,
}

impl LoginHelp {
    /// For the remote of `plan`.
    pub(super) fn of(plan: &Plan) -> Self {
        let account = match &plan.remote.kind {
            RemoteKind::Account(account) => Some(account.clone()),
            RemoteKind::Demo | RemoteKind::Link(_) => None,
        };
        Self {
            remote: plan.remote.name.clone(),
            account,
        }
    }
}

impl Answerer for LoginHelp {
    fn answer(&self, question: Question) -> Result<Secret, Failure> {
        let Some(account) = &self.account else {
            return Ok(Secret::new(demo::PASSWORD.to_owned()));
        };
        let (name, user) = (self.remote.clone(), account.user.clone());
        match question {
            Question::Password => match password::configured(&name, account)? {
                Some(password) => Ok(password),
                None => {
                    let prompt = format!("Mega password of {user}: ");
                    terminal::ask(&prompt, Echo::Off).map_err(|why| match why {
                        NoAnswer::NoTerminal => Failure::PasswordNeeded { name, user },
                        NoAnswer::Cancelled => Failure::Interrupted,
                    })
                }
            },
            Question::Code => match password::code(&name, account)? {
                Some(code) => Ok(Secret::new(code)),
                None => {
                    let prompt = format!("Two-factor code of {user}: ");
                    let typed = terminal::ask(&prompt, Echo::On).map_err(|why| match why {
                        NoAnswer::NoTerminal => Failure::CodeNeeded { name, user },
                        NoAnswer::Cancelled => Failure::Interrupted,
                    })?;
                    Ok(Secret::new(password::digits(typed.expose())))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_sessions_are_taken_over() {
        let session = |session_id: &str, master_key: &str| {
            taken_over(&ForeignSession {
                session_id: session_id.to_owned(),
                master_key: master_key.to_owned(),
            })
        };
        assert!(session("short", "AAAAAAAAAAAAAAAAAAAAAA==").is_none());
        // 16 bytes, the handle in the clear, 16 bytes: 58 characters.
        let mut raw = vec![7; 16];
        raw.extend_from_slice(b"ABCDEFGHIJA");
        raw.extend_from_slice(&[9; 16]);
        let sid = b64::encode(&raw);
        assert_eq!(sid.len(), 58);
        let taken = session(&sid, "AAECAwQFBgcICQoLDA0ODw==").unwrap();
        assert_eq!(taken.user.to_string(), "ABCDEFGHIJA");
        assert!(session(&sid, "AAEC").is_none());
    }
}
