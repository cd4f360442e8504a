//! What every user of rclone knows, from the set-up to clearing up, typed on a terminal.

use std::fs;

use mega_emulator::{AccountSpec, Emulator, EmulatorConfig, Fixture};

use crate::home::Home;
use crate::terminal::Terminal;

const USER: &str = "you@example.com";
const PASSWORD: &str = "secret word";

struct World {
    home: Home,
    emulator: Emulator,
}

impl World {
    fn new() -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
        emulator.add_account(AccountSpec::new(USER, PASSWORD));
        let files = [
            Fixture::file("/docs/report.txt", "12345", 1_600_000_000),
            Fixture::folder("/photos"),
            Fixture::file("/twice.txt", "older", 1_500_000_000),
            Fixture::file("/twice.txt", "the newer one", 1_600_000_000),
            Fixture::file("/same.txt", "same", 1_600_000_000),
            Fixture::file("/same.txt", "same", 1_600_000_000),
        ];
        emulator.populate(USER, &files).unwrap();
        let home = Home::new();
        fs::create_dir_all(home.path("source/sub")).unwrap();
        fs::write(home.path("source/one"), "1").unwrap();
        fs::write(home.path("source/sub/two"), "22").unwrap();
        Self { home, emulator }
    }

    fn types(&self, args: &str) -> Terminal {
        Terminal::start_at(&self.home, args, Some(&self.emulator.url()))
    }

    /// Runs to the end; what was on the screen.
    fn shows(&self, args: &str) -> String {
        let mut terminal = self.types(args);
        let code = terminal.end();
        assert_eq!(code, Some(0), "{args}: {}", terminal.text());
        terminal.text()
    }

    /// `ls` of everything, without the numbers of duplicates, sorted.
    fn listed(&self) -> Vec<String> {
        let text = self.shows("ls remote:").replace(" (1)", "");
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn set_up(&self) {
        let mut terminal = self.types("config");
        terminal.expect("No remotes found - make a new one");
        terminal.answer("n/s/q> ", "n");
        terminal.answer("name> ", "remote");
        terminal.answer("Storage> ", "mega");
        terminal.answer("user> ", USER);
        terminal.answer("y/g/n> ", "y");
        terminal.answer("\npassword:", PASSWORD);
        terminal.answer("\npassword:", PASSWORD);
        terminal.expect("pass = *** ENCRYPTED ***");
        terminal.answer("y/e/d> ", "y");
        terminal.answer("e/n/d/r/c/s/q> ", "q");
        assert_eq!(terminal.end(), Some(0));
    }
}

#[test]
fn the_session_that_every_user_of_rclone_knows() {
    let world = World::new();
    world.set_up();
    let text = world.shows("lsd remote:");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (line, name) in lines.iter().zip(["docs", "photos"]) {
        // Size, date and time, number of entries, name: as rclone's columns.
        assert!(
            line.starts_with("          -1 20") && line.ends_with(&format!("        -1 {name}")),
            "{text}"
        );
    }
    let text = world.listed();
    assert_eq!(
        text,
        [
            "        4 same.txt",
            "        4 same.txt",
            "        5 docs/report.txt",
            "        5 twice.txt",
            "       13 twice.txt",
        ]
    );
    world.shows("copy source remote:backup");
    let text = world.shows("ls remote:backup");
    assert_eq!(text, "        1 one\n        2 sub/two\n");
    // Of the two with the same content one goes without a question; of the others one is asked about.
    let mut terminal = world.types("dedupe remote:");
    terminal.expect("twice.txt");
    terminal.answer("s/k/r/q> ", "k");
    terminal.expect("Enter the number of the file to keep> ");
    let text = terminal.text();
    let newer = text.lines().find(|line| line.contains("13 bytes")).unwrap();
    let number = newer.trim().split(':').next().unwrap();
    terminal.answer("", number);
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    let text = world.listed();
    assert_eq!(
        text,
        [
            "        1 backup/one",
            "        2 backup/sub/two",
            "        4 same.txt",
            "        5 docs/report.txt",
            "       13 twice.txt",
        ]
    );
    assert_eq!(world.emulator.counters().commands("us"), 1, "one login");
    assert_eq!(world.emulator.counters().violations, Vec::<String>::new());
}

#[test]
fn the_options_of_rclones_backend_are_flags_keys_and_variables() {
    let world = World::new();
    // No remote of that name says who: the flags do.
    // Some begin with a hyphen and are values all the same.
    let pass = std::iter::repeat_with(|| mega_crypto::obscure(PASSWORD).unwrap())
        .find(|pass| pass.starts_with('-'))
        .unwrap();
    world.home.write(
        ".config/megamount/config.toml",
        "[remote.remote]\nuser = \"nobody@example.com\"\npass-command = \"false\"\n",
    );
    let who = format!("--mega-user {USER} --mega-pass {pass}");
    let args = format!("lsd remote: -vv --mega-debug {who}");
    let text = world.shows(&args);
    assert!(text.contains("-1 docs"), "{text}");
    assert!(text.contains("mega_api::wire"), "{text}");
    assert!(!text.contains(PASSWORD), "{text}");
    let args = "rm remote:docs/report.txt --mega-hard-delete --mega-use-https=false";
    world.shows(&format!("{args} {who}"));
    let left = world.emulator.tree(USER).unwrap();
    assert!(
        left.iter()
            .all(|node| node.name.as_deref() != Some("report.txt")),
        "not even in the bin"
    );
}
