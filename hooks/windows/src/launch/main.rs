//! `vipool-launch [--explain] PROGRAM [ARGUMENT...]`: runs a program with the hook layer in it.
//!
//! The launcher starts the program suspended, loads `vipool_hook.dll` (from the launcher's own
//! directory) into it, and resumes the program when every hook is in place. The launcher exits with
//! the exit code of the program. If the hook layer cannot be loaded into the program, the program
//! runs without vipool, and the launcher prints the reason on standard error.

// The launcher and the DLL both compile `inject.rs` and `install_status.rs`. If the launcher used
// the crate of the DLL as a library instead, cargo would not apply link-time optimisation to the
// DLL.
#[cfg(windows)]
#[path = "../inject.rs"]
mod inject;
#[cfg(windows)]
#[path = "../install_status.rs"]
mod install_status;
#[cfg(windows)]
mod launcher;

#[cfg(windows)]
fn main() {
    launcher::main()
}

#[cfg(not(windows))]
fn main() -> std::process::ExitCode {
    eprintln!("vipool-launch is for Windows only (use 'vipool run' on this system)");
    std::process::ExitCode::from(2)
}
