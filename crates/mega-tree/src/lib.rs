//! mega-tree.
