//! Exit statuses that several subcommands share. `vipool run` has more exit statuses, which its
//! `--help` lists.

/// vipool itself failed.
pub const FAILURE: u8 = 1;
/// No address was available for the session: EX_TEMPFAIL of sysexits(3).
pub const NO_ADDRESS: u8 = 75;
