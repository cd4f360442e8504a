//! Megabytes per second of one core, for content encryption and what it is made of.
//!
//! Run by `scripts/bench-crypto` (`cargo bench -p mega-crypto`). Times are CPU time of the thread,
//! so a busy machine disturbs less than it would by the clock; each figure is the median of 15
//! rounds, and the rounds of all contenders are interleaved. "Naive" is what a client does that
//! takes one chunk after the other: the CTR keystream by the `ctr` crate, then a CBC-MAC block by
//! block.
//!
//! What to expect. A byte pays twice for AES, once for CTR and once for its MAC, so "half of CTR
//! alone" is the bound of any way of doing it with the same instructions. Where a processor starts
//! one AES round a cycle and finishes it after four (Skylake to Cascade Lake: aes, no vaes) the
//! naive way costs (4 + 1) * 10 cycles a block and the bound is 2 * 10: a factor of 2.5, little
//! more with the naive way's own losses. Where it starts two a cycle (Ice Lake and later, Zen) the
//! bound is 3.5 to 5.
//!
//! Seen on 2026-11-22, Xeon without vaes, machine busy with other builds (load 3 to 5), three
//! runs, MB/s: naive 650-758, encrypt + MAC 1686-2170, decrypt + MAC 1658-2075 (2.6-2.9 times
//! naive), CTR alone 3250-4046, eight chains 3489-4273, one chain 1053-1130, memcpy 4149-4841.
//! Seen on 2026-11-26, a processor with vaes, load 8: naive 303, encrypt + MAC 2792 (9.2 times naive),
//! decrypt + MAC 2142, CTR alone 5000, eight chains 7294, one chain 1380. There the naive way suffers from
//! one call of the crate per block; a serial MAC as fast as "one chain", after CTR, would reach
//! 1080, and encrypt + MAC is 2.6 times that.
//! The same loops over aes 0.8 / ctr 0.9 and over aes 0.9 / ctr 0.10, interleaved, 8 rounds on
//! that machine: eight chains 2670-3939 and 3123-4031, encrypt + MAC 1298-1841 and 1556-1861, CTR
//! 2950-3478 and 3038-3491. No difference beyond the noise; 0.9 is used, which also knows vaes.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::hint::black_box;

use aes::cipher::{BlockCipherEncrypt, KeyInit, KeyIvInit, StreamCipher};
use aes::{Aes128, Block};
use mega_crypto::{
    Attributes, ContentCipher, ContentKey, FileKey, KeyRing, MasterKey, NodeKey, Nonce, WrapKey,
    chunk_start, decrypt_listing, upload_checksum,
};
use mega_proto::b64;
use rustix::time::{ClockId, clock_gettime};

const MIB: usize = 1 << 20;
const ROUNDS: usize = 15;
const KEY: [u8; 16] = [7; 16];
const NONCE: [u8; 8] = [3; 8];

/// CPU time of this thread, in seconds.
fn cpu_seconds() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

/// Something measured: its name, how many units one round handles, and the round.
struct Contender<'a> {
    name: &'static str,
    units: f64,
    round: Box<dyn FnMut() + 'a>,
    seconds: Vec<f64>,
}

impl<'a> Contender<'a> {
    fn new(name: &'static str, units: usize, round: impl FnMut() + 'a) -> Self {
        Self {
            name,
            units: units as f64,
            round: Box::new(round),
            seconds: Vec::new(),
        }
    }

    fn run(&mut self) {
        let start = cpu_seconds();
        (self.round)();
        self.seconds.push(cpu_seconds() - start);
    }

    /// Units per second in the median round.
    fn rate(&mut self) -> f64 {
        self.seconds.sort_by(f64::total_cmp);
        self.units / self.seconds[self.seconds.len() / 2]
    }
}

fn naive_ctr(offset: u64, data: &mut [u8]) {
    let mut counter = [0; 16];
    counter[..8].copy_from_slice(&NONCE);
    counter[8..].copy_from_slice(&(offset / 16).to_be_bytes());
    ctr::Ctr64BE::<Aes128>::new(&KEY.into(), &counter.into()).apply_keystream(data);
}

fn naive_mac(aes: &Aes128, chunk: &[u8]) -> Block {
    let mut state = Block::from([3; 16]);
    for block in chunk.as_chunks::<16>().0 {
        for (byte, plain) in state.iter_mut().zip(block) {
            *byte ^= plain;
        }
        aes.encrypt_block(&mut state);
    }
    state
}

fn naive_encrypt(aes: &Aes128, start: u64, data: &mut [u8]) {
    for (index, chunk) in data.chunks_mut(MIB).enumerate() {
        black_box(naive_mac(aes, chunk));
        naive_ctr(start + (index * MIB) as u64, chunk);
    }
}

fn measure(contenders: &mut [Contender<'_>]) {
    for contender in &mut *contenders {
        (contender.round)();
    }
    for _ in 0..ROUNDS {
        for contender in &mut *contenders {
            contender.run();
        }
    }
}

fn content(mib: usize) {
    let aes = Aes128::new(&KEY.into());
    let cipher = ContentCipher::new(&ContentKey::from_bytes(KEY), &Nonce::from_bytes(NONCE));
    let size = mib * MIB;
    let steady = chunk_start(8);
    // Every contender works on the same bytes, one after the other.
    let data = std::cell::RefCell::new(vec![5; size]);
    let copy = std::cell::RefCell::new(vec![6; size]);
    let mut contenders = [
        Contender::new("memcpy, for scale", size, || {
            copy.borrow_mut().copy_from_slice(&data.borrow());
            black_box(&copy);
        }),
        Contender::new("CTR alone", size, || {
            cipher.apply(steady, &mut data.borrow_mut())
        }),
        Contender::new("CBC-MAC, one chain", size, || {
            for chunk in data.borrow().chunks(MIB) {
                black_box(cipher.chunk_mac(chunk));
            }
        }),
        Contender::new("CBC-MAC, eight chains", size, || {
            let data = data.borrow();
            black_box(cipher.chunk_macs(&data.chunks(MIB).collect::<Vec<_>>()));
        }),
        Contender::new("upload checksum", size, || {
            black_box(upload_checksum(&data.borrow()));
        }),
        Contender::new("naive CTR + serial MAC", size, || {
            naive_encrypt(&aes, steady, &mut data.borrow_mut());
        }),
        Contender::new("encrypt + MAC", size, || {
            black_box(cipher.encrypt_chunks(steady, &mut data.borrow_mut()));
        }),
        Contender::new("decrypt + MAC", size, || {
            black_box(cipher.decrypt_chunks(steady, &mut data.borrow_mut()));
        }),
        Contender::new("encrypt + MAC, head of a file", size, || {
            black_box(cipher.encrypt_chunks(0, &mut data.borrow_mut()));
        }),
    ];
    measure(&mut contenders);
    println!("{mib} MiB of content, MB/s of one core:");
    let mut rate_of = |name: &str| {
        contenders
            .iter_mut()
            .find(|contender| contender.name == name)
            .unwrap()
            .rate()
    };
    let naive = rate_of("naive CTR + serial MAC");
    // With one AES unit that is never idle, a byte pays for CTR and for a chain that never waits.
    let unit = rate_of("CTR alone") / 2.0;
    for contender in &mut contenders {
        let rate = contender.rate();
        println!(
            "  {:32} {:8.0}   {:5.2} x naive",
            contender.name,
            rate / 1e6,
            rate / naive
        );
    }
    println!(
        "  {:32} {:8.0}   {:5.2} x naive",
        "(half of CTR alone)",
        unit / 1e6,
        unit / naive
    );
}

fn directories() {
    const NODES: usize = 20_000;
    let master = MasterKey::from_bytes(KEY);
    let nodes: Vec<(String, String)> = (0..NODES)
        .map(|index| {
            let mut key = [9; 32];
            key[..8].copy_from_slice(&(index as u64).to_le_bytes());
            let key = NodeKey::File(FileKey::from_bytes(key));
            let mut attributes = Attributes::with_name(&format!("a photograph {index}.jpeg"));
            attributes.set("c", "mvaYSWvDxAwhDMIMh83aNwQA8VNl");
            let blob = attributes.encrypt(&key.attr_key()).unwrap();
            let k = format!("Kbocb5Q6ti4:{}", b64::encode(&master.wrap_node_key(&key)));
            (k, b64::encode(&blob))
        })
        .collect();
    let ring = KeyRing::new(master, Some("Kbocb5Q6ti4".to_owned()), None);
    let mut contenders = [
        Contender::new("find a node's key", NODES, || {
            for (k, a) in &nodes {
                black_box(ring.resolve(k, false, Some(a)).unwrap());
            }
        }),
        Contender::new("and its name and mtime", NODES, || {
            for (k, a) in &nodes {
                let found = ring.resolve(k, false, Some(a)).unwrap();
                let blob = b64::decode(a).unwrap();
                black_box(decrypt_listing(&found.key.attr_key(), &blob).unwrap());
            }
        }),
        Contender::new("and all its attributes", NODES, || {
            for (k, a) in &nodes {
                let found = ring.resolve(k, false, Some(a)).unwrap();
                let blob = b64::decode(a).unwrap();
                black_box(Attributes::decrypt(&found.key.attr_key(), &blob).unwrap());
            }
        }),
    ];
    measure(&mut contenders);
    println!("{NODES} nodes, thousands per second of one core:");
    for contender in &mut contenders {
        let rate = contender.rate() / 1e3;
        println!("  {:32} {rate:8.0}", contender.name);
    }
}

fn main() {
    #[cfg(target_arch = "x86_64")]
    println!(
        "processor: aes {}, vaes {}",
        std::arch::is_x86_feature_detected!("aes"),
        std::arch::is_x86_feature_detected!("vaes")
    );
    content(8);
    content(32);
    directories();
}
