//! The changes of the other client, one at a time, each until it is seen.

use super::*;

impl Driver {
    pub(super) fn theirs(&mut self, list: &[Theirs]) -> Checked {
        self.close_all()?;
        if self.regime == Regime::Running {
            self.settle()?;
        }
        for change in list {
            if let Some(fixture) = self.their_change(change) {
                self.announce(fixture)?;
            }
        }
        Ok(())
    }

    /// Lets the other client do it, and waits until it is seen.
    pub(super) fn announce(&mut self, fixture: Fixture) -> Checked {
        let text = format!("{fixture:?}");
        let short: String = text.chars().take(120).collect();
        self.trace.push(format!("they {short}"));
        let old = format!("~{}", self.markers);
        self.markers += 1;
        let marker = format!("~{}", self.markers);
        let mut fixtures = vec![fixture];
        if let Some(id) = self.marker {
            self.model.remote_move(id, ROOT, &marker);
            fixtures.push(Fixture::Rename {
                path: format!("/{old}"),
                name: marker.clone(),
            });
        } else {
            self.marker = self.model.remote_folder(ROOT, &marker);
            fixtures.push(Fixture::folder(&format!("/{marker}")));
        }
        self.world
            .emulator
            .populate(EMAIL, &fixtures)
            .map_err(|error| format!("{fixtures:?}: {error}"))?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let seen = self.world.life().run(self.lookup(1, OsStr::new(&marker)));
            match seen {
                Ok(attr) => {
                    self.forget(attr.ino);
                    return Ok(());
                }
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(errno) => return Err(format!("their changes are not seen: {errno}")),
            }
        }
    }

    /// Something Mega has under a path of its own.
    pub(super) fn pick_server(
        &self,
        index: usize,
        condition: impl Fn(Kind) -> bool,
    ) -> Option<(Id, String)> {
        let mut all: Vec<(Id, String)> = self
            .model
            .nodes
            .keys()
            .filter(|id| **id != ROOT && condition(self.model.get(**id).kind))
            .filter_map(|id| Some((*id, self.model.server_path(*id)?)))
            .filter(|(_, path)| !path.starts_with("/~"))
            .collect();
        (!all.is_empty()).then(|| all.swap_remove(index % all.len()))
    }

    pub(super) fn pick_server_dir(&self, index: usize) -> (Id, String) {
        if index.is_multiple_of(4) {
            return (ROOT, String::new());
        }
        self.pick_server(index / 4, |kind| kind == Kind::Folder)
            .unwrap_or_default()
    }

    pub(super) fn their_change(&mut self, change: &Theirs) -> Option<Fixture> {
        const TIME: i64 = 1_700_000_000;
        match *change {
            Theirs::File { dir, name, size } => {
                let (id, path) = self.pick_server_dir(dir);
                let name = NAMES[name % NAMES.len()];
                let bytes = self.data(size);
                self.model
                    .remote_file(id, name, &bytes, TIME)
                    .then(|| Fixture::file(&format!("{path}/{name}"), bytes, TIME))
            }
            Theirs::Folder { dir, name } => {
                let (id, path) = self.pick_server_dir(dir);
                let name = NAMES[name % NAMES.len()];
                self.model
                    .remote_folder(id, name)
                    .map(|_| Fixture::folder(&format!("{path}/{name}")))
            }
            Theirs::Rename { entry, name } => {
                let (id, path) = self.pick_server(entry, |_| true)?;
                let name = NAMES[name % NAMES.len()].to_owned();
                let parent = self.model.get(id).server.as_ref()?.parent;
                self.model
                    .remote_move(id, parent, &name)
                    .then_some(Fixture::Rename { path, name })
            }
            Theirs::Move { entry, dir } => {
                let (id, path) = self.pick_server(entry, |_| true)?;
                let (folder, to) = self.pick_server_dir(dir);
                let name = self.model.get(id).server.as_ref()?.name.clone();
                self.model
                    .remote_move(id, folder, &name)
                    .then_some(Fixture::Move { path, to })
            }
            Theirs::Overwrite { file, size } => {
                let (id, path) = self.pick_server(file, |kind| kind == Kind::File)?;
                let bytes = self.data(size);
                self.model
                    .remote_overwrite(id, &bytes, TIME, conflict_name)
                    .then_some(Fixture::Overwrite {
                        path,
                        content: FixtureContent::Bytes(bytes),
                        mtime: Some(TIME),
                    })
            }
            Theirs::Delete { entry, for_good } => {
                let (id, path) = self.pick_server(entry, |_| true)?;
                self.model
                    .remote_delete(id, for_good)
                    .then_some(if for_good {
                        Fixture::Remove { path }
                    } else {
                        Fixture::Trash { path }
                    })
            }
        }
    }
}

/// `name (conflict DATE HOST).ext`, as docs/SEMANTICS.md has it.
fn conflict_name(name: &str) -> String {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let today = std::process::Command::new("date")
        .args(["-u", "+%F"])
        .output()
        .unwrap();
    let today = String::from_utf8(today.stdout).unwrap();
    let mark = format!(" (conflict {} {host})", today.trim());
    match name.rfind('.') {
        Some(at) if at > 0 => format!("{}{mark}{}", &name[..at], &name[at..]),
        _ => format!("{name}{mark}"),
    }
}
