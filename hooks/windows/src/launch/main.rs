//! `vipool-launch [--explain] PROGRAM [ARGUMENT...]`: runs a program with the hook layer in it.
//!
//! The program is started suspended, `vipool_hook.dll` (beside this file) is put into it, and it
//! runs on when every hook is in place. Its exit code is handed through. If it can't be hooked it
//! runs as it would without vipool, and standard error says why.

// Shared with the DLL by its source: a library between them would keep the DLL from being
// optimised as a whole.
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
    eprintln!("vipool-launch is for Windows; here it is 'vipool run'");
    std::process::ExitCode::from(2)
}
