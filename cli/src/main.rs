//! The command line of vipool.
fn main() {}
