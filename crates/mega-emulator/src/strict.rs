//! Owns the checks of what clients write into nodes: keys, attributes, fingerprints, MACs. A
//! fixture knows the master keys, so it can see what a real server cannot.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::codec::{is_canonical, unb64};
use crate::content::Content;
use crate::crypto::{self, Block, NodeKey};
use crate::state::{Node, State};

/// Unwraps a key of at most 43 characters.
pub(crate) fn unwrap_key(text: &str, with: &Block) -> Option<NodeKey> {
    if text.len() > 43 {
        return None;
    }
    let raw = unb64(text)?;
    (raw.len() == 16 || raw.len() == 32)
        .then(|| NodeKey::parse(&crypto::ecb_decrypt(with, &raw)))
        .flatten()
}

impl State {
    /// The decrypted key of a node, if its owner's master key opens it.
    pub(crate) fn node_key(&self, node: &Node) -> Option<NodeKey> {
        let mk = self.users.get(&node.u)?.mk;
        if mk == [0; 16] {
            return None;
        }
        let own = unwrap_key(&node.k, &mk);
        // What a recipient put has no key of the owner's, only those of shares.
        own.or_else(|| {
            let mut shared = node.sk.iter();
            shared.find_map(|(root, key)| unwrap_key(key, &self.share_key(*root)?))
        })
    }

    /// The attribute text of a node, if it can be decrypted.
    pub(crate) fn attribute_text(&self, node: &Node) -> Option<String> {
        let key = self.node_key(node)?;
        let raw = unb64(&node.a)?;
        crypto::attribute_text(&crypto::open_attributes(&key.aes_key(), &raw))
    }
}

/// What is wrong with attributes `at` under `key`; the parsed object when they can be read.
pub(crate) fn check_attributes(at: &str, key: &NodeKey) -> (Vec<String>, Option<Value>) {
    let mut wrong = Vec::new();
    if !is_canonical(at) {
        wrong.push("attributes are not canonical base64".to_owned());
    }
    let Some(raw) = unb64(at) else {
        return (wrong, None);
    };
    if raw.is_empty() || raw.len() % 16 != 0 {
        wrong.push(format!(
            "attributes of {} bytes, not a multiple of 16",
            raw.len()
        ));
        return (wrong, None);
    }
    let plain = crypto::open_attributes(&key.aes_key(), &raw);
    let Some(text) = crypto::attribute_text(&plain) else {
        wrong.push("attributes do not decrypt to MEGA{ under the node key".to_owned());
        return (wrong, None);
    };
    let end = 4 + text.len();
    let padding = plain.get(end..).unwrap_or_default();
    if padding.iter().any(|b| *b != 0) {
        wrong.push("attribute padding is not zero".to_owned());
    }
    if padding.len() > 15 {
        wrong.push(format!("{} bytes of attribute padding", padding.len()));
    }
    if raw.len() > 65536 {
        wrong.push("attributes larger than 64 KiB".to_owned());
    }
    let parsed: Option<Value> = serde_json::from_str(&text).ok();
    match &parsed {
        None => wrong.push("attributes are not JSON".to_owned()),
        Some(v) if !v.get("n").is_some_and(Value::is_string) => {
            wrong.push("attributes without a name".to_owned());
        }
        Some(v) => {
            if let Some(c) = v.get("c") {
                let c = c
                    .as_str()
                    .and_then(unb64)
                    .and_then(|r| crypto::parse_fingerprint(&r));
                if c.is_none() {
                    wrong.push("malformed fingerprint".to_owned());
                }
            }
        }
    }
    (wrong, parsed)
}

/// Members a rewrite must not drop; the others may come and go.
pub(crate) fn lost_members(old: &str, new: &Value) -> Vec<String> {
    const FREE: &[&str] = &[
        "n", "c", "c0", "rr", "fav", "lbl", "sen", "des", "t", "l", "gp",
    ];
    let Ok(Value::Object(old)) = serde_json::from_str::<Value>(old) else {
        return Vec::new();
    };
    let kept: BTreeSet<&str> = new
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| k.as_str())
        .collect();
    old.keys()
        .filter(|k| {
            !kept.contains(k.as_str()) && !FREE.contains(&k.as_str()) && !k.starts_with("mm")
        })
        .cloned()
        .collect()
}

/// What is wrong with an uploaded content under its key: MAC and, when given, fingerprint.
pub(crate) fn check_content(
    content: &Content,
    size: u64,
    key: &NodeKey,
    attributes: Option<&Value>,
) -> Vec<String> {
    let NodeKey::File { key, nonce, mac } = key else {
        return vec!["file with a folder key".into()];
    };
    if size == 0 {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    let cipher = crypto::aes(key);
    let read = |from: u64, len: u64| {
        let mut data = content.read(from, from + len)?;
        crypto::ctr(key, nonce, from, &mut data);
        Ok::<_, std::io::Error>(data)
    };
    let mut macs = Vec::new();
    for (start, len) in crypto::chunks(size) {
        match read(start, len) {
            Ok(plain) => macs.push(crypto::chunk_mac(&cipher, nonce, &plain)),
            Err(e) => return vec![format!("content cannot be read: {e}")],
        }
    }
    if crypto::meta_mac(&cipher, macs.iter().copied()) != *mac {
        // megajs appends the MAC of an empty chunk (protocol/04 section 3).
        let empty = crypto::block_at(&[*nonce, *nonce].concat());
        let extra = crypto::is_boundary(size.div_ceil(16) * 16)
            && crypto::meta_mac(&cipher, macs.iter().copied().chain([empty])) == *mac;
        wrong.push(if extra {
            "meta-MAC with an extra empty chunk, as megajs writes it".to_owned()
        } else {
            format!("meta-MAC of {size} bytes does not match the node key")
        });
    }
    let stated = attributes
        .and_then(|a| a.get("c")?.as_str())
        .and_then(unb64)
        .and_then(|raw| crypto::parse_fingerprint(&raw));
    if let Some((crc, _)) = stated {
        let real =
            crypto::fingerprint_crc(size, |at, len| read(at, len as u64).unwrap_or_default());
        if real != crc {
            wrong.push(format!(
                "fingerprint of {size} bytes does not match the content"
            ));
        }
    }
    wrong
}
