//! Logging in: from e-mail address and password to a session (`protocol/02` section 1-5).

use std::fmt;
use std::sync::Arc;

use mega_crypto::{
    MasterKey, PasswordKey, RsaPrivateKey, Secret, derive_v2, normalise_email, password_key_v1,
    password_key_v1_utf8, session_user, user_hash_v1, verify_tsid,
};
use mega_proto::reply::{Account, FromReply as _, Prelogin};
use mega_proto::{Command, ErrorCode, SessionId, b64};

use crate::api::Api;
use crate::error::ApiError;
use crate::session::Session;

/// How often a refused two-factor code is asked for again.
const CODES: u32 = 3;

/// Gives a two-factor code, or says why there is none. May block, to ask somebody.
pub type CodeSource = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// What somebody logs in with.
#[derive(Clone)]
pub struct Credentials {
    /// The e-mail address, as typed.
    pub email: String,
    /// The password.
    pub password: Secret,
    /// Where a two-factor code comes from, if the account wants one.
    pub totp: Option<CodeSource>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// A password key with the proof that goes with it.
struct Proof {
    key: PasswordKey,
    hash: Secret,
}

/// Runs what takes long on a thread where it may.
async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ApiError::Internal("a computation failed"))
}

fn login_error(error: ApiError) -> ApiError {
    match error {
        ApiError::Refused(ErrorCode::NotFound) => ApiError::WrongPassword,
        ApiError::Refused(ErrorCode::Incomplete) => ApiError::Unconfirmed,
        ApiError::Refused(ErrorCode::Blocked) => ApiError::Blocked { reason: None },
        ApiError::Refused(ErrorCode::MfaRequired) => ApiError::TwoFactorNeeded,
        other => other,
    }
}

impl Api {
    /// Logs in and uses the session from now on. One `us0`, one `us`, and one more `us` for an account
    /// with a second factor.
    ///
    /// # Errors
    /// [`ApiError::WrongPassword`], [`ApiError::UnknownUser`], [`ApiError::OldPassword`], [`ApiError::TwoFactorNeeded`], [`ApiError::TwoFactorWrong`],
    /// [`ApiError::Unconfirmed`], [`ApiError::Blocked`], or what the network does.
    pub async fn login(&self, credentials: &Credentials) -> Result<Session, ApiError> {
        let session = Box::pin(self.log_in(credentials)).await?;
        self.install(session.clone());
        Ok(session)
    }

    /// Logs in without using the session.
    pub(crate) async fn log_in(&self, credentials: &Credentials) -> Result<Session, ApiError> {
        let email = normalise_email(&credentials.email);
        let prelogin = Command::Prelogin {
            user: email.clone(),
        };
        let reply = self
            .anonymous(prelogin)
            .await
            .map_err(|error| match error {
                ApiError::Refused(ErrorCode::NotFound) => ApiError::UnknownUser,
                other => login_error(other),
            })?;
        let prelogin = Prelogin::from_value(&reply).ok_or(ApiError::BadReply("us0"))?;
        let password = credentials.password.clone();
        match prelogin.version {
            1 => {
                let is_ascii = password.expose().is_ascii();
                let first = proof_v1(&email, &password, password_key_v1).await?;
                match self.attempt(&email, first, credentials).await {
                    // Third-party clients made such accounts with another derivation (protocol/02 section 3).
                    Err(ApiError::WrongPassword) if !is_ascii => {
                        let second = proof_v1(&email, &password, password_key_v1_utf8).await?;
                        match self.attempt(&email, second, credentials).await {
                            Err(ApiError::WrongPassword) => Err(ApiError::OldPassword),
                            done => done,
                        }
                    }
                    done => done,
                }
            }
            2 => {
                let salt = prelogin.salt.and_then(|salt| b64::decode(&salt).ok());
                let salt = salt.ok_or(ApiError::BadReply("us0 has no salt"))?;
                let keys = compute(move || derive_v2(password.expose(), &salt)).await?;
                let hash = Secret::new(keys.auth_key);
                self.attempt(
                    &email,
                    Proof {
                        key: keys.password_key,
                        hash,
                    },
                    credentials,
                )
                .await
            }
            other => Err(ApiError::AccountVersion(other)),
        }
    }

    async fn attempt(
        &self,
        email: &str,
        proof: Proof,
        credentials: &Credentials,
    ) -> Result<Session, ApiError> {
        let command = |mfa| Command::Login {
            user: email.to_owned(),
            uh: proof.hash.expose().to_owned(),
            mfa,
        };
        let mut reply = self.anonymous(command(None)).await.map_err(login_error);
        if let (Err(ApiError::TwoFactorNeeded), Some(source)) = (&reply, &credentials.totp) {
            let mut last = None;
            for _ in 0..CODES {
                let source = Arc::clone(source);
                let code = compute(move || source())
                    .await?
                    .map_err(ApiError::TwoFactorSource)?;
                // The same code again would be refused again.
                if last.as_ref() == Some(&code) {
                    break;
                }
                last = Some(code.clone());
                reply = match self.anonymous(command(Some(code))).await {
                    // Some servers answer -26 to a wrong code too.
                    Err(ApiError::Refused(ErrorCode::Failed | ErrorCode::MfaRequired)) => {
                        Err(ApiError::TwoFactorWrong)
                    }
                    other => other.map_err(login_error),
                };
                if !matches!(reply, Err(ApiError::TwoFactorWrong)) {
                    break;
                }
            }
        }
        let account = Account::from_value(&reply?).ok_or(ApiError::BadReply("us"))?;
        compute(move || open(&account, &proof.key)).await?
    }
}

async fn proof_v1(
    email: &str,
    password: &Secret,
    derive: fn(&str) -> PasswordKey,
) -> Result<Proof, ApiError> {
    let (email, password) = (email.to_owned(), password.clone());
    compute(move || {
        let key = derive(password.expose());
        let hash = Secret::new(user_hash_v1(&email, &key));
        Proof { key, hash }
    })
    .await
}

/// Decrypts and checks what a login answered (`protocol/02` section 5, "Decrypting").
fn open(account: &Account, password_key: &PasswordKey) -> Result<Session, ApiError> {
    let user = account.user.ok_or(ApiError::BadReply("us has no user"))?;
    let wrapped = account.key.as_deref().and_then(|key| b64::decode(key).ok());
    let wrapped = wrapped.ok_or(ApiError::BadReply("us has no key"))?;
    let master_key = password_key
        .unwrap_master_key(&wrapped)
        .map_err(|_| ApiError::BadReply("us has a key of the wrong length"))?;
    let rsa = match &account.private_key {
        // The checks fail when the password key is wrong, so that counts as a wrong password.
        Some(key) => Some(private_key(key, &master_key).ok_or(ApiError::WrongPassword)?),
        None => None,
    };
    let sid = match (&rsa, &account.csid, &account.tsid) {
        (Some(rsa), Some(csid), _) => {
            let csid = b64::decode(csid).map_err(|_| ApiError::BadReply("us: csid"))?;
            let sid = rsa
                .decrypt_session_id(&csid)
                .map_err(|_| ApiError::BadReply("the session id cannot be decrypted"))?;
            if session_user(&sid).ok() != Some(user.to_string()) {
                return Err(ApiError::BadReply("the session id names another user"));
            }
            sid
        }
        (_, _, Some(tsid)) => {
            if !verify_tsid(&master_key, tsid).unwrap_or(false) {
                return Err(ApiError::WrongPassword);
            }
            tsid.clone()
        }
        _ => return Err(ApiError::BadReply("us has no session id")),
    };
    Ok(Session {
        sid: SessionId::new(sid),
        master_key,
        user,
        rsa,
    })
}

/// The RSA key out of `privk`; `None` if it does not pass its checks.
pub(crate) fn private_key(text: &str, master_key: &MasterKey) -> Option<RsaPrivateKey> {
    RsaPrivateKey::decrypt_from(master_key, &b64::decode(text).ok()?).ok()
}
