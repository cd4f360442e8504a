//! Progress of `copy`: a bar for all of it, and one for each file on its way.

use std::sync::Mutex;
use std::sync::PoisonError;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};

use super::bars::{UPLOAD, lock, shortened, style};
use super::text::printable;

const ALL: &str =
    "{msg:.bold} {bar:20} {bytes:>10} / {total_bytes:10} {bytes_per_sec:>13} {eta:>4}";

/// The bars of a copy, until dropped; nothing where standard error is no terminal.
#[derive(Debug)]
pub(crate) struct CopyBars {
    all: MultiProgress,
    whole: ProgressBar,
    count: Mutex<(usize, usize)>,
}

/// The bar of one file.
#[derive(Debug)]
pub(crate) struct CopyBar<'a> {
    bars: &'a CopyBars,
    bar: ProgressBar,
    size: u64,
}

impl CopyBars {
    /// For so many files of so many bytes together.
    pub(crate) fn new(files: usize, bytes: u64) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        *lock() = Some(all.clone());
        let whole = all.add(ProgressBar::new(bytes).with_style(style(ALL)));
        let bars = Self {
            all,
            whole,
            count: Mutex::new((0, files)),
        };
        bars.name();
        bars
    }

    fn name(&self) {
        let (done, files) = *self.count.lock().unwrap_or_else(PoisonError::into_inner);
        self.whole.set_message(format!("{done} of {files}"));
    }

    /// A file begins.
    pub(crate) fn begin(&self, name: &str, size: u64) -> CopyBar<'_> {
        let bar = ProgressBar::new(size).with_style(style(UPLOAD));
        let bar = self.all.add(bar);
        bar.set_message(shortened(&printable(name)));
        CopyBar {
            bars: self,
            bar,
            size,
        }
    }

    /// Runs `print` while the bars are off the screen.
    pub(crate) fn aside(&self, print: impl FnOnce()) {
        self.all.suspend(print);
    }
}

impl Drop for CopyBars {
    fn drop(&mut self) {
        self.whole.finish_and_clear();
        *lock() = None;
    }
}

impl CopyBar<'_> {
    /// So many of its bytes are there.
    pub(crate) fn at(&self, bytes: u64) {
        let before = self.bar.position();
        let bytes = bytes.min(self.size);
        self.bar.set_position(bytes);
        if bytes >= before {
            self.bars.whole.inc(bytes - before);
        } else {
            self.bars.whole.dec(before - bytes);
        }
    }

    /// It is there.
    pub(crate) fn done(&self) {
        self.at(self.size);
        self.bars
            .count
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0 += 1;
        self.bars.name();
    }

    /// It is not there: its bytes do not count.
    pub(crate) fn failed(&self) {
        self.at(0);
    }
}

impl Drop for CopyBar<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        self.bars.all.remove(&self.bar);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_the_sum_of_the_files() {
        let bars = CopyBars::new(2, 30);
        let (one, two) = (bars.begin("a", 10), bars.begin("b", 20));
        one.at(4);
        two.at(8);
        assert_eq!(bars.whole.position(), 12);
        one.done();
        two.failed();
        assert_eq!(bars.whole.position(), 10);
        assert_eq!(*bars.count.lock().unwrap(), (1, 2));
    }
}
