//! Which key unwraps a node's `k` string (protocol/03 section 4).

use core::fmt;
use std::collections::HashMap;

use aes::Aes128;
use aes::cipher::KeyInit;
use zeroize::Zeroizing;

use crate::attributes::begins_like_attributes;
use crate::wrap::ecb_decrypt_with;
use crate::{MasterKey, NodeKey, RsaPrivateKey, ShareKey, b64};

/// Characters of a user handle.
const USER_HANDLE: usize = 11;

/// Characters of a node handle.
const NODE_HANDLE: usize = 8;

/// The longest key string that is wrapped by AES; longer ones are RSA ciphertexts.
const LONGEST_AES: usize = 43;

/// The longest share key that is wrapped by AES.
const LONGEST_SHARE: usize = 22;

/// Through which key a node key was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The master key.
    Master,
    /// The key of the share whose root has this handle.
    Share(String),
    /// The key of the folder link.
    Link,
    /// Our RSA key. Worth wrapping again with the master key.
    Rsa,
}

/// A node's key and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedKey {
    /// The key.
    pub key: NodeKey,
    /// Its source.
    pub via: KeySource,
}

/// A wrapping key and its expanded form.
struct Wrapper<K> {
    key: K,
    aes: Aes128,
}

impl Wrapper<MasterKey> {
    fn of_master(key: MasterKey) -> Self {
        let aes = Aes128::new(key.as_bytes().into());
        Self { key, aes }
    }
}

impl Wrapper<ShareKey> {
    fn of_share(key: ShareKey) -> Self {
        let aes = Aes128::new(key.as_bytes().into());
        Self { key, aes }
    }
}

/// Every key that can unwrap node keys: the account's own, those of shares, a link's.
///
/// Key schedules are kept, so that resolving a node costs about a microsecond.
pub struct KeyRing {
    master: Option<Wrapper<MasterKey>>,
    me: Option<String>,
    shares: HashMap<String, Wrapper<ShareKey>>,
    link: Option<(String, Wrapper<ShareKey>)>,
    rsa: Option<RsaPrivateKey>,
}

impl KeyRing {
    /// The ring of an account. `me` is the own user handle (11 characters); while it is unknown,
    /// keys of any user are tried with the master key.
    pub fn new(master: MasterKey, me: Option<String>, rsa: Option<RsaPrivateKey>) -> Self {
        Self {
            master: Some(Wrapper::of_master(master)),
            me,
            shares: HashMap::new(),
            link: None,
            rsa,
        }
    }

    /// The ring of a folder link: its key unwraps what belongs to the root's handle (8
    /// characters).
    pub fn for_link(root_handle: &str, link_key: ShareKey) -> Self {
        Self {
            master: None,
            me: None,
            shares: HashMap::new(),
            link: Some((root_handle.to_owned(), Wrapper::of_share(link_key))),
            rsa: None,
        }
    }

    /// Adds or replaces the key of the share whose root has this handle (8 characters).
    pub fn insert_share(&mut self, handle: &str, key: ShareKey) {
        self.shares
            .insert(handle.to_owned(), Wrapper::of_share(key));
    }

    /// Forgets a share's key; whether there was one.
    pub fn remove_share(&mut self, handle: &str) -> bool {
        self.shares.remove(handle).is_some()
    }

    /// The key of a share, if known.
    pub fn share(&self, handle: &str) -> Option<&ShareKey> {
        self.shares.get(handle).map(|share| &share.key)
    }

    /// Handles of the shares with known keys, in no order.
    pub fn share_handles(&self) -> impl Iterator<Item = &str> {
        self.shares.keys().map(String::as_str)
    }

    /// The master key; `None` for a link.
    pub fn master(&self) -> Option<&MasterKey> {
        self.master.as_ref().map(|master| &master.key)
    }

    /// The own user handle, if known.
    pub fn me(&self) -> Option<&str> {
        self.me.as_deref()
    }

    /// Learns the own user handle.
    pub fn set_me(&mut self, handle: &str) {
        self.me = Some(handle.to_owned());
    }

    /// Gives or takes the account's RSA key.
    pub fn set_rsa(&mut self, rsa: Option<RsaPrivateKey>) {
        self.rsa = rsa;
    }

    /// The account's RSA key, if known.
    pub const fn rsa(&self) -> Option<&RsaPrivateKey> {
        self.rsa.as_ref()
    }

    /// Opens a share key as it was sent to us: under the master key, or, when it is longer, encrypted with
    /// our RSA key (protocol/03 section 5). Nothing proves it; a wrong one opens no node.
    pub fn open_share_key(&self, served: &str) -> Option<ShareKey> {
        let bytes = Zeroizing::new(b64::decode(served, "share key").ok()?);
        if served.len() <= LONGEST_SHARE {
            return self.master()?.unwrap_share_key(&bytes).ok();
        }
        let plain = Zeroizing::new(self.rsa.as_ref()?.decrypt_key(&bytes).ok()?);
        ShareKey::from_slice(plain.get(..16)?).ok()
    }

    /// Finds a node's key in its `k` string.
    ///
    /// With `attrs_b64` (the node's `a`) a key counts only if the attributes begin as they must,
    /// and the next pair is tried otherwise; without, or with an empty `a`, the first pair that
    /// fits wins.
    pub fn resolve(
        &self,
        k: &str,
        is_folder: bool,
        attrs_b64: Option<&str>,
    ) -> Option<ResolvedKey> {
        let first_block = match attrs_b64 {
            None | Some("") => None,
            Some(attrs) => Some(first_block(attrs)?),
        };
        self.resolve_by_block(k, is_folder, first_block.as_ref())
    }

    /// As [`resolve`](Self::resolve), with the first block of the node's decoded `a`.
    pub fn resolve_by_block(
        &self,
        k: &str,
        is_folder: bool,
        first_block: Option<&[u8; 16]>,
    ) -> Option<ResolvedKey> {
        let fits = |resolved: &ResolvedKey| {
            first_block.is_none_or(|block| begins_like_attributes(&resolved.key.attr_key(), block))
        };
        if !k.contains(':') {
            let master = self.master.as_ref()?;
            return self
                .unwrap(k, is_folder, &master.aes, KeySource::Master)
                .filter(fits);
        }
        k.split('/')
            .filter_map(|pair| pair.split_once(':'))
            .filter_map(|(owner, key)| {
                let (aes, source) = self.wrapper(owner)?;
                self.unwrap(key, is_folder, aes, source)
            })
            .find(fits)
    }

    /// The key schedule that belongs to the owner part of a pair.
    fn wrapper(&self, owner: &str) -> Option<(&Aes128, KeySource)> {
        match owner.len() {
            USER_HANDLE => {
                let master = self.master.as_ref()?;
                let is_mine = self.me.as_deref().is_none_or(|me| me == owner);
                is_mine.then_some((&master.aes, KeySource::Master))
            }
            NODE_HANDLE => {
                if let Some((root, link)) = &self.link
                    && root == owner
                {
                    return Some((&link.aes, KeySource::Link));
                }
                let share = self.shares.get(owner)?;
                Some((&share.aes, KeySource::Share(owner.to_owned())))
            }
            _ => None,
        }
    }

    fn unwrap(
        &self,
        key: &str,
        is_folder: bool,
        aes: &Aes128,
        source: KeySource,
    ) -> Option<ResolvedKey> {
        let mut bytes = Zeroizing::new(b64::decode(key, "node key").ok()?);
        if key.len() <= LONGEST_AES {
            ecb_decrypt_with(aes, &mut bytes);
            let key = NodeKey::from_slice(&bytes, is_folder).ok()?;
            return Some(ResolvedKey { key, via: source });
        }
        let plain = Zeroizing::new(self.rsa.as_ref()?.decrypt_key(&bytes).ok()?);
        let length = if is_folder { 16 } else { 32 };
        let key = NodeKey::from_slice(plain.get(..length)?, is_folder).ok()?;
        Some(ResolvedKey {
            key,
            via: KeySource::Rsa,
        })
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("me", &self.me)
            .field("shares", &self.shares.len())
            .field("is_link", &self.link.is_some())
            .finish_non_exhaustive()
    }
}

/// The first 16 bytes of a node's `a`, without decoding all of it.
fn first_block(attrs: &str) -> Option<[u8; 16]> {
    let start = attrs.get(..24).unwrap_or(attrs);
    b64::decode(start, "attributes")
        .ok()?
        .first_chunk::<16>()
        .copied()
}
