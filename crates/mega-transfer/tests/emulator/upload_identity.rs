//! Telling whether local bytes are what a node contains.

use std::sync::Arc;

use mega_crypto::{FileKey, MetaMac};
use mega_emulator::pattern;
use mega_transfer::{MemoryBudget, TransferError, TransferLimits, Uploads};

use crate::support::{MIB, Memory, SIZES, World, limits};

async fn matches(world: &World, data: &[u8], key: &FileKey) -> bool {
    let source = Arc::new(Memory(data.into()));
    world.uploads.matches(source, key).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_match_and_others_do_not() {
    let small = TransferLimits {
        memory: MemoryBudget::new(16 * MIB),
        ..limits()
    };
    let world = World::with(small, mega_store::StoreOptions::default()).await;
    for size in SIZES.into_iter().chain([40 * MIB + 3]) {
        let data = pattern(size, 0, size);
        let uploaded = world.upload(data.clone().into()).await.unwrap();
        assert!(matches(&world, &data, &uploaded.key).await, "{size}");
        let source = Memory(data.clone().into());
        assert_eq!(
            Uploads::fingerprint_crc(&source).unwrap(),
            uploaded.fingerprint_crc
        );
        for at in [0, size / 2, size.saturating_sub(1)] {
            let mut other = data.clone();
            let Some(byte) = other.get_mut(usize::try_from(at).unwrap()) else {
                continue;
            };
            *byte ^= 1;
            assert!(
                !matches(&world, &other, &uploaded.key).await,
                "{size} at {at}"
            );
        }
        let (key, nonce) = (uploaded.key.aes_key(), uploaded.key.nonce());
        let other = FileKey::from_parts(&key, &nonce, &MetaMac::from_bytes([1; 8]));
        assert_eq!(matches(&world, &data, &other).await, size == 0, "{size}");
    }
    world.finish().await;
}

struct Unreadable;

impl mega_transfer::SealedSource for Unreadable {
    fn size(&self) -> u64 {
        5 * MIB
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
        Err(std::io::Error::other("lost"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_is_no_match() {
    let world = World::new().await;
    let key = FileKey::from_bytes([7; 32]);
    let ended = world.uploads.matches(Arc::new(Unreadable), &key).await;
    assert!(matches!(ended, Err(TransferError::Source(_))));
    world.finish().await;
}
