//! Progress bars on the terminal: one line per mount, one bar per upload.
//!
//! While bars are on the screen, log lines have to go above them: whoever writes to the terminal
//! writes through [`Terminal`]. Where standard error is no terminal nothing is drawn.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

use super::text::{headline, name, pace};
use crate::control::report::{ChangeState, Report};

/// The bars that are on the screen.
static DRAWN: Mutex<Option<MultiProgress>> = Mutex::new(None);

pub(super) const UPLOAD: &str = "  {prefix:36!} {bar:20} {bytes:>10} / {total_bytes:10} {msg:>22}";
const NAME_WIDTH: usize = 36;
const CHECK: &str = "  {bar:30} {bytes:>10} / {total_bytes:10} {bytes_per_sec:>13} {eta:>4}";
/// How often progress is told where it cannot be drawn.
const NOW_AND_THEN: Duration = Duration::from_secs(10);
/// Uploads that are shown.
const MOST: usize = 12;

/// The bars of some mounts, until dropped.
#[derive(Debug)]
pub(crate) struct Bars {
    all: MultiProgress,
    heads: HashMap<String, ProgressBar>,
    uploads: HashMap<(String, i64), ProgressBar>,
}

impl Bars {
    /// Nothing to see yet.
    pub(crate) fn new() -> Self {
        // Standard error: standard output is for what programs read. Hidden where it is no terminal.
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        *lock() = Some(all.clone());
        Self {
            all,
            heads: HashMap::new(),
            uploads: HashMap::new(),
        }
    }

    /// Whether anybody sees them.
    pub(crate) fn is_visible(&self) -> bool {
        !self.all.is_hidden()
    }

    /// Draws what the reports say.
    pub(crate) fn show(&mut self, reports: &[Report]) {
        let mut heads = HashMap::new();
        let mut uploads = HashMap::new();
        for report in reports {
            let place = report.mount.mountpoint.clone();
            let head = self.heads.remove(&place).unwrap_or_else(|| {
                let bar = ProgressBar::new(0).with_style(style("{wide_msg}"));
                self.all.add(bar)
            });
            head.set_message(headline(report));
            let mut last = head.clone();
            for change in &report.changes {
                let ChangeState::Uploading {
                    sent,
                    bytes_per_second,
                    seconds_left,
                    ..
                } = change.state
                else {
                    continue;
                };
                if uploads.len() >= MOST {
                    break;
                }
                let key = (place.clone(), change.id);
                let bar = self.uploads.remove(&key).unwrap_or_else(|| {
                    let bar = ProgressBar::new(change.size).with_style(style(UPLOAD));
                    self.all.insert_after(&last, bar)
                });
                bar.set_prefix(shortened(&name(change)));
                // As the daemon says: a bar knows only of what was sent since it is there.
                bar.set_message(pace(bytes_per_second, seconds_left));
                bar.set_length(change.size);
                bar.set_position(sent);
                last = bar.clone();
                uploads.insert(key, bar);
            }
            heads.insert(place, head);
        }
        for bar in self.heads.values().chain(self.uploads.values()) {
            bar.finish_and_clear();
            self.all.remove(bar);
        }
        self.heads = heads;
        self.uploads = uploads;
    }
}

/// One bar for work whose bytes are counted, until dropped.
#[derive(Debug)]
pub(crate) struct WorkBar(ProgressBar);

impl WorkBar {
    /// Nothing to see yet, and nothing ever where standard error is no terminal.
    pub(crate) fn new() -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(10);
        Self(ProgressBar::with_draw_target(Some(0), target).with_style(style(CHECK)))
    }

    /// So many bytes of so many are done.
    pub(crate) fn show(&self, done: u64, all: u64) {
        self.0.set_length(all);
        self.0.set_position(done);
    }

    /// Runs `print` while the bar is off the screen.
    pub(crate) fn aside(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }
}

/// One line that says how far something is whose end is not known, until dropped.
#[derive(Debug, Default)]
pub(crate) struct Spinner {
    bar: Option<ProgressBar>,
    said: Option<Instant>,
}

impl Spinner {
    /// Shows `text` in the place of what was there. Where standard error is no terminal it is a line now and then.
    pub(crate) fn show(&mut self, text: &str) {
        if !io::stderr().is_terminal() {
            if self.said.is_none_or(|said| said.elapsed() >= NOW_AND_THEN) {
                self.said = Some(Instant::now());
                crate::launch::complain(text);
            }
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            *lock() = Some(all.clone());
            all.add(ProgressBar::no_length().with_style(style("{spinner} {wide_msg}")))
        });
        bar.set_message(text.to_owned());
        bar.tick();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            *lock() = None;
        }
    }
}

impl Drop for WorkBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        for bar in self.heads.values().chain(self.uploads.values()) {
            bar.finish_and_clear();
        }
        *lock() = None;
    }
}

pub(super) fn lock() -> std::sync::MutexGuard<'static, Option<MultiProgress>> {
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// The end of a long name says more than its beginning.
pub(super) fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= NAME_WIDTH {
        return name.to_owned();
    }
    let tail = name.chars().skip(length - (NAME_WIDTH - 3));
    format!("...{}", tail.collect::<String>())
}

/// Standard error, above the bars if there are any.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal;

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let drawn = lock().clone();
        match drawn {
            Some(bars) => bars.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for Terminal {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::report::tests::{change, sample};

    #[test]
    fn the_templates_are_sound() {
        for template in [UPLOAD, CHECK, "{wide_msg}"] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn long_names_lose_their_beginning() {
        let name = shortened(&format!("{}/end.txt", "\u{f6}".repeat(80)));
        assert_eq!(name.chars().count(), NAME_WIDTH);
        assert!(
            name.starts_with("...") && name.ends_with("/end.txt"),
            "{name}"
        );
        assert_eq!(shortened("a"), "a");
    }

    #[test]
    fn what_was_sent_before_anybody_looked_is_no_speed() {
        let state = ChangeState::Uploading {
            sent: 1 << 40,
            bytes_per_second: 1 << 20,
            seconds_left: Some(720),
            restarts: 0,
        };
        let mut bars = Bars::new();
        bars.show(&[sample(vec![change("f", 1 << 41, state)])]);
        let bar = bars.uploads.values().next().unwrap();
        assert_eq!(bar.position(), 1 << 40);
        assert_eq!(bar.message(), "1.0 MiB/s 12 min");
    }

    #[test]
    fn bars_come_and_go_with_what_they_show() {
        let uploading = |id, sent| {
            let state = ChangeState::Uploading {
                sent,
                bytes_per_second: 1,
                seconds_left: None,
                restarts: 0,
            };
            let mut change = change("f", 10, state);
            change.id = id;
            change
        };
        let mut bars = Bars::new();
        bars.show(&[sample(vec![uploading(1, 0), uploading(2, 5)])]);
        assert_eq!((bars.heads.len(), bars.uploads.len()), (1, 2));
        bars.show(&[sample(vec![uploading(2, 9)])]);
        assert_eq!(bars.uploads.len(), 1);
        let place = ("/mnt/mega".to_owned(), 2);
        assert_eq!(bars.uploads.get(&place).unwrap().position(), 9);
        bars.show(&[]);
        assert!(bars.heads.is_empty() && bars.uploads.is_empty());
    }
}
