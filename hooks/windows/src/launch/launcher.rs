//! The launcher: starts a program suspended, injects the DLL, resumes the program and returns its
//! exit code.

use std::env;
use std::ffi::OsString;
use std::mem::size_of;
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{CloseHandle, FreeLibrary, GetLastError};
use windows_sys::Win32::System::Console::SetConsoleCtrlHandler;
use windows_sys::Win32::System::Environment::GetCommandLineW;
use windows_sys::Win32::System::LibraryLoader::{
    DONT_RESOLVE_DLL_REFERENCES, GetProcAddress, LoadLibraryExW,
};
use windows_sys::Win32::System::Threading::{
    CREATE_SUSPENDED, CreateProcessW, GetExitCodeProcess, GetStartupInfoW, INFINITE,
    PROCESS_INFORMATION, ResumeThread, STARTUPINFOW, WaitForSingleObject,
};
use windows_sys::core::{BOOL, s};

use crate::inject::Dll;

/// The exit code if the launcher itself fails.
const LAUNCHER_FAILURE_CODE: u32 = 125;
const USAGE: &str = "usage: vipool-launch [--explain] PROGRAM [ARGUMENT...]\n\
    Runs a program with the addresses of its session.\n  \
    --explain  print the status of the hook layer on standard error";

/// Runs the launcher.
pub fn main() -> ! {
    let exit_code = match run() {
        Ok(exit_code) => exit_code,
        Err(error) => {
            eprintln!("vipool-launch: {error}");
            LAUNCHER_FAILURE_CODE
        }
    };
    std::process::exit(exit_code as i32)
}

fn run() -> Result<u32, String> {
    let mut remaining_line = skip_argument(&command_line()).to_vec();
    let mut should_explain = false;
    loop {
        let (option, after_option) = split_argument(&remaining_line);
        match String::from_utf16_lossy(&option).as_str() {
            "" => return Err(USAGE.to_owned()),
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(0);
            }
            "--explain" => should_explain = true,
            "--" => {
                remaining_line = after_option.to_vec();
                break;
            }
            unknown if unknown.starts_with("--") => {
                return Err(format!("unknown option {unknown}\n{USAGE}"));
            }
            _ => break,
        }
        remaining_line = after_option.to_vec();
    }
    let (program, _) = split_argument(&remaining_line);
    let program = OsString::from_wide(&program);
    if program.is_empty() {
        return Err(USAGE.to_owned());
    }
    let dll = env::current_exe()
        .map_err(|error| format!("cannot find the launcher's own file: {error}"))?
        .with_file_name("vipool_hook.dll");
    run_program(&program, remaining_line, &dll, should_explain)
}

/// Runs the command line with the hook layer and returns the exit code of the program.
fn run_program(
    program: &OsString,
    mut command_line: Vec<u16>,
    dll: &Path,
    should_explain: bool,
) -> Result<u32, String> {
    command_line.push(0);
    // SAFETY: zeroes are valid values of both structures. CreateProcessW uses them and the command
    // line during the call only. Each handle is closed once.
    unsafe {
        let mut startup: STARTUPINFOW = std::mem::zeroed();
        GetStartupInfoW(&mut startup);
        startup.cb = size_of::<STARTUPINFOW>() as u32;
        let mut process: PROCESS_INFORMATION = std::mem::zeroed();
        let started = CreateProcessW(
            null(),
            command_line.as_mut_ptr(),
            null(),
            null(),
            1,
            CREATE_SUSPENDED,
            null(),
            null(),
            &startup,
            &mut process,
        );
        if started == 0 {
            let error = std::io::Error::from_raw_os_error(GetLastError() as i32);
            return Err(format!("cannot start {}: {error}", program.display()));
        }
        let result = describe_dll(dll).and_then(|dll| {
            dll.inject(process.hProcess, 0)
                .map_err(|error| format!("{} (Windows error {})", error.message, error.error_code))
        });
        match result {
            Err(error) => {
                eprintln!("vipool-launch: {} runs without vipool: {error}", program.display());
            }
            Ok(status) if should_explain => {
                eprintln!("vipool-launch: {}: {}", program.display(), status.description());
            }
            Ok(_) => {}
        }
        // The console sends Ctrl-C to the program too. The launcher ignores Ctrl-C, so that it can
        // wait for the program and return its exit code.
        SetConsoleCtrlHandler(Some(ignore_console_event), 1);
        ResumeThread(process.hThread);
        CloseHandle(process.hThread);
        WaitForSingleObject(process.hProcess, INFINITE);
        let mut exit_code = LAUNCHER_FAILURE_CODE;
        GetExitCodeProcess(process.hProcess, &mut exit_code);
        CloseHandle(process.hProcess);
        Ok(exit_code)
    }
}

/// Reports to the system that the console event is handled.
unsafe extern "system" fn ignore_console_event(_event: u32) -> BOOL {
    1
}

/// Returns the path of the DLL and the offset of `vipool_hook_install` in the DLL. Runs no code of
/// the DLL, because its `DllMain` would install the hooks in the launcher.
fn describe_dll(dll: &Path) -> Result<Dll, String> {
    let load_error = || format!("cannot load {}", dll.display());
    let wide_path: Vec<u16> =
        PathBuf::from(dll).into_os_string().encode_wide().chain([0]).collect();
    // SAFETY: the path ends in NUL. The module is freed once. The launcher calls no code of the
    // module. It only subtracts the base address of the module from the address of the function.
    unsafe {
        let module = LoadLibraryExW(wide_path.as_ptr(), null_mut(), DONT_RESOLVE_DLL_REFERENCES);
        if module.is_null() {
            return Err(load_error());
        }
        let install_function = GetProcAddress(module, s!("vipool_hook_install"));
        let install_offset = install_function.map(|address| address as usize - module as usize);
        FreeLibrary(module);
        let install_offset =
            install_offset.ok_or_else(|| format!("{} is not the DLL of vipool", dll.display()))?;
        Dll::new(&wide_path, install_offset).ok_or_else(load_error)
    }
}

/// Returns the command line of this process. The launcher passes the part after its own arguments
/// to the program unchanged, so that no argument is quoted twice.
fn command_line() -> Vec<u16> {
    // SAFETY: the system returns a pointer to a constant string that ends in NUL.
    unsafe {
        let text = GetCommandLineW();
        let length = (0..).take_while(|index| *text.add(*index) != 0).count();
        std::slice::from_raw_parts(text, length).to_vec()
    }
}

/// Returns the command line without its first argument and the blanks that follow it.
fn skip_argument(line: &[u16]) -> &[u16] {
    split_argument(line).1
}

/// Returns the first argument without its quotes, and the remaining line. Blanks outside quotes
/// separate arguments, as in CreateProcess.
fn split_argument(line: &[u16]) -> (Vec<u16>, &[u16]) {
    let is_blank = |unit: u16| unit == u16::from(b' ') || unit == u16::from(b'\t');
    let start = line.iter().take_while(|unit| is_blank(**unit)).count();
    let mut is_quoted = false;
    let mut argument = Vec::new();
    let mut end = start;
    while let Some(unit) = line.get(end).copied().filter(|unit| is_quoted || !is_blank(*unit)) {
        if unit == u16::from(b'"') {
            is_quoted = !is_quoted;
        } else {
            argument.push(unit);
        }
        end += 1;
    }
    let blank_count = line[end..].iter().take_while(|unit| is_blank(**unit)).count();
    (argument, &line[end + blank_count..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> (String, String) {
        let line: Vec<u16> = line.encode_utf16().collect();
        let (argument, remaining) = split_argument(&line);
        (String::from_utf16(&argument).unwrap(), String::from_utf16(remaining).unwrap())
    }

    #[test]
    fn splitting_keeps_the_rest_of_the_command_line_unchanged() {
        assert_eq!(
            split(r#""C:\a b\x.exe"  a "b c" \"d"#),
            ("C:\\a b\\x.exe".into(), r#"a "b c" \"d"#.into())
        );
        assert_eq!(split("x.exe"), ("x.exe".into(), String::new()));
        assert_eq!(split(" x"), ("x".into(), String::new()));
        assert_eq!(split(""), (String::new(), String::new()));
        assert_eq!(split(r#"a"b c"d e"#), ("ab cd".into(), "e".into()));
        assert_eq!(split(r#""open"#), ("open".into(), String::new()));
    }
}
