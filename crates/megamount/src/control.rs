//! The control socket: how the commands talk to a mount that is up.
//!
//! The daemon listens on a socket of its own in a private directory (`place`) and answers lines of
//! JSON (`protocol`) for as long as it lives, also while it uploads the rest after an unmount
//! (`server`). Only its own user and root are answered. A client (`client`) finds the mount by its
//! mountpoint or by the name of its remote. Nothing here can hold up a file operation: requests are
//! served beside them, and each of them takes the locks of the file system for moments only.

pub(crate) mod client;
pub(crate) mod files;
pub(crate) mod place;
pub(crate) mod protocol;
pub(crate) mod report;
pub(crate) mod server;
