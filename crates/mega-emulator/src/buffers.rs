//! Owns large request bodies that nobody keeps, for the next request: a fresh buffer of some MiB costs
//! more than receiving into it, because the kernel has to find and clear its pages.

use std::sync::{Mutex, PoisonError};

/// Smaller ones are not worth keeping.
const SMALLEST: usize = 256 << 10;
/// Most bytes kept.
const MOST: usize = 64 << 20;

/// Buffers nobody uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// An empty buffer, with room for `length` bytes if there was one.
    pub(crate) fn take(&self, length: u64) -> Vec<u8> {
        let fits = |b: &&mut Vec<u8>| length >= SMALLEST as u64 && b.capacity() as u64 >= length;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter_mut().filter(fits).min_by_key(|b| b.capacity());
        let taken = found.map(std::mem::take).unwrap_or_default();
        all.retain(|b| b.capacity() > 0);
        taken
    }

    /// A buffer whose bytes are no longer wanted.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: usize = all.iter().map(Vec::capacity).sum();
        if buffer.capacity() >= SMALLEST && kept + buffer.capacity() <= MOST {
            buffer.clear();
            all.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_are_bounded() {
        let buffers = Buffers::default();
        let kept = |b: &Buffers| b.0.lock().unwrap().len();
        buffers.give(vec![1; 1 << 20]);
        buffers.give(vec![1; 2 << 20]);
        buffers.give(vec![1; 1 << 10]);
        assert_eq!(kept(&buffers), 2);
        assert_eq!(buffers.take(1 << 10).capacity(), 0);
        let smaller = buffers.take(1 << 19);
        assert_eq!((smaller.len(), smaller.capacity()), (0, 1 << 20));
        assert_eq!(buffers.take(3 << 20).capacity(), 0);
        assert_eq!(kept(&buffers), 1);
        (0..40).for_each(|_| buffers.give(Vec::with_capacity(2 << 20)));
        assert_eq!(kept(&buffers), 32);
    }
}
