//! Exit statuses that several subcommands share. The `--help` of `vipool run` lists its other exit
//! statuses.

/// vipool itself failed.
pub const FAILURE: u8 = 1;
/// No address was available for the session: EX_TEMPFAIL of sysexits(3).
pub const NO_ADDRESS: u8 = 75;
