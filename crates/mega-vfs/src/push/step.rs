//! One thing to do on the server, and the commands that do it.

use mega_proto::command::{Command, CrossKeys, Entry};
use mega_proto::{NodeHandle, b64};
use mega_store::{ChangeRow, Subject};

use super::Finished;
use super::journal::Put;

/// One thing to do on the server, made of one or more commands.
pub(crate) enum Step {
    /// New folders below `parent`, in one `p`.
    Folders {
        parent: NodeHandle,
        puts: Vec<Put>,
        entries: Vec<Entry>,
        cr: Option<CrossKeys>,
    },
    /// Content that is on the server becomes a node.
    File {
        put: Box<Put>,
        entry: Entry,
        cr: Option<CrossKeys>,
        /// What was uploaded, or found there; the copy of a whole file has none.
        finished: Option<Finished>,
    },
    /// Another name, place or attribute of a node.
    Edit {
        row: ChangeRow,
        attrs: Option<Vec<u8>>,
        target: Option<NodeHandle>,
        cr: Option<CrossKeys>,
    },
    /// A node goes away; `target` is the rubbish bin, `None` deletes for good.
    Remove {
        handle: NodeHandle,
        target: Option<NodeHandle>,
        /// What it is to say about where it came from.
        attrs: Option<Vec<u8>>,
    },
}

impl Step {
    pub(crate) fn commands(&self, client_id: &str) -> Vec<Command> {
        let i = client_id.to_owned();
        match self {
            Self::Folders {
                parent,
                entries,
                cr,
                ..
            } => {
                vec![Command::Put {
                    t: *parent,
                    n: entries.clone(),
                    i,
                    vb: None,
                    cr: cr.clone(),
                }]
            }
            Self::File { put, entry, cr, .. } => vec![Command::Put {
                t: put.note.parent,
                n: vec![entry.clone()],
                i,
                vb: put.note.over.map(|_| 1),
                cr: cr.clone(),
            }],
            Self::Edit {
                row,
                attrs,
                target,
                cr,
            } => {
                let Subject::Node(handle) = row.subject else {
                    return Vec::new();
                };
                let mut commands = Vec::new();
                if let Some(attrs) = attrs {
                    let at = b64::encode(attrs);
                    commands.push(Command::SetAttributes {
                        n: handle,
                        at,
                        i: i.clone(),
                    });
                }
                if let Some(target) = target {
                    commands.push(Command::Move {
                        n: handle,
                        t: *target,
                        i,
                        cr: cr.clone(),
                    });
                }
                commands
            }
            Self::Remove {
                handle,
                target,
                attrs,
            } => {
                let noted = attrs.as_ref().map(|attrs| Command::SetAttributes {
                    n: *handle,
                    at: b64::encode(attrs),
                    i: i.clone(),
                });
                let gone = match target {
                    Some(bin) => Command::Move {
                        n: *handle,
                        t: *bin,
                        i,
                        cr: None,
                    },
                    None => Command::Delete {
                        n: *handle,
                        i,
                        v: None,
                    },
                };
                noted.into_iter().chain([gone]).collect()
            }
        }
    }

    pub(crate) fn subjects(&self) -> Vec<Subject> {
        match self {
            Self::Folders { puts, .. } => puts.iter().map(|put| put.subject).collect(),
            Self::File { put, .. } => vec![put.subject],
            Self::Edit { row, .. } => vec![row.subject],
            Self::Remove { handle, .. } => vec![Subject::Node(*handle)],
        }
    }
}
