//! mega-vfs.
