//! Owns logins (protocol/02): prelogin, credentials, second factor, session ids, ephemeral
//! accounts, resumption, and the hashcash check.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{Args, now, number, text};
use crate::codec::{b64, unb64, unb64_array};
use crate::crypto;
use crate::cs::{Answer, Context};
use crate::state::{Session, State, User};

/// `us0`.
pub(crate) fn prelogin(state: &mut State, args: &Args) -> Answer {
    let email = text(args, "user");
    match state.user_by_email(email) {
        Some(u) if u.version == 2 => Answer::Data(json!({"v": 2, "s": b64(&u.salt)})),
        Some(_) => Answer::Data(json!({"v": 1})),
        // A plausible answer, so that addresses cannot be probed.
        None => {
            let salt = Sha256::digest(email.to_lowercase().as_bytes());
            Answer::Data(json!({"v": 2, "s": b64(&salt)}))
        }
    }
}

/// `us` in its three forms: credentials, resumption, ephemeral.
pub(crate) fn login(state: &mut State, context: &Context<'_>, args: &Args) -> Answer {
    if !args.contains_key("uh") && !args.contains_key("user") {
        return resume(state, context, args);
    }
    let name = text(args, "user");
    if !context.sid.is_empty() {
        context.violation("us with credentials inside a session");
    }
    let found = if args.contains_key("uh") {
        state.user_by_email(name)
    } else {
        state.users.get(name).filter(|u| u.auth.is_empty())
    };
    let Some(user) = found.cloned() else {
        return Answer::Error(-9);
    };
    let mut which = 0;
    if args.contains_key("uh") {
        let uh = unb64(text(args, "uh")).unwrap_or_default();
        match user.auth.iter().position(|a| *a == uh) {
            Some(i) => which = i,
            None => return Answer::Error(-9),
        }
    }
    if user.unconfirmed {
        return Answer::Error(-13);
    }
    if let Some(secret) = &user.totp {
        match args.get("mfa").and_then(Value::as_str) {
            None => return Answer::Error(-26),
            Some(code) if code.len() != 6 || !code.bytes().all(|b| b.is_ascii_digit()) => {
                return Answer::Error(-2);
            }
            Some(code) if !totp_matches(secret, code, now()) => return Answer::Error(-5),
            Some(_) => {}
        }
    }
    let sid = new_sid(state, &user);
    let wire = b64(&sid);
    let sek = args.get("sek").and_then(Value::as_str).map(str::to_owned);
    let mut reply = json!({"k": b64(user.k.get(which).map_or(&[][..], |k| k)), "u": user.handle,
        "ach": 1});
    if let Some(sek) = &sek {
        if unb64_array::<16>(sek).is_none() {
            context.violation("sek is not 16 bytes");
        }
        set(&mut reply, "sek", json!(sek));
    }
    if args.contains_key("sn") {
        let known = position_is_known(state, &user.handle, text(args, "sn"));
        set(&mut reply, "sn", json!(i32::from(known)));
    }
    if user.privk.is_empty() {
        set(&mut reply, "tsid", json!(wire));
    } else {
        let mut plain = sid.clone();
        plain.extend(state.random::<256>());
        plain.truncate(254);
        let Some(c) = crate::rsa::encrypt(&user.pubk, &plain) else {
            return Answer::Error(-1);
        };
        set(&mut reply, "csid", json!(b64(&c)));
        set(&mut reply, "privk", json!(b64(&user.privk)));
    }
    let session = Session {
        user: user.handle.clone(),
        sek,
        id: b64(&state.random::<8>()),
        created: now(),
        agent: context.agent.clone(),
        which,
    };
    state.put_session(wire, session);
    context.shared.tally.lock().logins += 1;
    Answer::Data(reply)
}

/// A session id: random bytes, the user handle, the proof that the master key is known.
pub(crate) fn new_sid(state: &mut State, user: &User) -> Vec<u8> {
    let mut r = state.random::<16>();
    let [first, ..] = &mut r;
    *first = if user.zero_sid { 0 } else { (*first).max(1) };
    let mut sid = r.to_vec();
    sid.extend_from_slice(user.handle.as_bytes());
    sid.extend_from_slice(&crypto::ecb_encrypt(&user.mk, &r));
    sid
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(o) = object {
        o.insert(name.to_owned(), value);
    }
}

fn position_is_known(state: &State, user: &str, sn: &str) -> bool {
    let Some(raw) = unb64_array::<8>(sn) else {
        return false;
    };
    let at = u64::from_be_bytes(raw);
    let events = state.events.get(user);
    let (base, end) = events.map_or((0, 0), |e| (e.base, e.position()));
    (base..=end).contains(&at)
}

fn resume(state: &mut State, context: &Context<'_>, args: &Args) -> Answer {
    let Some(session) = state.sessions.get(&context.sid) else {
        return Answer::Error(-15);
    };
    let Some(user) = state.users.get(&session.user) else {
        return Answer::Error(-15);
    };
    let mut reply = json!({"u": user.handle, "privk": b64(&user.privk), "ach": 1});
    if let Some(sek) = &session.sek {
        set(&mut reply, "sek", json!(sek));
    }
    if args.contains_key("sn") {
        let known = position_is_known(state, &user.handle, text(args, "sn"));
        set(&mut reply, "sn", json!(i32::from(known)));
    }
    Answer::Data(reply)
}

/// `up` without session: an ephemeral account (protocol/02 section 6).
pub(crate) fn ephemeral(state: &mut State, args: &Args) -> Answer {
    let (Some(k), Some(ts)) = (unb64(text(args, "k")), unb64(text(args, "ts"))) else {
        return Answer::Error(-2);
    };
    if k.len() != 16 || ts.len() != 32 {
        return Answer::Error(-2);
    }
    let handle = b64(&state.random::<8>());
    // Its master key stays unknown, so nothing it stores can be checked.
    let user = User {
        handle: handle.clone(),
        email: String::new(),
        version: 1,
        k: vec![k],
        quota: 1 << 30,
        created: now(),
        roots: state.new_roots(&handle),
        ..User::default()
    };
    state.put_user(user);
    Answer::Unchanged(json!(handle))
}

/// RFC 6238 with SHA-1, 30 s and one step of tolerance.
fn totp_matches(secret: &[u8], code: &str, at: i64) -> bool {
    (-1..=1).any(|step| totp(secret, at + step * 30) == code)
}

/// The code of a moment.
pub(crate) fn totp(secret: &[u8], at: i64) -> String {
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret) else {
        return String::new();
    };
    mac.update(&(at / 30).to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let offset = digest.last().map_or(0, |b| usize::from(b & 15));
    let four = digest
        .iter()
        .skip(offset)
        .take(4)
        .fold(0_u32, |a, b| a << 8 | u32::from(*b));
    format!("{:06}", (four & 0x7FFF_FFFF) % 1_000_000)
}

/// Whether a hashcash solution is under the threshold (protocol/01 section 8).
pub(crate) fn hashcash_holds(token: &str, prefix: &str, easiness: u8) -> bool {
    let (Some(token), Some(prefix)) = (unb64_array::<48>(token), unb64_array::<4>(prefix)) else {
        return false;
    };
    let e = u32::from(easiness);
    let threshold = (2 * (e & 63) + 1) << (7 * (e >> 6) + 3);
    let mut hash = Sha256::new();
    hash.update(prefix);
    let block: Vec<u8> = token.iter().copied().cycle().take(48 * 1024).collect();
    for _ in 0..256 {
        hash.update(&block);
    }
    let digest = hash.finalize();
    digest
        .iter()
        .take(4)
        .fold(0_u32, |a, b| a << 8 | u32::from(*b))
        <= threshold
}

/// Whether the request's session logged in with this password key; for `ug`.
pub(crate) fn wrapped_key(state: &State, context: &Context<'_>, user: &User) -> Vec<u8> {
    let which = state.sessions.get(&context.sid).map_or(0, |s| s.which);
    user.k.get(which).cloned().unwrap_or_default()
}

/// Ignored members that say whether the caller is the SDK.
pub(crate) fn wants_versions(args: &Args) -> bool {
    number(args, "v").is_some_and(|v| v >= 1)
}
