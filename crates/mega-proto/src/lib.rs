//! The vocabulary of the wire: handles, nodes, commands, replies, event packets, error codes.
//!
//! Owns how each of them is spelled in JSON and in base64 (`protocol/01`, `03`, `05`). Promises that
//! decoding never panics and that one odd element never costs its neighbours. Never does I/O and
//! never knows a key.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod b64;
pub mod command;
mod error_code;
pub mod event;
mod handle;
mod liberal;
mod node;
mod opaque;
pub mod reply;
mod tree;

pub use command::{Command, CrossKeys, Entry, EntrySource};
pub use error_code::ErrorCode;
pub use event::{ActionPacket, EventReply, Packet};
pub use handle::{HandleError, NodeHandle, PublicHandle, UserHandle};
pub use node::{LooseNode, NodeKind, RawNode};
pub use opaque::{Seqno, SessionId, UploadToken};
pub use tree::{Link, OwnShareKey, Share, ShareTarget, TreeItem, User};
