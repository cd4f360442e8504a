//! The operations of the user, and the answer that each has to give.

use super::*;

impl Driver {
    pub(super) fn data(&mut self, size: usize) -> Vec<u8> {
        self.salt += 1;
        pattern(self.salt, 0, size as u64)
    }

    pub(super) fn pick(&self, index: usize, condition: impl Fn(Kind) -> bool) -> Option<Id> {
        let mut all = self.model.visible();
        let marker = self.marker.unwrap_or(ROOT);
        all.retain(|id| *id != ROOT && *id != marker && condition(self.model.get(*id).kind));
        (!all.is_empty()).then(|| all[index % all.len()])
    }

    pub(super) fn pick_file(&self, index: usize) -> Option<Id> {
        self.pick(index, |kind| kind == Kind::File)
    }

    pub(super) fn pick_dir(&self, index: usize) -> Id {
        let mut all = self.model.visible();
        all.retain(|id| Some(*id) != self.marker && self.model.get(*id).is_folder());
        all[index % all.len()]
    }

    /// Parent and spelling.
    pub(super) fn name_of(&self, id: Id) -> (Id, String) {
        let node = self.model.get(id);
        let parent = node.spot().expect("is shown").parent;
        (parent, node.spelling.clone().expect("was seen"))
    }

    pub(super) fn make(
        &mut self,
        dir: usize,
        name: usize,
        kind: Kind,
        bytes: &[u8],
        exec: bool,
    ) -> Checked {
        let dir = self.pick_dir(dir);
        let name = NAMES[name % NAMES.len()];
        let parent = self.ino(dir)?;
        let life = self.world.life();
        let vfs = &life.vfs;
        let mut mode = read_write();
        mode.exclusive = true;
        let perm = if exec { 0o755 } else { 0o644 };
        let os_name = OsStr::new(name);
        let made = life.run(async {
            let ino = match kind {
                Kind::Folder => vfs.mkdir(parent, os_name, 0o755).await?.attr.ino,
                Kind::Symlink => {
                    let target = std::str::from_utf8(bytes).unwrap();
                    let entry = vfs.symlink(parent, os_name, OsStr::new(target)).await?;
                    entry.attr.ino
                }
                Kind::File => {
                    let (entry, opened) = vfs.create(parent, os_name, perm, mode).await?;
                    let ino = entry.attr.ino;
                    for (index, piece) in bytes.chunks(100_000).enumerate() {
                        let offset = index as u64 * 100_000;
                        vfs.write(ino, opened.fh, WriteAt::Offset(offset), piece)
                            .await?;
                    }
                    vfs.flush(ino, opened.fh).await?;
                    vfs.release(ino, opened.fh).await?;
                    ino
                }
            };
            vfs.forget(ino, 1);
            Ok(())
        });
        if dir != ROOT {
            vfs.forget(parent, 1);
        }
        if self.model.find(dir, name).is_some() {
            return same("making what exists", &made, &Err(Errno::EXIST));
        }
        same("making", &made, &Ok(()))?;
        let id = self.model.make(dir, name, kind, bytes);
        self.model.get_mut(id).exec = exec;
        self.note(&format!("make {kind:?} of {}", bytes.len()), id);
        Ok(())
    }

    pub(super) fn edit(
        &mut self,
        id: Id,
        offset: Option<usize>,
        data: &[u8],
        truncate: bool,
    ) -> Checked {
        let ino = self.ino(id)?;
        self.note(
            &format!("write {} at {offset:?} truncate {truncate}", data.len()),
            id,
        );
        let life = self.world.life();
        let vfs = &life.vfs;
        let mode = OpenMode {
            truncate,
            ..read_write()
        };
        let at = offset.map_or(WriteAt::End, |offset| WriteAt::Offset(offset as u64));
        let done = life.run(async {
            let fh = vfs.open(ino, mode).await?.fh;
            if !data.is_empty() {
                vfs.write(ino, fh, at, data).await?;
            }
            vfs.flush(ino, fh).await?;
            vfs.release(ino, fh).await
        });
        same("writing", &done, &Ok(()))?;
        self.forget(ino);
        if truncate {
            // O_TRUNC sets the time even when there is nothing to cut.
            self.model.truncate(id, 0);
            let node = self.model.get_mut(id);
            node.time = None;
            node.content = Some(node.bytes().clone());
        }
        if !data.is_empty() {
            self.model.write(id, offset, data);
        }
        Ok(())
    }

    pub(super) fn close(&mut self, open: Open) -> Checked {
        self.trace.push(format!("close {open:?}"));
        let life = self.world.life();
        let vfs = &life.vfs;
        let closed = life.run(async {
            vfs.flush(open.ino, open.fh).await?;
            vfs.release(open.ino, open.fh).await
        });
        same("closing", &closed, &Ok(()))?;
        self.forget(open.ino);
        if let Some(node) = self.model.nodes.get_mut(&open.id) {
            node.openers -= 1;
        }
        self.model.forget_gone();
        Ok(())
    }

    pub(super) fn setattr(&mut self, id: Id, wanted: SetAttr) -> Checked {
        self.note(&format!("setattr {wanted:?}"), id);
        let ino = self.ino(id)?;
        let life = self.world.life();
        let done = life.run(life.vfs.setattr(ino, wanted)).map(|_| ());
        self.forget(ino);
        same("setattr", &done, &Ok(()))
    }

    pub(super) fn ours(&mut self, op: &Op) -> Checked {
        match *op {
            Op::Create {
                dir,
                name,
                size,
                exec,
            } => {
                let bytes = self.data(size);
                self.make(dir, name, Kind::File, &bytes, exec)
            }
            Op::Mkdir { dir, name } => self.make(dir, name, Kind::Folder, &[], false),
            Op::Symlink { dir, name, target } => {
                self.salt += 1;
                let target = format!("{}/{}", NAMES[target % NAMES.len()], self.salt);
                self.make(dir, name, Kind::Symlink, target.as_bytes(), false)
            }
            Op::Write {
                file,
                offset,
                size,
                truncate,
            } => {
                let data = self.data(size);
                match self.pick_file(file) {
                    Some(id) => self.edit(id, Some(offset), &data, truncate),
                    None => Ok(()),
                }
            }
            Op::Append { file, size } => {
                let data = self.data(size);
                match self.pick_file(file) {
                    Some(id) => self.edit(id, None, &data, false),
                    None => Ok(()),
                }
            }
            Op::Truncate { file, size } => {
                let Some(id) = self.pick_file(file) else {
                    return Ok(());
                };
                let wanted = SetAttr {
                    size: Some(size as u64),
                    ..SetAttr::default()
                };
                self.setattr(id, wanted)?;
                self.model.truncate(id, size);
                Ok(())
            }
            Op::Chmod { file, exec } => {
                let Some(id) = self.pick_file(file) else {
                    return Ok(());
                };
                let wanted = SetAttr {
                    mode: Some(if exec { 0o755 } else { 0o644 }),
                    ..SetAttr::default()
                };
                self.setattr(id, wanted)?;
                let node = self.model.get_mut(id);
                node.is_touched |= node.exec != exec;
                node.exec = exec;
                Ok(())
            }
            Op::Touch { entry, secs, nanos } => {
                let Some(id) = self.pick(entry, |_| true) else {
                    return Ok(());
                };
                let wanted = SetAttr {
                    mtime: Some(Timestamp { secs, nanos }),
                    ..SetAttr::default()
                };
                self.setattr(id, wanted)?;
                let node = self.model.get_mut(id);
                node.is_touched = true;
                node.time = Some((secs, nanos));
                Ok(())
            }
            Op::Unlink { entry } => self.unlink(entry),
            Op::Rmdir { entry } => self.rmdir(entry),
            Op::Rename {
                entry,
                dir,
                name,
                mode,
            } => self.rename(entry, dir, name, mode),
            Op::Open { file, write } => self.open(file, write),
            Op::WriteTo {
                handle,
                offset,
                size,
            } => self.write_to(handle, offset, size),
            Op::ReadFrom { handle } => self.read_from(handle),
            Op::Sync { handle } => {
                let Some(open) = self.handle(handle) else {
                    return Ok(());
                };
                let life = self.world.life();
                let done = life.run(life.vfs.fsync(open.ino, open.fh, false));
                same("fsync", &done, &Ok(()))
            }
            Op::Close { handle } => {
                if self.open.is_empty() {
                    return Ok(());
                }
                let open = self.open.swap_remove(handle % self.open.len());
                self.close(open)
            }
            Op::SyncDir => {
                let life = self.world.life();
                let done = life.run(life.vfs.fsyncdir(1));
                same("fsyncdir", &done, &Ok(()))
            }
        }
    }

    pub(super) fn unlink(&mut self, entry: usize) -> Checked {
        let Some(id) = self.pick(entry, |_| true) else {
            return Ok(());
        };
        let (parent, name) = self.name_of(id);
        let ino = self.ino(parent)?;
        let life = self.world.life();
        let done = life.run(life.vfs.unlink(ino, OsStr::new(&name)));
        if self.model.get(id).is_folder() {
            return same("unlink of a folder", &done, &Err(Errno::ISDIR));
        }
        same("unlink", &done, &Ok(()))?;
        self.note("unlink", id);
        self.model.remove(id);
        Ok(())
    }

    pub(super) fn rmdir(&mut self, entry: usize) -> Checked {
        // Mostly folders, or hardly one is ever removed.
        let only_folders = !entry.is_multiple_of(8);
        let picked = self.pick(entry / 8, |kind| !only_folders || kind == Kind::Folder);
        let Some(id) = picked else { return Ok(()) };
        let (parent, name) = self.name_of(id);
        let ino = self.ino(parent)?;
        let life = self.world.life();
        let done = life.run(life.vfs.rmdir(ino, OsStr::new(&name)));
        if !self.model.get(id).is_folder() {
            return same("rmdir of a file", &done, &Err(Errno::NOTDIR));
        }
        if !self.model.children(id).is_empty() {
            return same("rmdir of a full folder", &done, &Err(Errno::NOTEMPTY));
        }
        same("rmdir", &done, &Ok(()))?;
        self.note("rmdir", id);
        self.model.remove(id);
        Ok(())
    }

    pub(super) fn rename(&mut self, entry: usize, dir: usize, name: usize, mode: Mode) -> Checked {
        let Some(id) = self.pick(entry, |_| true) else {
            return Ok(());
        };
        let (parent, old_name) = self.name_of(id);
        let folder = self.pick_dir(dir);
        let name = NAMES[name % NAMES.len()];
        let (from, to) = (self.ino(parent)?, self.ino(folder)?);
        let how = match mode {
            Mode::Replace => RenameMode::Replace,
            Mode::NoReplace => RenameMode::NoReplace,
            Mode::Exchange => RenameMode::Exchange,
        };
        let life = self.world.life();
        let done =
            life.run(
                life.vfs
                    .rename(from, OsStr::new(&old_name), to, OsStr::new(name), how),
            );
        let over = self.model.find(folder, name);
        let expected = self.rename_rules(id, parent, folder, over, mode);
        same("rename", &done, &expected)?;
        if expected.is_err() || over == Some(id) {
            return Ok(());
        }
        self.note(
            &format!("rename {mode:?} to {:?}/{name}:", self.model.path(folder)),
            id,
        );
        match (mode, over) {
            (Mode::Exchange, Some(other)) => self.model.exchange(id, other),
            _ => self.model.rename(id, folder, name, over),
        }
        Ok(())
    }

    pub(super) fn rename_rules(
        &self,
        id: Id,
        parent: Id,
        folder: Id,
        over: Option<Id>,
        mode: Mode,
    ) -> Result<(), Errno> {
        if self.model.would_cycle(id, folder) {
            return Err(Errno::INVAL);
        }
        let Some(over) = over else {
            return if mode == Mode::Exchange {
                Err(Errno::NOENT)
            } else {
                Ok(())
            };
        };
        let is_folder = |id| self.model.get(id).is_folder();
        match mode {
            Mode::NoReplace => Err(Errno::EXIST),
            Mode::Exchange if self.model.would_cycle(over, parent) => Err(Errno::INVAL),
            Mode::Exchange => Ok(()),
            Mode::Replace if over == id => Ok(()),
            Mode::Replace => match (is_folder(id), is_folder(over)) {
                (true, false) => Err(Errno::NOTDIR),
                (false, true) => Err(Errno::ISDIR),
                (true, true) if !self.model.children(over).is_empty() => Err(Errno::NOTEMPTY),
                _ => Ok(()),
            },
        }
    }

    pub(super) fn handle(&self, index: usize) -> Option<Open> {
        (!self.open.is_empty()).then(|| self.open[index % self.open.len()])
    }

    pub(super) fn open(&mut self, file: usize, write: bool) -> Checked {
        if self.open.len() >= 5 {
            return Ok(());
        }
        let Some(id) = self.pick_file(file) else {
            return Ok(());
        };
        let ino = self.ino(id)?;
        let life = self.world.life();
        let mode = if write { read_write() } else { read_only() };
        let fh = life
            .run(life.vfs.open(ino, mode))
            .map_err(|errno| format!("open: {errno}"))?
            .fh;
        self.note(&format!("open, write {write}"), id);
        self.open.push(Open { id, ino, fh, write });
        self.model.get_mut(id).openers += 1;
        Ok(())
    }

    pub(super) fn write_to(&mut self, handle: usize, offset: usize, size: usize) -> Checked {
        let data = self.data(size);
        let Some(open) = self.handle(handle) else {
            return Ok(());
        };
        let life = self.world.life();
        let done =
            life.run(
                life.vfs
                    .write(open.ino, open.fh, WriteAt::Offset(offset as u64), &data),
            );
        if !open.write {
            return same("writing to a reader", &done, &Err(Errno::BADF));
        }
        same("writing", &done, &Ok(data.len() as u32))?;
        self.trace
            .push(format!("write {size} at {offset} to {open:?}"));
        self.model.write(open.id, Some(offset), &data);
        Ok(())
    }

    pub(super) fn read_from(&mut self, handle: usize) -> Checked {
        let Some(open) = self.handle(handle) else {
            return Ok(());
        };
        let life = self.world.life();
        let vfs = &life.vfs;
        let expected = self.model.get(open.id).bytes();
        let size = expected.len() as u64;
        let read = life.run(async {
            let mut bytes = Vec::new();
            while (bytes.len() as u64) < size {
                let at = bytes.len() as u64;
                let piece = vfs.read(open.ino, open.fh, at, 1 << 17).await?;
                if piece.is_empty() {
                    break;
                }
                bytes.extend_from_slice(&piece);
            }
            Ok::<_, Errno>(bytes)
        });
        let read = read.map_err(|errno| format!("reading an open file: {errno}"))?;
        ensure!(
            read == **expected,
            "an open file has other bytes ({} of {size})",
            read.len()
        );
        Ok(())
    }
}
