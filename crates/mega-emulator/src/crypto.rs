//! Owns the arithmetic of protocol/02 to 04 as the emulator needs it: key derivation, key wrapping,
//! attributes, content, MACs and fingerprints. Written from the protocol text alone; it must never
//! borrow from the client crates, because an emulator that shares their mistakes proves nothing.

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit, KeyIvInit};
use ctr::cipher::{StreamCipher, StreamCipherSeek};
use sha2::Sha512;

/// Sixteen bytes: an AES key or block.
pub(crate) type Block = [u8; 16];

/// An AES-128 key schedule.
pub(crate) fn aes(key: &Block) -> Aes128 {
    Aes128::new(&(*key).into())
}

/// Encrypts one block.
pub(crate) fn encrypt_block(cipher: &Aes128, block: &mut Block) {
    let mut b = (*block).into();
    cipher.encrypt_block(&mut b);
    *block = b.into();
}

/// Decrypts one block.
pub(crate) fn decrypt_block(cipher: &Aes128, block: &mut Block) {
    let mut b = (*block).into();
    cipher.decrypt_block(&mut b);
    *block = b.into();
}

/// `a` XOR `b`.
pub(crate) fn xor(a: &Block, b: &Block) -> Block {
    std::array::from_fn(|i| a.get(i).copied().unwrap_or(0) ^ b.get(i).copied().unwrap_or(0))
}

/// The block at the start of `data`, zero padded.
pub(crate) fn block_at(data: &[u8]) -> Block {
    let mut out = [0; 16];
    for (o, i) in out.iter_mut().zip(data) {
        *o = *i;
    }
    out
}

fn blocks(data: &[u8]) -> impl Iterator<Item = Block> + '_ {
    data.chunks(16).map(block_at)
}

/// AES-ECB over whole blocks; a short last block is zero padded.
pub(crate) fn ecb_encrypt(key: &Block, data: &[u8]) -> Vec<u8> {
    let cipher = aes(key);
    blocks(data)
        .flat_map(|mut b| {
            encrypt_block(&cipher, &mut b);
            b
        })
        .collect()
}

/// Inverse of [`ecb_encrypt`].
pub(crate) fn ecb_decrypt(key: &Block, data: &[u8]) -> Vec<u8> {
    let cipher = aes(key);
    blocks(data)
        .flat_map(|mut b| {
            decrypt_block(&cipher, &mut b);
            b
        })
        .collect()
}

/// Password key of a version 1 account (protocol/02 section 3): UTF-16 code units, not UTF-8.
pub(crate) fn password_key_v1(password: &str) -> Block {
    let units: Vec<u16> = password.encode_utf16().collect();
    let mut words = vec![0_u32; units.len().div_ceil(4)];
    for (j, c) in units.iter().enumerate() {
        if let Some(w) = words.get_mut(j / 4) {
            *w |= (u64::from(*c) << (24 - 8 * (j % 4))) as u32;
        }
    }
    let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
    bytes.resize(units.len().div_ceil(16) * 16, 0);
    stretch_v1(&bytes)
}

fn stretch_v1(keys: &[u8]) -> Block {
    let ciphers: Vec<Aes128> = blocks(keys).map(|k| aes(&k)).collect();
    let mut p = 0x93C4_67E3_7DB0_C7A4_D1BE_3F81_0152_CB56_u128.to_be_bytes();
    for _ in 0..65536 {
        for c in &ciphers {
            encrypt_block(c, &mut p);
        }
    }
    p
}

/// `uh` of a version 1 account (protocol/02 section 3), raw eight bytes.
pub(crate) fn user_hash_v1(email: &str, key: &Block) -> Vec<u8> {
    let mut h = [0_u8; 16];
    for (i, b) in email.bytes().enumerate() {
        if let Some(x) = h.get_mut(i % 16) {
            *x ^= b;
        }
    }
    let cipher = aes(key);
    for _ in 0..16384 {
        encrypt_block(&cipher, &mut h);
    }
    let [a, b, c, d, _, _, _, _, e, f, g, i, ..] = h;
    vec![a, b, c, d, e, f, g, i]
}

/// Derivation of a version 2 account: password key and auth key (protocol/02 section 4).
pub(crate) fn derive_v2(password: &str, salt: &[u8]) -> (Block, Block) {
    let mut out = [0_u8; 32];
    // The only error is an output length of zero.
    let _ = pbkdf2::pbkdf2::<hmac::Hmac<Sha512>>(password.as_bytes(), salt, 100_000, &mut out);
    (block_at(&out), block_at(out.get(16..).unwrap_or_default()))
}

/// A node key as decrypted from `k`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NodeKey {
    /// Sixteen bytes of a folder.
    Folder(Block),
    /// Transfer key, nonce and meta-MAC of a file.
    File {
        /// AES key of content and attributes.
        key: Block,
        /// High half of the counter.
        nonce: [u8; 8],
        /// Condensed MAC.
        mac: [u8; 8],
    },
}

impl NodeKey {
    /// From the 16 or 32 raw bytes (protocol/03 section 3).
    pub(crate) fn parse(raw: &[u8]) -> Option<Self> {
        match raw.len() {
            16 => Some(Self::Folder(block_at(raw))),
            32 => {
                let (x, tail) = raw.split_at(16);
                let (nonce, mac) = tail.split_at(8);
                Some(Self::File {
                    key: xor(&block_at(x), &block_at(tail)),
                    nonce: nonce.try_into().ok()?,
                    mac: mac.try_into().ok()?,
                })
            }
            _ => None,
        }
    }

    /// The raw bytes.
    pub(crate) fn raw(&self) -> Vec<u8> {
        match self {
            Self::Folder(k) => k.to_vec(),
            Self::File { key, nonce, mac } => {
                let tail = [*nonce, *mac].concat();
                let mut out = xor(key, &block_at(&tail)).to_vec();
                out.extend_from_slice(&tail);
                out
            }
        }
    }

    /// The AES key of attributes.
    pub(crate) fn aes_key(&self) -> Block {
        match self {
            Self::Folder(k) => *k,
            Self::File { key, .. } => *key,
        }
    }
}

/// Encrypts an attribute text (`{"n":...}`) with the minimal zero padding.
pub(crate) fn seal_attributes(key: &Block, json: &str) -> Vec<u8> {
    let cipher = aes(key);
    let plain = [b"MEGA", json.as_bytes()].concat();
    let mut last = [0; 16];
    blocks(&plain)
        .flat_map(|b| {
            last = xor(&b, &last);
            encrypt_block(&cipher, &mut last);
            last
        })
        .collect()
}

/// Decrypts attributes to the raw padded plaintext.
pub(crate) fn open_attributes(key: &Block, data: &[u8]) -> Vec<u8> {
    let cipher = aes(key);
    let mut last = [0; 16];
    blocks(data)
        .flat_map(|b| {
            let mut d = b;
            decrypt_block(&cipher, &mut d);
            let plain = xor(&d, &last);
            last = b;
            plain
        })
        .collect()
}

/// The JSON text inside decrypted attributes, `None` when the marker is missing.
pub(crate) fn attribute_text(plain: &[u8]) -> Option<String> {
    let body = plain.strip_prefix(b"MEGA")?;
    let end = body.iter().position(|b| *b == 0).unwrap_or(body.len());
    let body = body.get(..end)?;
    body.starts_with(b"{")
        .then(|| String::from_utf8_lossy(body).into_owned())
}

/// Applies the CTR key stream of a file at byte `offset`.
pub(crate) fn ctr(key: &Block, nonce: &[u8; 8], offset: u64, data: &mut [u8]) {
    let mut iv = [0; 16];
    for (o, i) in iv.iter_mut().zip(nonce) {
        *o = *i;
    }
    let mut cipher = ctr::Ctr128BE::<Aes128>::new(&(*key).into(), &iv.into());
    cipher.seek(offset);
    cipher.apply_keystream(data);
}

/// Length of chunk number `i`, counted from 0 (protocol/04 section 3).
pub(crate) fn chunk_length(i: u64) -> u64 {
    131_072 * (i + 1).min(8)
}

/// The chunk that contains `offset`: its start and nominal length.
pub(crate) fn chunk_of(offset: u64) -> (u64, u64) {
    const TAIL: u64 = 4_718_592;
    if offset >= TAIL {
        let start = TAIL + (offset - TAIL) / 1_048_576 * 1_048_576;
        return (start, 1_048_576);
    }
    let mut start = 0;
    for i in 0..8 {
        let len = chunk_length(i);
        if offset < start + len {
            return (start, len);
        }
        start += len;
    }
    (start, 1_048_576)
}

/// Whether `offset` starts a chunk.
pub(crate) fn is_boundary(offset: u64) -> bool {
    chunk_of(offset).0 == offset
}

/// All chunks of a file of `size` bytes as (start, length).
pub(crate) fn chunks(size: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= size {
            return None;
        }
        let (start, len) = chunk_of(at);
        at = start + len;
        Some((start, len.min(size - start)))
    })
}

/// MAC of one chunk of plaintext.
pub(crate) fn chunk_mac(cipher: &Aes128, nonce: &[u8; 8], plain: &[u8]) -> Block {
    let mut m = block_at(&[*nonce, *nonce].concat());
    let mut whole = plain.chunks_exact(16);
    for b in &mut whole {
        m = xor(&m, &block_at(b));
        encrypt_block(cipher, &mut m);
    }
    if !whole.remainder().is_empty() {
        m = xor(&m, &block_at(whole.remainder()));
        encrypt_block(cipher, &mut m);
    }
    m
}

/// Folds chunk MACs, in file order, to the eight bytes of the key.
pub(crate) fn meta_mac(cipher: &Aes128, macs: impl IntoIterator<Item = Block>) -> [u8; 8] {
    let mut c = [0; 16];
    for m in macs {
        c = xor(&c, &m);
        encrypt_block(cipher, &mut c);
    }
    let [a, b, d, e, f, g, h, i, j, k, l, m, n, o, p, q] = c;
    [a ^ f, b ^ g, d ^ h, e ^ i, j ^ n, k ^ o, l ^ p, m ^ q]
}

/// Meta-MAC of a whole plaintext.
#[cfg(test)]
pub(crate) fn file_mac(key: &Block, nonce: &[u8; 8], plain: &[u8]) -> [u8; 8] {
    let cipher = aes(key);
    let macs: Vec<Block> = chunks(plain.len() as u64)
        .map(|(start, len)| {
            let piece = plain
                .get(start as usize..(start + len) as usize)
                .unwrap_or_default();
            chunk_mac(&cipher, nonce, piece)
        })
        .collect();
    meta_mac(&cipher, macs)
}

/// Standard CRC-32, as zlib.
pub(crate) fn crc32(seed: u32, data: &[u8]) -> u32 {
    let mut c = !seed;
    for b in data {
        c ^= u32::from(*b);
        for _ in 0..8 {
            c = if c & 1 == 1 {
                (c >> 1) ^ 0xEDB8_8320
            } else {
                c >> 1
            };
        }
    }
    !c
}

/// The sparse CRC of protocol/03 section 8; `read` returns plaintext at (offset, length).
pub(crate) fn fingerprint_crc(size: u64, mut read: impl FnMut(u64, usize) -> Vec<u8>) -> Block {
    if size <= 16 {
        return block_at(&read(0, size as usize));
    }
    let mut out = [0_u8; 16];
    for (lane, slot) in (0_u64..).zip(out.chunks_exact_mut(4)) {
        let crc = if size <= 8192 {
            let (from, to) = (lane * size / 4, (lane + 1) * size / 4);
            crc32(0, &read(from, (to - from) as usize))
        } else {
            (0..32_u64).fold(0, |c, j| {
                let at = u128::from(size - 64) * u128::from(32 * lane + j) / 127;
                crc32(c, &read(at as u64, 64))
            })
        };
        slot.copy_from_slice(&crc.to_be_bytes());
    }
    out
}

/// Attribute `c` from its two parts, raw.
pub(crate) fn fingerprint(crc: &Block, mtime: i64) -> Vec<u8> {
    let bytes = mtime.to_le_bytes();
    let significant = 8 - bytes.iter().rev().take_while(|b| **b == 0).count();
    let mut out = crc.to_vec();
    out.push(significant as u8);
    out.extend_from_slice(bytes.get(..significant).unwrap_or_default());
    out
}

/// Splits attribute `c` into crc and mtime, `None` when malformed.
pub(crate) fn parse_fingerprint(raw: &[u8]) -> Option<(Block, i64)> {
    let (crc, rest) = raw.split_at_checked(16)?;
    let (len, rest) = rest.split_first()?;
    let value = rest.get(..usize::from(*len))?;
    if value.len() > 8 {
        return None;
    }
    let mut bytes = [0; 8];
    for (o, i) in bytes.iter_mut().zip(value) {
        *o = *i;
    }
    Some((block_at(crc), i64::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{b64, hex, unb64, unhex};

    fn generated(size: u64) -> Vec<u8> {
        (0..size).map(|i| ((i * 7 + 3) % 251) as u8).collect()
    }

    // Known answers of protocol/07, so that both sides rest on the same independent values.
    #[test]
    fn password_keys() {
        assert_eq!(
            hex(&password_key_v1("")),
            "93c467e37db0c7a4d1be3f810152cb56"
        );
        assert_eq!(
            hex(&password_key_v1("password")),
            "640339725e6ebd13a25f0052129f7cb1"
        );
        assert_eq!(
            hex(&password_key_v1("p\u{e4}ssw\u{f6}rd")),
            "f38493e354193dd028c8ed07d52c7a25"
        );
        let wide = "a\u{e9}\u{65e5}\u{1f600}z";
        assert_eq!(
            hex(&password_key_v1(wide)),
            "ed4dddc70c07d3b98a39529b3fe759f6"
        );
        let uh = user_hash_v1("user@example.com", &password_key_v1("password"));
        assert_eq!(b64(&uh), "hcVR9BZsYoY");
        let salt = unb64("ryrOR-LuQKAy-lV-_yw2Biw4BwK1bU6Y405_v8lef0M").unwrap();
        let (key, auth) = derive_v2("password", &salt);
        assert_eq!(hex(&key), "9eb9729c37014c42d95472596deae75a");
        assert_eq!(b64(&auth), "STeGmJEa7_Jfwxj2P-PMeQ");
    }

    #[test]
    fn macs() {
        let key = block_at(&unhex("f68931eb784d74c7f92f024e4e9c095b").unwrap());
        let nonce = unhex("beadaa19d3a655b7").unwrap().try_into().unwrap();
        for (size, mac) in [
            (0, "0000000000000000"),
            (1, "5cb470f42c4465b1"),
            (15, "d7cf6ae7297465cc"),
            (16, "ab2f5638eaecb282"),
            (17, "582a866ada5d9a6b"),
            (100, "437a3da521c9ddc4"),
            (131071, "bb1f504cde1877d5"),
            (131072, "d289503a183fff20"),
            (131073, "d60eadde17f42134"),
            (393216, "c19a99d1c82d5790"),
            (400000, "a14553f8a5e377a1"),
            (1048576, "ef8743a1556de0e3"),
            (3670016, "0d32fe8749961e88"),
            (4718592, "f115528dd7e43043"),
            (4718593, "377cef84af244475"),
        ] {
            let plain = generated(size);
            assert_eq!(hex(&file_mac(&key, &nonce, &plain)), mac, "{size} bytes");
        }
        let mut data = generated(33);
        ctr(&key, &nonce, 0, &mut data);
        assert_eq!(hex(&data[..17]), "3f17d6167b3949d6f68979f111a9d234b1");
        let mut part = generated(33)[5..].to_vec();
        ctr(&key, &nonce, 5, &mut part);
        assert_eq!(part, &data[5..]);
    }

    #[test]
    fn fingerprints() {
        for (size, c) in [
            (0, "AAAAAAAAAAAAAAAAAAAAAAQA8VNl"),
            (1, "AwAAAAAAAAAAAAAAAAAAAAQA8VNl"),
            (15, "AwoRGB8mLTQ7QklQV15lAAQA8VNl"),
            (16, "AwoRGB8mLTQ7QklQV15lbAQA8VNl"),
            (17, "ftNOYhRgDN0_oFyqKZuRsQQA8VNl"),
            (18, "ftNOYpt_yMwgpmDmuPYB1QQA8VNl"),
            (100, "pafUNxMnxn7zEVps4KL8ogQA8VNl"),
            (1000, "ZOPSOAZNP7FA_1BeKy6-_wQA8VNl"),
            (8191, "DqXAdU4I-wQXFRRmwkqCbAQA8VNl"),
            (8192, "lghnPsN_RctXxs9dwlNBIQQA8VNl"),
            (8193, "lghnPsN_RctXxs9dNla37AQA8VNl"),
            (8256, "MNo6_7iybcXIaT-IFUs-CQQA8VNl"),
            (20000, "3cOb8AONfqrGJd1Ky6Xu_QQA8VNl"),
            (131072, "FvHD8Gfu7dcM5F1rGfaq6AQA8VNl"),
            (1000003, "RrsfKFO-qwgHW4mqWQZxYwQA8VNl"),
        ] {
            let data = generated(size);
            let crc = fingerprint_crc(size, |at, len| {
                data[at as usize..at as usize + len].to_vec()
            });
            assert_eq!(b64(&fingerprint(&crc, 1_700_000_000)), c, "{size} bytes");
            assert_eq!(
                parse_fingerprint(&unb64(c).unwrap()),
                Some((crc, 1_700_000_000))
            );
        }
        for mtime in [0, 1, 255, 256, -1, i64::MAX, i64::MIN] {
            let raw = fingerprint(&[7; 16], mtime);
            assert_eq!(parse_fingerprint(&raw), Some(([7; 16], mtime)));
        }
    }

    #[test]
    fn handle_auth() {
        let mk = block_at(&unhex("03b498048f02921c82f98c7e69c73e80").unwrap());
        assert_eq!(
            b64(&ecb_encrypt(&mk, b"abcdEFGHabcdEFGH")),
            "bIGLDrlU-ruuBg1Q9MjJRA"
        );
    }

    #[test]
    fn rsa_of_a_session() {
        let sid254 = unhex(
            "6a716bded2716c81d6b738eefc1c5b784b626f63623551367469346d22a449e5bb9f66c6234836a5\
             a99733cc01d38d197f0d46ec1cfe890ff86a06135e51ca6f7253c057c48be880e298b049a35b22c2\
             ff030cf6de491177d00d53af38877ae1c7b9d9e9cfb5a7412887b73903a88e380e635cc63166fa75\
             3ebfeabac4482131f39b933599d19011b5a8073a17579ae8e9e0f1ef725594df94d006639aec8272\
             3836ce5d34e3b2735ef12d24c1629a3bd54627efc265595c1cc751d2f4b906caf37bb0f12d158431\
             d801b112e37819f31283b3f4dc6af802f2346d21eaa5d332daa374fa5adbaf15a323a0d6df3dcad3\
             628e22a430be5cad7826b981a5ed",
        );
        let pair = crate::rsa::KeyPair::embedded(0).unwrap();
        let c = crate::rsa::encrypt(&pair.public_blob(), &sid254.unwrap()).unwrap();
        assert_eq!(
            b64(&c),
            "B_9TpC_SZWOXAVmjK6UUWaZeuGpX2PnGaJdwAvARYa04W1x9EnnkmYTu-BKwlC9ONDXO0dZFpfP4HGJR\
             bRuUUJBddcoB7NTYsdfN9p79v7n5XCAiMSoRe1kipcG7lRweJSLdM7Lb1DhnP9wavY4_VybYCz1y0XCq\
             TdsJ_oQhgirUgmj-LedXE08KgE4N-hJuFd0RwqR-RiURqmD3Vd3mzlQM_6Cl6JNlQX5F3StiJVDt_awj\
             Syek94sHSeXR0xnFcoq7A-6HM9MgeoNBF0135qMrAv5I4jTUSsiBpqQzyR1g5dFwUkO-pqI0hkenUHhC\
             bW83Ks72PDcY0gZH2B2oBQ89"
        );
    }

    #[test]
    fn hashcash() {
        let token = "RUvIePV2PNO8ofg8xp1aT5ugBcKSEzwKoLBw9o4E6F_fmn44eC3oMpv388UtFl2K";
        assert!(crate::commands::login::hashcash_holds(token, "AQAAAA", 255));
        assert!(crate::commands::login::hashcash_holds(token, "CQAAAA", 200));
        assert!(!crate::commands::login::hashcash_holds(token, "AQAAAA", 1));
    }
}
