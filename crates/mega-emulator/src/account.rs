//! Owns fixture accounts (protocol/06 section 7): from e-mail and password to all that a server
//! stores for an account, plus the master key, which only a fixture knows.

use serde::{Deserialize, Serialize};

use crate::codec::{b64, hex};
use crate::crypto;
use crate::rsa::KeyPair;
use crate::server::{Emulator, Shared};
use crate::state::{Session, State, User};

/// An account to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AccountSpec {
    /// Address, stored in lower case.
    pub email: String,
    /// Password in clear.
    pub password: String,
    /// 1 or 2; anything else counts as 2.
    pub version: u8,
    /// Base32 secret of the second factor.
    pub totp_secret: Option<String>,
    /// Shown name.
    pub name: String,
    /// Storage quota in bytes, the knob's value when omitted.
    pub quota: Option<u64>,
    /// Without an RSA key pair, so that logins get a `tsid`.
    pub no_rsa: bool,
    /// Session ids begin with a zero byte, which trips sloppy clients.
    pub zero_sid: bool,
    /// `whyamiblocked` code, 0 = not blocked.
    pub blocked: u32,
    /// Logins answer -13.
    pub unconfirmed: bool,
}

impl Default for AccountSpec {
    fn default() -> Self {
        Self::new("", "")
    }
}

impl AccountSpec {
    /// A version 2 account.
    pub fn new(email: &str, password: &str) -> Self {
        Self {
            email: email.to_owned(),
            password: password.to_owned(),
            version: 2,
            totp_secret: None,
            name: "Emulated User".to_owned(),
            quota: None,
            no_rsa: false,
            zero_sid: false,
            blocked: 0,
            unconfirmed: false,
        }
    }

    /// A version 1 account.
    pub fn v1(email: &str, password: &str) -> Self {
        Self {
            version: 1,
            ..Self::new(email, password)
        }
    }
}

fn base32(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut v, mut bits) = (0_u32, 0);
    for c in text.to_ascii_uppercase().bytes() {
        let d = match c {
            b'A'..=b'Z' => c - b'A',
            b'2'..=b'7' => c - b'2' + 26,
            _ => continue,
        };
        v = v << 5 | u32::from(d);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push((v >> bits) as u8);
        }
    }
    out
}

/// Creates the account unless its address is known; returns the user handle.
pub(crate) fn add(state: &mut State, spec: &AccountSpec, default_quota: u64) -> String {
    let email = spec.email.trim().to_lowercase();
    if let Some(known) = state.user_by_email(&email) {
        return known.handle.clone();
    }
    let handle = b64(&state.random::<8>());
    let mk = state.random::<16>();
    let salt = state.random::<32>().to_vec();
    let version = if spec.version == 1 { 1 } else { 2 };
    let (password_key, auth, salt) = if version == 1 {
        let key = crypto::password_key_v1(&spec.password);
        (key, crypto::user_hash_v1(&email, &key), Vec::new())
    } else {
        let (key, auth) = crypto::derive_v2(&spec.password, &salt);
        (key, auth.to_vec(), salt)
    };
    let pair = KeyPair::embedded(state.users.len()).filter(|_| !spec.no_rsa);
    let mut privk = Vec::new();
    if let Some(pair) = &pair {
        let mut blob = pair.private_blob();
        let padding = (16 - blob.len() % 16) % 16;
        blob.extend(state.random::<16>().into_iter().take(padding));
        privk = crypto::ecb_encrypt(&mk, &blob);
    }
    let user = User {
        handle: handle.clone(),
        email,
        name: spec.name.clone(),
        version,
        salt,
        auth: vec![auth],
        k: vec![crypto::ecb_encrypt(&password_key, &mk)],
        privk,
        pubk: pair.map(|p| p.public_blob()).unwrap_or_default(),
        mk,
        quota: spec.quota.unwrap_or(default_quota),
        totp: spec.totp_secret.as_deref().map(base32),
        blocked: spec.blocked,
        unconfirmed: spec.unconfirmed,
        zero_sid: spec.zero_sid,
        roots: state.new_roots(&handle),
        attributes: [(
            "firstname".to_owned(),
            (b64(spec.name.as_bytes()), b64(&[0; 8])),
        )]
        .into(),
        created: crate::commands::now(),
        curve: [0; 32],
        kept_keys: Vec::new(),
        pending_keys: Vec::new(),
    };
    state.put_user(user);
    handle
}

impl Emulator {
    /// Creates an account; nothing happens when the address exists (a persistent emulator was
    /// started again). Returns the user handle.
    pub fn add_account(&self, spec: AccountSpec) -> String {
        let quota = self.shared.knobs().quota;
        add(&mut self.shared.state(), &spec, quota)
    }

    /// The master key of an account in hexadecimal, for tests of cryptography.
    pub fn master_key(&self, email: &str) -> Option<String> {
        self.shared.state().user_by_email(email).map(|u| hex(&u.mk))
    }

    /// Opens a session as another device of this account would, without a login; `None` when the
    /// address is unknown. For tests that speak to the server themselves.
    pub fn session(&self, email: &str) -> Option<String> {
        session(&self.shared, email)
    }

    /// Ends all sessions of an account, or of all accounts: the next use answers -15.
    pub fn end_sessions(&self, email: Option<&str>) {
        end_sessions(&self.shared, email);
    }

    /// Changes quota (bytes) or block state of an account; `None` leaves it.
    pub fn set_account(&self, email: &str, quota: Option<u64>, blocked: Option<u32>) {
        set_account(&mut self.shared.state(), email, quota, blocked);
    }

    /// Forgets all events so far: clients with an older position get -6 (ETOOMANY).
    pub fn forget_events(&self, email: &str) {
        forget_events(&mut self.shared.state(), email);
        self.shared.changed.notify_all();
    }

    /// The current TOTP code of a base32 secret.
    pub fn totp_code(secret: &str) -> String {
        crate::commands::login::totp(&base32(secret), crate::commands::now())
    }
}

/// See [`Emulator::set_account`].
pub(crate) fn set_account(
    state: &mut State,
    email: &str,
    quota: Option<u64>,
    blocked: Option<u32>,
) {
    let Some(mut user) = state.user_by_email(email).cloned() else {
        return;
    };
    user.quota = quota.unwrap_or(user.quota);
    user.blocked = blocked.unwrap_or(user.blocked);
    state.put_user(user);
}

/// See [`Emulator::forget_events`].
pub(crate) fn forget_events(state: &mut State, email: &str) {
    let Some(user) = state.user_by_email(email).map(|u| u.handle.clone()) else {
        return;
    };
    // One step is lost for good, so that even a client that is up to date is too far behind.
    let change = state.begin(&user, None);
    state.announce(&change, &user, "zzz", r#""lost":1"#);
    let events = state.events.entry(user.clone()).or_default();
    events.base = events.position();
    events.packets.clear();
    let base = events.base;
    state.journal.put("base", &user, &base);
}

/// See [`Emulator::session`].
pub(crate) fn session(shared: &Shared, email: &str) -> Option<String> {
    let mut state = shared.state();
    let user = state.user_by_email(email)?.clone();
    let sid = b64(&crate::commands::login::new_sid(&mut state, &user));
    let session = Session {
        user: user.handle,
        sek: None,
        id: b64(&state.random::<8>()),
        created: crate::commands::now(),
        agent: String::new(),
        which: 0,
    };
    state.put_session(sid.clone(), session);
    Some(sid)
}

/// See [`Emulator::end_sessions`].
pub(crate) fn end_sessions(shared: &Shared, email: Option<&str>) {
    let mut state = shared.state();
    let user = email
        .and_then(|e| state.user_by_email(e))
        .map(|u| u.handle.clone());
    let dead: Vec<String> = state
        .sessions
        .iter()
        .filter(|(_, s)| email.is_none() || Some(&s.user) == user.as_ref())
        .map(|(sid, _)| sid.clone())
        .collect();
    for sid in dead {
        state.end_session(&sid);
    }
    drop(state);
    shared.changed.notify_all();
}
