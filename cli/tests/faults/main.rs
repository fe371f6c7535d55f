//! Tests of failing system calls in the commands: no session, address or event is lost or doubled.
//!
//! A scenario is a state of the machine and a command. The command runs again and again from this
//! state. Run N makes the Nth call on a file fail. The last run has no failure. After each run, the
//! same command without a failure and then the usual maintenance must lead to the same state as if
//! no call had failed.
//!
//! Each test runs in its own namespaces with empty directories /run and /var/lib, so the commands
//! use the paths of an installed system.
#![cfg(target_os = "linux")]

mod assigner;
mod machine;
mod sessions;
mod state;
mod sweep;
