//! The operating system, one small module per concern. The only part of the crate, beside the C
//! ABI, with `unsafe` in it.

pub mod clock;
#[cfg(unix)]
pub mod interfaces;
#[cfg(all(target_os = "linux", feature = "farm"))]
pub mod packet;
