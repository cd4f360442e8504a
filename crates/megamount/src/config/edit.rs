//! Changes to our own `config.toml`.
//!
//! Promises: comments and keys that a change is not about stay as they are; what is written can be
//! read again; after a crash or a power cut the file has the old text or the new one; it is 0600; what is
//! encrypted stays so unless it is asked for, and then its text is in no file, not even for a moment.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use mega_crypto::Secret;
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};
use zeroize::Zeroizing;

use super::encrypted::{Cost, Key, encrypt};
use super::unlock::{self, Remembered};
use super::{file, is_remote_name};
use crate::cli::ConfigPlace;
use crate::failure::Failure;

/// Where the password of a new remote comes from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum NewPassword {
    /// Obscured as rclone does it.
    Obscured(String),
    /// The first line a shell command prints.
    Command(String),
    /// As it is; for a new remote: ask when it is needed.
    AsIs,
    /// Ask when it is needed.
    Ask,
}

/// What a change sets of a remote.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NewRemote {
    /// The e-mail address.
    pub(crate) user: String,
    /// Where the password comes from.
    pub(crate) password: NewPassword,
    /// `hard-delete`, if it is to be set.
    pub(crate) hard_delete: Option<bool>,
}

/// The configuration file, ready to be changed.
pub(crate) struct Editor {
    path: PathBuf,
    document: DocumentMut,
    /// What it will be encrypted with; none to write it in the clear.
    password: Option<Secret>,
    /// Whether it was in the clear when it was read.
    was_clear: bool,
    remembered: Remembered,
}

impl Editor {
    /// Reads the file, which need not exist. What cannot be mounted cannot be changed either.
    pub(crate) fn open(place: &ConfigPlace) -> Result<Self, Failure> {
        let path = place.file()?;
        let (text, password) = match unlock::open(&path, place)? {
            Some(opened) => (opened.text, opened.password),
            None => (Zeroizing::default(), None),
        };
        file::parse(&text, &path)?;
        let document = text.parse().map_err(|_| odd(&path))?;
        Ok(Self {
            path,
            document,
            was_clear: password.is_none(),
            password,
            remembered: place.remembered.clone(),
        })
    }

    /// Whether it is encrypted, or will be.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.password.is_some()
    }

    /// The password it is encrypted with from the next [`Editor::save`] on; without one it is written in the clear.
    pub(crate) fn encrypt_with(&mut self, password: Option<Secret>) {
        self.password = password;
    }

    /// The text as it stands in the file, or would, in the clear.
    pub(crate) fn text(&self) -> String {
        self.document.to_string()
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the remotes, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let remotes = self.document.get("remote").and_then(Item::as_table_like);
        let mut names: Vec<_> = remotes
            .into_iter()
            .flat_map(|table| table.iter().map(|(name, _)| name.to_owned()))
            .collect();
        names.sort();
        names
    }

    /// Whether there is a remote `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    fn entry(&self, name: &str) -> Option<&dyn TableLike> {
        let remotes = self.document.get("remote")?.as_table_like()?;
        remotes.get(name)?.as_table_like()
    }

    /// The text that a remote has under `key`.
    pub(crate) fn value(&self, name: &str, key: &str) -> Option<String> {
        Some(self.entry(name)?.get(key)?.as_str()?.to_owned())
    }

    /// The section of one remote alone.
    pub(crate) fn section(&self, name: &str) -> Option<String> {
        let mut section = Table::new();
        for (key, item) in self.entry(name)?.iter() {
            section.insert(key, item.clone());
        }
        Some(alone(name, section).to_string())
    }

    /// Makes the remote `name`, or changes what `new` says of it.
    pub(crate) fn set(&mut self, name: &str, new: &NewRemote) -> Result<(), Failure> {
        if !is_remote_name(name) {
            return Err(Failure::BadRemote {
                given: name.to_owned(),
            });
        }
        let section = self
            .remotes()?
            .entry(name)
            .or_insert(Item::Table(Table::new()));
        let section = section
            .as_table_like_mut()
            .ok_or_else(|| odd(Path::new(name)))?;
        put(section, "user", new.user.as_str().into());
        if new.password != NewPassword::AsIs {
            for key in ["pass", "pass-command", "pass-file"] {
                let stays = match &new.password {
                    NewPassword::Obscured(_) => key == "pass",
                    NewPassword::Command(_) => key == "pass-command",
                    NewPassword::Ask | NewPassword::AsIs => false,
                };
                if !stays {
                    section.remove(key);
                }
            }
        }
        match &new.password {
            NewPassword::Obscured(pass) => put(section, "pass", pass.as_str().into()),
            NewPassword::Command(command) => put(section, "pass-command", command.as_str().into()),
            NewPassword::Ask | NewPassword::AsIs => {}
        }
        if let Some(hard_delete) = new.hard_delete {
            put(section, "hard-delete", hard_delete.into());
        }
        Ok(())
    }

    /// Copies everything of `name` to the new remote `to`.
    pub(crate) fn copy(&mut self, name: &str, to: &str) -> Result<(), Failure> {
        let mut section = Table::new();
        for (key, item) in self.entry(name).into_iter().flat_map(TableLike::iter) {
            section.insert(key, item.clone());
        }
        self.remotes()?.insert(to, Item::Table(section));
        Ok(())
    }

    /// Removes the remote `name`; false if there is none.
    pub(crate) fn remove(&mut self, name: &str) -> Result<bool, Failure> {
        if !self.has(name) {
            return Ok(false);
        }
        let removed = self.remotes()?.remove(name);
        if let Some(Item::Table(table)) = removed {
            self.keep_comments(&table);
        }
        Ok(true)
    }

    /// Comments that a blank line parts from the section that went are not about it: they move to
    /// what comes next.
    fn keep_comments(&mut self, gone: &Table) {
        let prefix = gone.decor().prefix().and_then(|prefix| prefix.as_str());
        let Some((kept, _)) = prefix.unwrap_or_default().rsplit_once("\n\n") else {
            return;
        };
        let kept = format!("{kept}\n");
        let mut next: Option<&mut Table> = None;
        for (key, item) in self.document.iter_mut() {
            let Item::Table(table) = item else { continue };
            let tables: Vec<&mut Table> = if key.get() == "remote" {
                let sections = table.iter_mut();
                sections
                    .filter_map(|(_, item)| item.as_table_mut())
                    .collect()
            } else {
                vec![table]
            };
            for table in tables {
                let is_next = table.position() > gone.position()
                    && next
                        .as_ref()
                        .is_none_or(|next| table.position() < next.position());
                if is_next {
                    next = Some(table);
                }
            }
        }
        if let Some(table) = next {
            let own = table.decor().prefix().and_then(|prefix| prefix.as_str());
            let prefix = format!("{kept}{}", own.unwrap_or_default());
            table.decor_mut().set_prefix(prefix);
        } else {
            let trailing = self.document.trailing().as_str().unwrap_or_default();
            let trailing = format!("{kept}{trailing}");
            self.document.set_trailing(trailing);
        }
    }

    fn remotes(&mut self) -> Result<&mut dyn TableLike, Failure> {
        let mut all = Table::new();
        all.set_implicit(true);
        let remotes = self.document.entry("remote").or_insert(Item::Table(all));
        remotes.as_table_like_mut().ok_or_else(|| odd(&self.path))
    }

    /// Writes the file.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let unwritable = |reason: String| Failure::ConfigUnwritable {
            path: self.path.clone(),
            reason,
        };
        let text = Zeroizing::new(self.text());
        // What we write must be what the next mount can read.
        file::parse(&text, &self.path)?;
        let Some(password) = &self.password else {
            if self.was_clear && unlock::is_encrypted(&self.path)? == Some(true) {
                return Err(unwritable(
                    "another program has encrypted it meanwhile".to_owned(),
                ));
            }
            write(&self.path, text.as_bytes()).map_err(|e| unwritable(reason(&e)))?;
            self.remembered.forget();
            return Ok(());
        };
        let key = Key::fresh(password, Cost::USUAL)?;
        let encrypted = encrypt(&text, &key)?;
        write(&self.path, encrypted.as_bytes()).map_err(|e| unwritable(reason(&e)))?;
        self.remembered.keep(password, &key);
        Ok(())
    }
}

/// Without the name of the temporary file beside the configuration, of which nobody has heard.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" at path \"").next().unwrap_or(&text).to_owned()
}

/// `text` without what is nobody's business: secrets, addresses, and comments, which may hold any.
pub(crate) fn redacted(text: &str) -> String {
    /// What may be told as it is; of everything else only that it is set.
    const OPEN: &[&str] = &["pass-file", "ca-cert", "cache-dir", "state-dir", "log-file"];
    fn walk(table: &dyn TableLike, into: &mut Table) {
        for (key, item) in table.iter() {
            if let Some(inner) = item.as_table_like() {
                let mut copy = Table::new();
                copy.set_implicit(key == "remote");
                walk(inner, &mut copy);
                into.insert(key, Item::Table(copy));
                continue;
            }
            let hidden = matches!(
                key,
                "user"
                    | "pass"
                    | "pass-command"
                    | "totp-command"
                    | "link"
                    | "link-command"
                    | "proxy"
                    | "api-url"
            ) || (item.is_str() && key.contains("pass") && !OPEN.contains(&key));
            let value = match item.as_value() {
                Some(value) if !hidden => {
                    let mut value = value.clone();
                    value.decor_mut().clear();
                    value
                }
                _ => Value::from("XXX"),
            };
            into.insert(key, Item::Value(value));
        }
    }
    let mut copy = DocumentMut::new();
    if let Ok(document) = text.parse::<DocumentMut>() {
        walk(document.as_table(), copy.as_table_mut());
    }
    copy.to_string()
}

/// A document with nothing but one section.
fn alone(name: &str, section: Table) -> DocumentMut {
    let mut all = Table::new();
    all.set_implicit(true);
    all.insert(name, Item::Table(section));
    let mut document = DocumentMut::new();
    document.insert("remote", Item::Table(all));
    document
}

/// Sets `key`, and leaves the comment behind its value where it is.
fn put(section: &mut dyn TableLike, key: &str, mut value: Value) {
    if let Some(old) = section.get_mut(key) {
        if let Some(old) = old.as_value() {
            *value.decor_mut() = old.decor().clone();
        }
        *old = Item::Value(value);
    } else {
        section.insert(key, Item::Value(value));
    }
}

/// A document that passed as a configuration and has another shape here.
fn odd(path: &Path) -> Failure {
    Failure::ConfigInvalid {
        path: path.to_path_buf(),
        reason: "'[remote.NAME]' is not a table.".to_owned(),
    }
}

/// Replaces `path` durably. The bytes are a file of their own, under a name nobody has, until they
/// are on the disk. A link stays one: the file it points to is replaced.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = match path.canonicalize() {
        Ok(real) => real,
        Err(e) if e.kind() == ErrorKind::NotFound => path.to_path_buf(),
        Err(e) => return Err(e),
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // 0600 from the first moment on.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TEXT: &str = "# All my accounts.\n\n# Twenty is enough.\n[defaults]\nuploads = 2 # slow line\n\n\
        # The old one.\n[remote.old]\nuser = \"o@x\"\n\n# For work.\n[remote.work]\n\
        user = \"w@x\" # not mine\npass-command = \"pass w\"\nhard-delete = true\n# the end\n";

    fn editor(text: &str) -> (tempfile::TempDir, Editor) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let editor = Editor::open(&place(&path, "false")).unwrap();
        (dir, editor)
    }

    fn place(path: &Path, password_command: &str) -> ConfigPlace {
        ConfigPlace::new(Some(path.to_path_buf()), Some(password_command.to_owned()))
    }

    fn new(user: &str, password: NewPassword) -> NewRemote {
        NewRemote {
            user: user.to_owned(),
            password,
            hard_delete: None,
        }
    }

    #[test]
    fn nothing_changes_but_what_is_changed() {
        let (_dir, mut editor) = editor(TEXT);
        editor
            .set("work", &new("new@x", NewPassword::Command("c".into())))
            .unwrap();
        let wanted = TEXT.replace("w@x", "new@x").replace("pass w", "c");
        assert_eq!(editor.text(), wanted);
        editor.set("more", &new("m@x", NewPassword::Ask)).unwrap();
        assert!(
            editor.text().contains("[remote.more]\nuser = \"m@x\"\n"),
            "{}",
            editor.text()
        );
        assert!(editor.text().contains("# the end"));
        assert_eq!(editor.names(), ["more", "old", "work"]);
    }

    #[test]
    fn a_password_has_one_source() {
        let (_dir, mut editor) = editor("[remote.w]\nuser = \"u\"\npass-file = \"/p\"\n");
        editor.set("w", &new("u", NewPassword::AsIs)).unwrap();
        assert_eq!(editor.value("w", "pass-file").unwrap(), "/p");
        editor
            .set("w", &new("u", NewPassword::Obscured("abc".into())))
            .unwrap();
        assert_eq!(editor.value("w", "pass-file"), None);
        editor
            .set("w", &new("u", NewPassword::Command("c".into())))
            .unwrap();
        assert_eq!(
            editor.text(),
            "[remote.w]\nuser = \"u\"\npass-command = \"c\"\n"
        );
        editor.set("w", &new("u", NewPassword::Ask)).unwrap();
        assert_eq!(editor.text(), "[remote.w]\nuser = \"u\"\n");
    }

    #[test]
    fn removing_keeps_the_comments_of_others() {
        let (_dir, mut editor) = editor(TEXT);
        assert!(editor.remove("old").unwrap());
        assert!(!editor.remove("old").unwrap());
        let text = editor.text();
        assert!(
            !text.contains("o@x") && !text.contains("The old one"),
            "{text}"
        );
        for kept in [
            "# All my accounts.",
            "# Twenty",
            "# slow line",
            "# For work.",
            "# the end",
        ] {
            assert!(text.contains(kept), "{kept} in {text}");
        }
        let text =
            "# About the file.\n\n# About it.\n[remote.w]\nuser = \"u\"\n[defaults]\nuploads = 1\n";
        let (_dir, mut editor) = self::editor(text);
        editor.remove("w").unwrap();
        assert_eq!(
            editor.text(),
            "# About the file.\n[defaults]\nuploads = 1\n"
        );
    }

    #[test]
    fn inline_tables_can_be_changed_too() {
        let (_dir, mut editor) = editor("remote = { w = { user = \"u\" } }\n");
        editor
            .set("v", &new("v@x", NewPassword::Command("c".into())))
            .unwrap();
        editor.save().unwrap();
        assert_eq!(editor.names(), ["v", "w"]);
        assert!(editor.remove("w").unwrap());
        editor.save().unwrap();
        let again = Editor::open(&place(editor.path(), "false")).unwrap();
        assert_eq!(again.names(), ["v"]);
    }

    #[test]
    fn the_file_is_closed_and_links_stay() {
        let (dir, mut editor) = editor("");
        let path = editor.path().to_path_buf();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let link = dir.path().join("link.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        editor.path = link.clone();
        editor
            .set("w", &new("u", NewPassword::Obscured("x".into())))
            .unwrap();
        editor.save().unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            2,
            "nothing is left beside"
        );
    }

    #[test]
    fn what_is_encrypted_stays_encrypted() {
        let (dir, mut editor) = editor(TEXT);
        let path = editor.path().to_path_buf();
        let read = || std::fs::read_to_string(&path).unwrap();
        assert!(!editor.is_encrypted());
        editor.encrypt_with(Some(Secret::new("pw".to_owned())));
        editor.save().unwrap();
        let first = read();
        let place = place(&path, "echo pw");
        let mut editor = Editor::open(&place).unwrap();
        assert!(editor.is_encrypted());
        assert_eq!(editor.text(), TEXT, "comments included");
        editor.set("new", &new("n@x", NewPassword::Ask)).unwrap();
        editor.save().unwrap();
        let second = read();
        for text in [&first, &second] {
            assert!(!text.contains("w@x") && !text.contains("remote"), "{text}");
        }
        for at in [1, 2] {
            assert_ne!(first.lines().nth(at), second.lines().nth(at), "line {at}");
        }
        // The command is not run again for what this process has written itself.
        let mut editor = Editor::open(&place).unwrap();
        assert_eq!(editor.names(), ["new", "old", "work"]);
        editor.encrypt_with(None);
        editor.save().unwrap();
        assert!(read().starts_with("# All my accounts.\n"));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn text_in_the_clear_never_replaces_what_was_encrypted_meanwhile() {
        let (_dir, mut late) = editor(TEXT);
        let mut other = Editor::open(&place(late.path(), "false")).unwrap();
        other.encrypt_with(Some(Secret::new("pw".to_owned())));
        other.save().unwrap();
        late.set("new", &new("n@x", NewPassword::Ask)).unwrap();
        let failure = late.save().unwrap_err().to_string();
        assert!(failure.contains("has encrypted it"), "{failure}");
        assert!(unlock::is_encrypted(late.path()).unwrap().unwrap());
    }

    #[test]
    fn redacted_text_tells_nothing() {
        let text = "# SECRET\n[defaults]\nproxy = \"http://SECRET@p\"\nuploads = 3 # SECRET\n\
            [remote.w]\nuser = \"SECRET@x\"\npass = \"SECRET\"\ntotp-command = \"SECRET\"\n\
            [remote.v]\nuser = \"SECRET\"\npass-command = \"SECRET\"\n\
            [remote.l]\nlink = \"SECRET\"\nlink-command = \"SECRET\"\n";
        let text = redacted(text);
        assert!(!text.contains("SECRET"), "{text}");
        assert!(
            text.contains("uploads = 3") && text.contains("[remote.w]\nuser = \"XXX\""),
            "{text}"
        );
    }
}
