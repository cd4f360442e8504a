//! Owns generated trees: millions of nodes that exist only as arithmetic. A region is a tree of
//! folders (fan-out `fanout`) with `files_per_folder` files in each; handle, key, name, size, mtime
//! and content of every node follow from the region's seed and the node's number.
//!
//! The trick: a file's key contains the MAC of its content, which would have to be computed for
//! every node of `f`. Instead the chunk MACs are chosen first (one AES each) and the content is
//! made to fit when it is read: a CBC-MAC can be steered to any value through one block by who
//! knows the key. So a listing costs a microsecond per node and downloads still verify.

use serde::{Deserialize, Serialize};

use crate::codec::Handle;
use crate::crypto::{self, Block, NodeKey};

/// A generated tree, as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Region {
    /// First half of the handle permutation; unique, never 0.
    pub(crate) id: u16,
    /// Folder below which the tree hangs.
    pub(crate) parent: Handle,
    /// Owner handle.
    pub(crate) user: String,
    /// Number of folders.
    pub(crate) folders: u32,
    /// Sub-folders per folder.
    pub(crate) fanout: u32,
    /// Files directly in each folder.
    pub(crate) files_per_folder: u32,
    /// Largest file size in bytes, 0 for empty files only; sizes are spread below it.
    pub(crate) max_size: u64,
    /// Everything follows from this.
    pub(crate) seed: u64,
    /// Creation time.
    pub(crate) ts: i64,
}

/// What can be said about a generated node without its owner's master key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Facts {
    /// Parent handle.
    pub(crate) parent: Handle,
    /// 0 file, 1 folder.
    pub(crate) kind: u8,
    /// Bytes, 0 for folders.
    pub(crate) size: u64,
}

impl Region {
    /// Number of nodes.
    pub(crate) fn len(&self) -> u32 {
        self.folders
            .saturating_add(self.folders.saturating_mul(self.files_per_folder))
    }

    /// Handle of node `index`.
    pub(crate) fn handle(&self, index: u32) -> Handle {
        Handle::of(self.id, index)
    }

    /// Parent, type and size of node `index`, `None` beyond the end.
    pub(crate) fn facts(&self, index: u32) -> Option<Facts> {
        if index >= self.len() {
            return None;
        }
        if index < self.folders {
            let parent = match index.checked_sub(1) {
                _ if self.fanout == 0 => self.parent,
                None => self.parent,
                Some(i) => self.handle(i / self.fanout),
            };
            return Some(Facts {
                parent,
                kind: 1,
                size: 0,
            });
        }
        let folder = (index - self.folders) / self.files_per_folder.max(1);
        Some(Facts {
            parent: self.handle(folder),
            kind: 0,
            size: self.size(index),
        })
    }

    /// Numbers of the children of folder `index`.
    pub(crate) fn children(&self, index: u32) -> impl Iterator<Item = u32> + use<> {
        let is_folder = index < self.folders;
        let first = index.saturating_mul(self.fanout).saturating_add(1);
        let folders = first.min(self.folders)..first.saturating_add(self.fanout).min(self.folders);
        let base = self
            .folders
            .saturating_add(index.saturating_mul(self.files_per_folder));
        let files = base..base.saturating_add(self.files_per_folder);
        let (folders, files) = if is_folder {
            (folders, files)
        } else {
            (0..0, 0..0)
        };
        folders.chain(files)
    }

    /// Numbers of the top folders: one with a fan-out, all of them without.
    pub(crate) fn tops(&self) -> std::ops::Range<u32> {
        0..if self.fanout == 0 {
            self.folders
        } else {
            self.folders.min(1)
        }
    }

    fn size(&self, index: u32) -> u64 {
        if self.max_size == 0 {
            return 0;
        }
        // Small sizes are common, large ones rare, as in real accounts.
        let r = mix(self.seed ^ u64::from(index).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let scale = (r >> 60) as u32;
        let size = 16 + (r & 0xFFFF_FFFF) % (self.max_size >> scale.min(8)).max(1);
        // A last chunk below one block could not be steered to its MAC.
        let tail = size - crypto::chunk_of(size - 1).0;
        if tail < 16 { size + 16 } else { size }
    }

    /// The cipher everything follows from; made once for many nodes.
    pub(crate) fn cipher(&self) -> aes::Aes128 {
        let mut key = [0x6d; 16];
        for (o, i) in key.iter_mut().zip(self.seed.to_be_bytes()) {
            *o = i;
        }
        crypto::aes(&key)
    }

    fn material(&self, cipher: &aes::Aes128, index: u32, purpose: u8) -> Block {
        let mut b = [0; 16];
        for (o, i) in b.iter_mut().zip(
            index
                .to_be_bytes()
                .into_iter()
                .chain([purpose])
                .chain([self.id as u8]),
        ) {
            *o = i;
        }
        crypto::encrypt_block(cipher, &mut b);
        b
    }

    /// The node's key.
    pub(crate) fn key(&self, cipher: &aes::Aes128, index: u32) -> NodeKey {
        let key = self.material(cipher, index, 0);
        match self.facts(index) {
            Some(Facts { kind: 0, size, .. }) => {
                let file = GeneratedFile::new(self, cipher, index, key, size);
                NodeKey::File {
                    key,
                    nonce: file.nonce,
                    mac: file.mac(),
                }
            }
            _ => NodeKey::Folder(key),
        }
    }

    /// The attribute text.
    pub(crate) fn attributes(&self, cipher: &aes::Aes128, index: u32) -> String {
        if index < self.folders {
            return format!("{{\"n\":\"folder {index:06}\"}}");
        }
        let mtime = self.ts - 86_400 - i64::from(index % 1_000_000);
        let c = crypto::fingerprint(&self.material(cipher, index, 2), mtime);
        format!(
            "{{\"n\":\"file {index:07}.txt\",\"c\":\"{}\"}}",
            crate::codec::b64(&c)
        )
    }

    /// Content of file `index`.
    pub(crate) fn file(&self, index: u32) -> GeneratedFile {
        let cipher = self.cipher();
        let key = self.material(&cipher, index, 0);
        GeneratedFile::new(self, &cipher, index, key, self.size(index))
    }
}

const TEXT: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz 0123\n";

fn mix(mut v: u64) -> u64 {
    v = (v ^ (v >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    v = (v ^ (v >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    v ^ (v >> 31)
}

/// A file whose content is made to fit its key.
#[derive(Clone, Debug)]
pub(crate) struct GeneratedFile {
    key: Block,
    nonce: [u8; 8],
    salt: u64,
    size: u64,
}

impl GeneratedFile {
    fn new(region: &Region, cipher: &aes::Aes128, index: u32, key: Block, size: u64) -> Self {
        let m = region.material(cipher, index, 1);
        let [a, b, c, d, e, f, g, h, rest @ ..] = m;
        Self {
            key,
            nonce: [a, b, c, d, e, f, g, h],
            salt: u64::from_be_bytes(rest),
            size,
        }
    }

    /// The MAC wanted for the chunk at `start`.
    fn wanted(&self, cipher: &aes::Aes128, start: u64) -> Block {
        let mut b = [0; 16];
        for (o, i) in b
            .iter_mut()
            .zip(start.to_be_bytes().into_iter().chain(self.nonce))
        {
            *o = i;
        }
        crypto::encrypt_block(cipher, &mut b);
        b
    }

    fn mac(&self) -> [u8; 8] {
        let cipher = crypto::aes(&self.key);
        crypto::meta_mac(
            &cipher,
            crypto::chunks(self.size).map(|(start, _)| self.wanted(&cipher, start)),
        )
    }

    /// Plaintext of the chunk at `start`, steered to the wanted MAC through its last whole block.
    fn chunk(&self, start: u64, len: u64) -> Vec<u8> {
        let mut data: Vec<u8> = (start / 8..(start + len).div_ceil(8) + 1)
            .flat_map(|w| mix(self.salt ^ w).to_be_bytes())
            .map(|b| TEXT.get(usize::from(b & 31)).copied().unwrap_or(b' '))
            .skip((start % 8) as usize)
            .take(len as usize)
            .collect();
        let whole = data.len() / 16;
        let Some(at) = whole.checked_sub(1) else {
            return data;
        };
        let cipher = crypto::aes(&self.key);
        let (head, tail) = data.split_at(at * 16);
        let before = crypto::chunk_mac(&cipher, &self.nonce, head);
        let mut after = self.wanted(&cipher, start);
        let rest = tail.get(16..).unwrap_or_default();
        crypto::decrypt_block(&cipher, &mut after);
        if !rest.is_empty() {
            after = crypto::xor(&after, &crypto::block_at(rest));
            crypto::decrypt_block(&cipher, &mut after);
        }
        let block = crypto::xor(&after, &before);
        if let Some(slot) = data.get_mut(at * 16..at * 16 + 16) {
            slot.copy_from_slice(&block);
        }
        data
    }

    /// Plaintext of `[from, to)`.
    pub(crate) fn plaintext(&self, from: u64, to: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity((to - from) as usize);
        let mut at = from;
        while at < to {
            let (start, nominal) = crypto::chunk_of(at);
            let len = nominal.min(self.size - start);
            let chunk = self.chunk(start, len);
            let end = (start + len).min(to);
            out.extend_from_slice(
                chunk
                    .get((at - start) as usize..(end - start) as usize)
                    .unwrap_or_default(),
            );
            at = end;
        }
        out
    }

    /// Ciphertext of `[from, to)`.
    pub(crate) fn ciphertext(&self, from: u64, to: u64) -> Vec<u8> {
        let mut data = self.plaintext(from, to);
        crypto::ctr(&self.key, &self.nonce, from, &mut data);
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(fanout: u32, max_size: u64) -> Region {
        Region {
            id: 3,
            parent: Handle::of(0, 9),
            user: "abcdefghijk".into(),
            folders: 50,
            fanout,
            files_per_folder: 7,
            max_size,
            seed: 42,
            ts: 1_700_000_000,
        }
    }

    #[test]
    fn content_fits_its_key() {
        let r = region(4, 3_000_000);
        for index in r.folders..r.len() {
            let NodeKey::File { key, nonce, mac } = r.key(&r.cipher(), index) else {
                panic!("not a file")
            };
            let size = r.facts(index).unwrap().size;
            let plain = r.file(index).plaintext(0, size);
            assert_eq!(plain.len() as u64, size);
            assert_eq!(crypto::file_mac(&key, &nonce, &plain), mac, "{size} bytes");
            let middle = r.file(index).plaintext(size / 3, size / 2);
            assert_eq!(middle, &plain[(size / 3) as usize..(size / 2) as usize]);
        }
    }

    #[test]
    fn children_and_parents_agree() {
        for fanout in [0, 1, 4] {
            let r = region(fanout, 100);
            let mut seen: Vec<u32> = r.tops().collect();
            for f in 0..r.folders {
                for c in r.children(f) {
                    assert_eq!(r.facts(c).unwrap().parent, r.handle(f));
                    seen.push(c);
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..r.len()).collect::<Vec<_>>());
        }
    }
}
