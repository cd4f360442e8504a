//! `demo:`, a Mega account that needs no account: the emulator, in this process.
//!
//! What is written to it stays in the state directory and is there at the next start.

use std::path::Path;

use mega_emulator::{AccountSpec, Emulator, EmulatorConfig, EmulatorError, Fixture};

/// The account's address and password: anybody may know them.
pub(crate) const USER: &str = "demo@example.com";
pub(crate) const PASSWORD: &str = "demo";
/// What the state is pinned to instead of an address, whose port is another one each time.
pub(crate) const ORIGIN: &str = "demo";

/// 1 May 2024, 12:00 UTC.
const SOME_DAY: i64 = 1_714_564_800;

/// Starts the server, with its data in `directory`; the sample files are put in the first time.
pub(crate) fn start(directory: &Path) -> Result<Emulator, EmulatorError> {
    let config = EmulatorConfig {
        data_dir: Some(directory.to_path_buf()),
        ..EmulatorConfig::default()
    };
    let emulator = Emulator::start(config)?;
    if emulator.tree(USER).is_err() {
        emulator.add_account(AccountSpec::new(USER, PASSWORD));
        emulator.populate(USER, &samples())?;
    }
    Ok(emulator)
}

fn samples() -> Vec<Fixture> {
    let text = |path: &str, text: &str| Fixture::file(path, text, SOME_DAY);
    vec![
        text(
            "/Welcome.txt",
            "This is a demo account. It lives in a Mega server inside megamount itself, and what\n\
             you write here stays on this machine, in megamount's state directory.\n\n\
             Try: ls -lR, cp -a something here, rm, mv, echo hello > Documents/new.txt\n\
             When you are done: fusermount3 -u DIRECTORY\n",
        ),
        text(
            "/Documents/notes.md",
            "# Notes\n\n- [x] mount a cloud drive\n- [ ] buy milk\n",
        ),
        text(
            "/Documents/budget.csv",
            "month,in,out\nApril,2000,1900\nMay,2000,2100\n",
        ),
        // Mega allows several files of one name; here they become "report.txt", "report (1).txt".
        text("/Documents/report.txt", "The first report.\n"),
        text(
            "/Documents/report.txt",
            "The second report, of the same name.\n",
        ),
        text(
            "/Documents/Gr\u{fc}\u{df}e \u{1f44b}.txt",
            "Names may have any character.\n",
        ),
        Fixture::pattern("/Photos/2023/beach.jpg", 2_500_000, 1),
        Fixture::pattern("/Photos/2023/dinner.jpg", 1_800_000, 2),
        Fixture::pattern("/Photos/2024/garden.jpg", 3_100_000, 3),
        Fixture::pattern("/Videos/holiday.mp4", 48 << 20, 4),
        Fixture::folder("/Empty folder"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_put_in_once_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let emulator = start(dir.path()).unwrap();
        assert!(emulator.find(USER, "/Documents/notes.md").is_some());
        let before = emulator.tree(USER).unwrap().len();
        drop(emulator);
        let emulator = start(dir.path()).unwrap();
        assert_eq!(emulator.tree(USER).unwrap().len(), before);
    }
}
