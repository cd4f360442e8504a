//! Looking: everything that is seen, compared with the reference.

use super::*;

impl Driver {
    pub(super) async fn lookup(&self, parent: u64, name: &OsStr) -> Result<Attr, Errno> {
        match self.world.life().vfs.lookup(parent, name).await? {
            Lookup::Found(entry) => Ok(entry.attr),
            Lookup::Missing { .. } => Err(Errno::NOENT),
        }
    }

    /// The inode of a node in the reference; the kernel's references to the way there are dropped.
    pub(super) fn ino(&self, id: Id) -> Checked<u64> {
        let path = self.model.path(id);
        let life = self.world.life();
        life.run(async {
            let mut at = 1;
            for name in &path {
                let next = self
                    .lookup(at, OsStr::new(name))
                    .await
                    .map_err(|errno| format!("{path:?}: {errno}"))?
                    .ino;
                if at != 1 {
                    life.vfs.forget(at, 1);
                }
                at = next;
            }
            Ok(at)
        })
    }

    pub(super) fn forget(&self, ino: u64) {
        self.world.life().vfs.forget(ino, 1);
    }

    pub(crate) fn compare(&mut self) -> Checked {
        let mut waiting = vec![(ROOT, 1_u64)];
        while let Some((folder, ino)) = waiting.pop() {
            let listed = self.list(ino)?;
            let found = self.match_names(folder, &listed)?;
            for (id, name) in found {
                let attr = self
                    .world
                    .life()
                    .run(self.lookup(ino, &name))
                    .map_err(|errno| format!("{name:?}: {errno}"))?;
                self.compare_node(id, &attr)
                    .map_err(|text| format!("{:?}: {text}", self.model.path(id)))?;
                if self.model.get(id).is_folder() {
                    waiting.push((id, attr.ino));
                } else {
                    self.forget(attr.ino);
                }
            }
            if ino != 1 {
                self.forget(ino);
            }
        }
        Ok(())
    }

    pub(super) fn list(&self, ino: u64) -> Checked<BTreeMap<OsString, FileKind>> {
        let life = self.world.life();
        let vfs = &life.vfs;
        let listing = life.run(async {
            let fh = vfs.opendir(ino).await?.fh;
            let mut all = Vec::new();
            let mut offset = 0;
            loop {
                let page = vfs.readdir(ino, fh, offset, 7).await?;
                let Some(last) = page.last() else { break };
                offset = last.next_offset;
                all.extend(page);
            }
            vfs.releasedir(fh).await?;
            Ok::<_, Errno>(all)
        });
        let listing = listing.map_err(|errno| format!("listing: {errno}"))?;
        let mut names = BTreeMap::new();
        for entry in listing {
            if entry.name == "." || entry.name == ".." {
                continue;
            }
            let twice = names.insert(entry.name.clone(), entry.kind).is_some();
            ensure!(!twice, "{:?} is listed twice", entry.name);
        }
        Ok(names)
    }

    /// Gives every node of the folder its name in the listing. A spelling that was seen stays; who of
    /// several of one stored name gets which number is for the file system to say, once.
    pub(super) fn match_names(
        &mut self,
        folder: Id,
        listed: &BTreeMap<OsString, FileKind>,
    ) -> Checked<Vec<(Id, OsString)>> {
        let path = self.model.path(folder);
        let children = self.model.children(folder);
        let mut free = listed.clone();
        let mut found = Vec::new();
        let mut fresh = Vec::new();
        for id in children {
            match &self.model.get(id).spelling {
                Some(name) => {
                    let name = OsString::from(name);
                    ensure!(
                        free.remove(&name).is_some(),
                        "{path:?}: no {name:?} in {listed:?}"
                    );
                    found.push((id, name));
                }
                None => fresh.push(id),
            }
        }
        for id in fresh {
            let name = self.recognise(folder, id, &free)?;
            free.remove(&name);
            let node = self.model.get_mut(id);
            node.spelling = name.to_str().map(str::to_owned);
            found.push((id, name));
        }
        ensure!(free.is_empty(), "{path:?}: too much: {free:?}");
        Ok(found)
    }

    pub(super) fn recognise(
        &self,
        folder: Id,
        id: Id,
        free: &BTreeMap<OsString, FileKind>,
    ) -> Checked<OsString> {
        let node = self.model.get(id);
        let stored = &node.spot().expect("is shown").name;
        let ino = if folder == ROOT { 1 } else { self.ino(folder)? };
        for (name, kind) in free {
            let text = name.to_str().unwrap_or_default();
            if kind_of(*kind) != node.kind || !is_spelling_of(text, stored) {
                continue;
            }
            let attr = self.world.life().run(self.lookup(ino, name));
            let attr = attr.map_err(|errno| format!("{name:?}: {errno}"))?;
            let is_it = if node.kind == Kind::Folder {
                self.may_be(id, &self.list(attr.ino)?)
            } else {
                self.bytes(&attr)? == **node.bytes()
            };
            self.forget(attr.ino);
            if is_it {
                return Ok(name.clone());
            }
        }
        Err(format!(
            "{:?}: nothing in {free:?} can be '{stored}'",
            self.model.path(folder)
        ))
    }

    /// Whether this is the listing of the folder.
    fn may_be(&self, folder: Id, listed: &BTreeMap<OsString, FileKind>) -> bool {
        let children = self.model.children(folder);
        let shows = |id: &Id| {
            let node = self.model.get(*id);
            let stored = &node.spot().expect("is shown").name;
            listed.iter().any(|(name, kind)| {
                kind_of(*kind) == node.kind
                    && is_spelling_of(name.to_str().unwrap_or_default(), stored)
            })
        };
        children.len() == listed.len() && children.iter().all(shows)
    }

    pub(super) fn bytes(&self, attr: &Attr) -> Checked<Vec<u8>> {
        let life = self.world.life();
        let vfs = &life.vfs;
        if attr.kind == FileKind::Symlink {
            let target = life.run(vfs.readlink(attr.ino));
            return target.map_err(|errno| format!("readlink: {errno}"));
        }
        life.run(async {
            let fh = vfs.open(attr.ino, read_only()).await?.fh;
            let mut bytes = Vec::new();
            loop {
                let piece = vfs.read(attr.ino, fh, bytes.len() as u64, 1 << 17).await?;
                if piece.is_empty() {
                    break;
                }
                bytes.extend_from_slice(&piece);
            }
            vfs.release(attr.ino, fh).await?;
            Ok(bytes)
        })
        .map_err(|errno: Errno| format!("reading: {errno}"))
    }

    pub(super) fn compare_node(&mut self, id: Id, attr: &Attr) -> Checked {
        let node = self.model.get(id);
        same("kind", &kind_of(attr.kind), &node.kind)?;
        if node.kind == Kind::Folder {
            return Ok(());
        }
        let bytes = node.bytes();
        same("size", &attr.size, &(bytes.len() as u64))?;
        if node.kind == Kind::File && !is_ignored("attributes") {
            same("executable", &(attr.perm & 0o100 != 0), &node.exec)?;
        }
        let time = (attr.mtime.secs, attr.mtime.nanos);
        if let Some(expected) = node.time {
            same("mtime", &time, &expected)?;
        }
        let read = self.bytes(attr)?;
        if read != **bytes {
            let at = read.iter().zip(bytes.iter()).position(|(a, b)| a != b);
            return Err(format!(
                "{} bytes, the first wrong one at {at:?}",
                read.len()
            ));
        }
        // The time of a write is whatever was shown first, as long as nobody writes.
        if node.time.is_none() && node.openers == 0 {
            self.model.get_mut(id).time = Some(time);
        }
        Ok(())
    }
}

/// Whether `text` is `stored` or that with a number, as duplicates are shown.
fn is_spelling_of(text: &str, stored: &str) -> bool {
    if text == stored {
        return true;
    }
    let Some((before, rest)) = text.rsplit_once(" (") else {
        return false;
    };
    let Some((number, after)) = rest.split_once(')') else {
        return false;
    };
    number.parse::<u32>().is_ok() && format!("{before}{after}") == stored
}
