//! The hook layer for Linux.
