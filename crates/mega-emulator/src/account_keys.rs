//! Owns the keys of modern accounts (protocol/03 section 6): the container `^!keys`, curve keys, and share keys
//! that wait for a user (`pk`). A real server has only the ciphertexts; fixtures make them as clients do.

use aes_gcm::Aes128Gcm;
use aes_gcm::aead::Aead;
use hmac::{Hmac, KeyInit as _, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::change::Change;
use crate::codec::{Handle, b64};
use crate::commands::{Args, text};
use crate::crypto::{self, Block};
use crate::cs::Answer;
use crate::state::State;

/// HMAC-SHA256.
fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn record(tag: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend((value.len() as u32).to_be_bytes().iter().skip(1));
    out.extend(value);
}

/// The container of an account with these keys.
fn container(
    mk: &Block,
    iv: &[u8; 12],
    user: &str,
    curve: &[u8; 32],
    shares: &[(Handle, Block)],
) -> Vec<u8> {
    let mut plain = Vec::new();
    record(1, &[1], &mut plain);
    record(
        3,
        &crate::codec::unb64(user).unwrap_or_default(),
        &mut plain,
    );
    record(4, &[0, 0, 0, 1], &mut plain);
    record(16, &[0; 32], &mut plain);
    record(17, curve, &mut plain);
    let mut all = Vec::new();
    for (handle, key) in shares {
        all.extend(crate::codec::unb64(&handle.to_string()).unwrap_or_default());
        all.extend(key);
        // Trusted and in use.
        all.push(3);
    }
    record(48, &all, &mut plain);
    record(64, &[], &mut plain);
    let key = crypto::block_at(&mac(&mac(&[], &[mk]), &[&[1], &[1]]));
    let sealed = Aes128Gcm::new((&key).into()).encrypt(&(*iv).into(), plain.as_slice());
    let mut out = vec![20, 0];
    out.extend(iv);
    out.extend(sealed.unwrap_or_default());
    out
}

/// The key that two accounts have in common.
fn pairwise(own: &[u8; 32], other: &[u8; 32]) -> Block {
    let other = PublicKey::from(&StaticSecret::from(*other));
    let common = StaticSecret::from(*own).diffie_hellman(&other);
    let extracted = mac(&[], &[common.as_bytes()]);
    crypto::block_at(&mac(&extracted, &[b"strongvelope pairwise key", &[1]]))
}

impl State {
    /// Gives an account the keys that modern clients make at their first login.
    fn make_modern(&mut self, user: &str) {
        let Some(mut account) = self.users.get(user).cloned() else {
            return;
        };
        if account.curve != [0; 32] {
            return;
        }
        account.curve = self.random::<32>();
        let public = PublicKey::from(&StaticSecret::from(account.curve));
        self.put_user(account);
        let change = self.begin(user, None);
        let value = ("+puCu255".to_owned(), b64(public.as_bytes()));
        self.set_user_attributes(&change, &[value]);
    }

    /// Puts a share key into an account's `^!keys`, as its own client would.
    pub(crate) fn keep_share_key(&mut self, user: &str, h: Handle, key: &Block) {
        self.make_modern(user);
        let Some(mut account) = self.users.get(user).cloned() else {
            return;
        };
        account.kept_keys.retain(|(handle, _)| *handle != h);
        account.kept_keys.push((h, *key));
        let iv = self.random::<12>();
        let value = container(&account.mk, &iv, user, &account.curve, &account.kept_keys);
        self.put_user(account);
        let change = self.begin(user, None);
        self.set_user_attributes(&change, &[("^!keys".to_owned(), b64(&value))]);
    }

    /// Leaves a share key for somebody else (`pk`).
    pub(crate) fn leave_share_key(&mut self, change: &Change, to: &str, h: Handle, key: &Block) {
        let from = change.user.clone();
        self.make_modern(&from);
        self.make_modern(to);
        // A modern client keeps its own keys there from its first login on.
        if self.users.get(to).is_some_and(|u| u.kept_keys.is_empty()) {
            self.keep_share_key(to, Handle::of(0, 0), &[0; 16]);
        }
        let curve = |who: &str| self.users.get(who).map(|u| u.curve);
        let (Some(own), Some(theirs)) = (curve(&from), curve(to)) else {
            return;
        };
        let wrapped = b64(&crypto::ecb_encrypt(&pairwise(&own, &theirs), key));
        let Some(mut account) = self.users.get(to).cloned() else {
            return;
        };
        account.pending_keys.push((from.clone(), h, wrapped));
        self.put_user(account);
        self.announce(change, to, "pk", &format!(r#""ou":"{from}""#));
    }
}

/// `pk`.
pub(crate) fn pending(state: &mut State, user: &str, args: &Args) -> Answer {
    let Some(account) = state.users.get(user) else {
        return Answer::Error(-15);
    };
    if !text(args, "d").is_empty() {
        let mut account = account.clone();
        account.pending_keys.clear();
        state.put_user(account);
        return Answer::Data(json!(0));
    }
    if account.pending_keys.is_empty() {
        return Answer::Error(-9);
    }
    let mut reply = json!({"d": account.pending_keys.len().to_string()});
    for (from, h, key) in &account.pending_keys {
        if let Value::Object(all) = &mut reply {
            let theirs = all.entry(from.clone()).or_insert_with(|| json!({}));
            if let Value::Object(theirs) = theirs {
                theirs.insert(h.to_string(), json!(key));
            }
        }
    }
    Answer::Data(reply)
}
