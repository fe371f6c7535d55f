//! farm.toml: one file for a whole farm.
