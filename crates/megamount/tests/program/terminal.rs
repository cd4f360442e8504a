//! A terminal that a test types on.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use crate::home::{Home, PATIENCE, exit_code};

/// A program on a terminal of its own (script(1) makes one).
pub(crate) struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
    seen: usize,
}

impl Terminal {
    /// Starts the binary with `args`, which need no quoting.
    pub(crate) fn start(home: &Home, args: &str) -> Self {
        Self::start_at(home, args, None)
    }

    /// The same with another server.
    pub(crate) fn start_at(home: &Home, args: &str, api_url: Option<&str>) -> Self {
        let more: Vec<_> = api_url
            .map(|url| ("MEGAMOUNT_API_URL", url))
            .into_iter()
            .collect();
        Self::start_with(home, args, &more)
    }

    /// The same with more in the environment.
    pub(crate) fn start_with(home: &Home, args: &str, more: &[(&str, &str)]) -> Self {
        let command = format!("{} {args}", env!("CARGO_BIN_EXE_megamount"));
        let mut child = std::process::Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .env_clear()
            .env("HOME", home.path(""))
            .env("PATH", "/usr/bin:/bin")
            .env("SHELL", "/bin/sh")
            .env("XDG_RUNTIME_DIR", home.path("run"))
            .envs(more.iter().copied())
            .current_dir(home.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let (sender, shown) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            keys: child.stdin.take().unwrap(),
            child,
            shown,
            bytes: vec![],
            seen: 0,
        }
    }

    /// Waits until `prompt` shows after everything that was waited for before.
    pub(crate) fn expect(&mut self, prompt: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = String::from_utf8_lossy(&self.bytes[self.seen..]).into_owned();
            if let Some(at) = text.find(prompt) {
                self.seen += at + prompt.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.shown.recv_timeout(left) {
                Ok(more) => self.bytes.extend(more),
                Err(_) => panic!("no {prompt:?} in {:?}", self.text()),
            }
        }
    }

    /// Waits for `prompt` and types `answer` and Enter.
    pub(crate) fn answer(&mut self, prompt: &str, answer: &str) {
        self.expect(prompt);
        self.keys
            .write_all(format!("{answer}\r").as_bytes())
            .unwrap();
    }

    /// Waits for the end; the exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let code = exit_code(&mut self.child);
        while let Ok(more) = self.shown.recv_timeout(PATIENCE) {
            self.bytes.extend(more);
        }
        code
    }

    /// Everything that was on the screen, with plain line ends.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).replace('\r', "")
    }
}
