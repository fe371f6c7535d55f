//! The map through its public interface: pools given out and taken back, in memory and in files.

mod files;
mod giving;
mod moved;
mod plans;
mod reported;
mod support;
mod threads;
