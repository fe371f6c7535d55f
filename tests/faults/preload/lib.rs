//! A preloaded object that lets one call of a program fail.
//!
//! `VIPOOL_FAULT` selects the fault and the call: `errno:CODE:NUMBER`, `no-space:NUMBER`,
//! `interrupt:NUMBER` or `short:NUMBER`. The number 0 selects every call. The fault applies to the
//! main thread. When the program exits, this object writes the name of the function that the fault
//! hit to the file `VIPOOL_FAULT_REPORT`. The file is empty if the program made fewer calls.
//! Programs that this program starts have no fault.
#![cfg(target_os = "linux")]

#[path = "../interpose.rs"]
#[allow(dead_code)]
mod interpose;

use std::env;
use std::ffi::{OsString, c_char, c_int};
use std::sync::OnceLock;

use interpose::{Fault, arm, disarm};

const FAULT_VARIABLE: &str = "VIPOOL_FAULT";
const REPORT_VARIABLE: &str = "VIPOOL_FAULT_REPORT";

/// The path of the report. It is not set in a program without a fault.
static REPORT_PATH: OnceLock<OsString> = OnceLock::new();

/// Arms the fault before `main` runs.
extern "C" fn initialize(_: c_int, _: *const *const c_char, _: *const *const c_char) {
    let (Ok(text), Some(report)) = (env::var(FAULT_VARIABLE), env::var_os(REPORT_VARIABLE)) else {
        return;
    };
    // SAFETY: the program has no other thread yet.
    unsafe {
        env::remove_var(FAULT_VARIABLE);
        env::remove_var("LD_PRELOAD");
    }
    let (fault, call_number) = parse(&text).expect("a valid fault");
    REPORT_PATH.get_or_init(|| report);
    arm(fault, call_number);
}

/// Writes the report after `main` has returned.
extern "C" fn finish() {
    let hit_function = disarm();
    if let Some(path) = REPORT_PATH.get() {
        std::fs::write(path, hit_function.unwrap_or_default()).expect("the report is writable");
    }
}

fn parse(text: &str) -> Option<(Fault, u32)> {
    let (fault, call_number) = text.rsplit_once(':')?;
    let fault = match fault.split_once(':') {
        Some(("errno", code)) => Fault::Error(code.parse().ok()?),
        None if fault == "no-space" => Fault::NoSpace,
        None if fault == "interrupt" => Fault::Interrupt,
        None if fault == "short" => Fault::ShortTransfer,
        _ => return None,
    };
    Some((fault, call_number.parse().ok()?))
}

#[used]
#[unsafe(link_section = ".init_array")]
static INITIALIZE: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = initialize;

#[used]
#[unsafe(link_section = ".fini_array")]
static FINISH: extern "C" fn() = finish;
