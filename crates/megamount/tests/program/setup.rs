//! `megamount config`: the session that users of rclone know, and its commands without questions.

use std::fs;
use std::process::Stdio;

use crate::home::Home;
use crate::terminal::Terminal;

const CONFIG: &str = ".config/megamount/config.toml";
const RCLONE: &str = ".config/rclone/rclone.conf";
/// 'potato', as rclone obscures it.
const POTATO: &str = "AAAAAAAAAAAAAAAAAAAAADS03QMhkA";

fn prints(home: &Home, args: &[&str]) -> String {
    let output = home.run(args);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_first_session_is_line_for_line_the_one_that_is_known() {
    let home = Home::new();
    let mut terminal = Terminal::start(&home, "config");
    terminal.answer("n/s/q> ", "n");
    terminal.answer("name> ", "remote");
    terminal.answer("Storage> ", "mega");
    terminal.answer("user> ", "you@example.com");
    terminal.answer("y/g/n> ", "y");
    terminal.answer("\npassword:", "secret word");
    terminal.answer("\npassword:", "secret word");
    terminal.answer("y/e/d> ", "y");
    terminal.answer("e/n/d/r/c/s/q> ", "q");
    assert_eq!(terminal.end(), Some(0));
    let wanted = "\
No remotes found - make a new one
n) New remote
s) Set configuration password
q) Quit config
n/s/q> n

Enter name for new remote.
name> remote

Option Storage.
Type of storage to configure.
Choose a number from below, or type in your own value.
 1 / Mega
   \\ (mega)
Storage> mega

Option user.
User name.
Enter a value.
user> you@example.com

Option pass.
Password.
Choose an alternative below.
y) Yes, type in my own password
g) Generate random password
n) No, leave this optional password blank (default)
y/g/n> y
Enter the password:
password:
Confirm the password:
password:
--------------------
[remote]
type = mega
user = you@example.com
pass = *** ENCRYPTED ***
--------------------
y) Yes this is OK (default)
e) Edit this remote
d) Delete this remote
y/e/d> y

Current remotes:

Name                 Type
====                 ====
remote               mega

e) Edit existing remote
n) New remote
d) Delete remote
r) Rename remote
c) Copy remote
s) Set configuration password
q) Quit config
e/n/d/r/c/s/q> q
";
    assert_eq!(terminal.text(), wanted);
    assert_eq!(home.mode(CONFIG), 0o600);
    let text = fs::read_to_string(home.path(CONFIG)).unwrap();
    assert!(text.contains("user = \"you@example.com\""), "{text}");
    let obscured = text.split("pass = \"").nth(1).unwrap().split('"').next();
    let clear = mega_crypto::reveal(obscured.unwrap()).unwrap();
    assert_eq!(clear.expose(), "secret word");
}

#[test]
fn answers_may_be_pasted_at_once() {
    let home = Home::new();
    let mut terminal = Terminal::start(&home, "config");
    terminal.answer("n/s/q> ", "n\rw\rmega\rme@x\ry\rpw\rpw\ry\rq");
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    let text = fs::read_to_string(home.path(CONFIG)).unwrap();
    let obscured = text.split("pass = \"").nth(1).unwrap().split('"').next();
    assert_eq!(
        mega_crypto::reveal(obscured.unwrap()).unwrap().expose(),
        "pw"
    );
}

#[test]
fn slips_are_asked_again_and_nothing_is_kept_unconfirmed() {
    let home = Home::new();
    let mut terminal = Terminal::start(&home, "config");
    terminal.answer("n/s/q> ", "x");
    terminal.expect("one of the following characters: n, s, q.");
    terminal.answer("n/s/q> ", "n");
    terminal.answer("name> ", "a/b");
    terminal.expect("A name begins with");
    terminal.answer("name> ", "w");
    terminal.answer("Storage> ", "s3");
    terminal.expect("'mega' only");
    terminal.answer("Storage> ", "1");
    terminal.answer("user> ", "");
    terminal.expect("required");
    terminal.answer("user> ", "me@x");
    terminal.answer("y/g/n> ", "y");
    terminal.answer("\npassword:", "one");
    terminal.answer("\npassword:", "two");
    terminal.expect("Passwords do not match!");
    terminal.answer("\npassword:", "HUSH");
    terminal.answer("\npassword:", "HUSH");
    terminal.answer("y/e/d> ", "e");
    terminal.answer("user> ", "");
    terminal.answer("y/g/n> ", "n");
    terminal.answer("pass-command> ", "");
    terminal.expect("pass = *** ENCRYPTED ***");
    terminal.answer("y/e/d> ", "d");
    terminal.answer("n/s/q> ", "\x03");
    assert_eq!(terminal.end(), Some(2));
    assert!(terminal.text().contains("cancelled"), "{}", terminal.text());
    assert!(!terminal.text().contains("HUSH"));
    assert!(!home.path(CONFIG).exists());
}

#[test]
fn a_generated_password_is_shown_once_and_kept_obscured() {
    let home = Home::new();
    let mut terminal = Terminal::start(&home, "config");
    terminal.answer("n/s/q> ", "n");
    terminal.answer("name> ", "w");
    terminal.answer("Storage> ", "mega");
    terminal.answer("user> ", "me@x");
    terminal.answer("y/g/n> ", "g");
    terminal.answer("Bits> ", "1");
    terminal.answer("Bits> ", "96");
    terminal.answer("y/n> ", "");
    terminal.answer("y/e/d> ", "");
    terminal.answer("e/n/d/r/c/s/q> ", "q");
    assert_eq!(terminal.end(), Some(0));
    let shown = terminal.text();
    let shown = shown.split("Your password is: ").nth(1).unwrap();
    let shown = shown.lines().next().unwrap();
    assert_eq!(shown.len(), 16);
    let text = fs::read_to_string(home.path(CONFIG)).unwrap();
    let obscured = text.split("pass = \"").nth(1).unwrap().split('"').next();
    assert_eq!(
        mega_crypto::reveal(obscured.unwrap()).unwrap().expose(),
        shown
    );
}

#[test]
fn answers_may_come_from_a_pipe() {
    let home = Home::new();
    let answers = "n\nw\nmega\nme@x\nn\npass show mega\ny\nc\nw\nv\nr\n1\nu\nd\nw\nq\n";
    fs::write(home.path("answers"), answers).unwrap();
    let output = home
        .command()
        .arg("config")
        .stdin(Stdio::from(fs::File::open(home.path("answers")).unwrap()))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let text = fs::read_to_string(home.path(CONFIG)).unwrap();
    assert_eq!(
        text.trim_start(),
        "[remote.u]\nuser = \"me@x\"\npass-command = \"pass show mega\"\n",
        "{said}"
    );
    let output = home.run(&["config"]);
    assert_eq!(output.status.code(), Some(2), "nobody answers");
}

#[test]
fn a_remote_with_state_keeps_its_name() {
    let home = Home::new();
    home.write(CONFIG, "[remote.w]\nuser = \"u@x\"\n");
    fs::create_dir_all(home.path(".local/state/megamount/w")).unwrap();
    let mut terminal = Terminal::start(&home, "config");
    terminal.answer("e/n/d/r/c/s/q> ", "r");
    terminal.answer("remote> ", "w");
    terminal.expect("Not renamed");
    terminal.answer("e/n/d/r/c/s/q> ", "d");
    terminal.answer("remote> ", "1");
    terminal.expect("are kept in");
    terminal.answer("n/s/q> ", "q");
    assert_eq!(terminal.end(), Some(0));
    assert_eq!(prints(&home, &["config", "show"]), "");
}

#[test]
fn show_and_delete_take_a_name() {
    let home = Home::new();
    let text = format!(
        "# mine\n[defaults]\nuploads = 2\n\n[remote.w]\nuser = \"u@x\"\npass = \"{POTATO}\"\n\
         [remote.v]\nuser = \"v@x\" # keep\n"
    );
    home.write(CONFIG, &text);
    assert_eq!(prints(&home, &["config", "show"]), text);
    let section = prints(&home, &["config", "show", "v:"]);
    assert!(
        section.starts_with("[remote.v]\nuser = \"v@x\""),
        "{section}"
    );
    let redacted = prints(&home, &["config", "show", "--redact"]);
    assert!(
        !redacted.contains("u@x") && !redacted.contains(POTATO),
        "{redacted}"
    );
    prints(&home, &["config", "delete", "w"]);
    let left = "# mine\n[defaults]\nuploads = 2\n[remote.v]\nuser = \"v@x\" # keep\n";
    assert_eq!(fs::read_to_string(home.path(CONFIG)).unwrap(), left);
    let file = prints(&home, &["config", "file"]);
    assert_eq!(file.trim_end(), home.path(CONFIG).to_str().unwrap());
}

#[test]
fn remotes_of_rclone_are_imported_once() {
    let home = Home::new();
    let theirs = format!(
        "[a]\ntype = mega\nuser = a@x\npass = {POTATO}\nhard_delete = true\n\
         [box]\ntype = dropbox\n[b]\ntype = mega\nuser = b@x\n"
    );
    home.write(RCLONE, &theirs);
    home.write(CONFIG, "[remote.b]\nuser = \"mine@x\"\n");
    let said = prints(&home, &["config", "import"]);
    assert!(
        said.contains("'a:' is imported") && said.contains("'b:' is here already"),
        "{said}"
    );
    let text = fs::read_to_string(home.path(CONFIG)).unwrap();
    assert!(
        text.contains(&format!(
            "[remote.a]\nuser = \"a@x\"\npass = \"{POTATO}\"\nhard-delete = true\n"
        )),
        "{text}"
    );
    assert!(text.contains("mine@x") && !text.contains("box"), "{text}");
    assert_eq!(fs::read_to_string(home.path(RCLONE)).unwrap(), theirs);
    assert_eq!(home.mode(CONFIG), 0o600);
}

#[test]
fn wrong_input_to_config_is_told() {
    let home = Home::new();
    let text = home.fails(&["config", "show", "w"], 3);
    assert!(
        text.contains("'w'") && text.contains("'megamount config'"),
        "{text}"
    );
    let text = home.fails(&["config", "delete", "w"], 3);
    assert!(text.contains("'w'"), "{text}");
    let text = home.fails(&["config", "import"], 1);
    assert!(
        text.contains("rclone.conf") && text.contains("--from"),
        "{text}"
    );
    let text = home.fails(&["config", "import", "--from", "none.conf"], 1);
    assert!(text.contains("none.conf"), "{text}");
    home.write(
        RCLONE,
        "[box]\ntype = dropbox\n[w]\ntype = mega\nuser = u\npass = open\n",
    );
    let text = home.fails(&["config", "import", "box"], 1);
    assert!(text.contains("'dropbox'"), "{text}");
    let text = home.fails(&["config", "import", "none"], 3);
    assert!(text.contains("'none'") && text.contains("'w:'"), "{text}");
    let text = home.fails(&["config", "import", "w"], 1);
    assert!(
        text.contains("not an obscured password") && !text.contains("open"),
        "{text}"
    );
    home.write(
        RCLONE,
        "# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nAAAA\n",
    );
    let text = home.fails(&["config", "import"], 1);
    assert!(text.contains("is encrypted"), "{text}");
    assert!(
        !home.path(CONFIG).exists(),
        "none of it has changed anything"
    );
    home.write(RCLONE, "[w]\ntype = mega\nuser = u\n");
    let text = home.fails(&["config", "import", "--config", "/proc/none/c.toml"], 6);
    assert!(
        text.contains("cannot write the configuration /proc/none/c.toml"),
        "{text}"
    );
    home.write(CONFIG, "[defaults]\nuplods = 1\n");
    let text = home.fails(&["config", "delete", "w"], 1);
    assert!(text.contains("'uplods'"), "{text}");
    let text = home.fails(&["config", "shwo"], 1);
    assert!(text.contains("shwo"), "{text}");
}
