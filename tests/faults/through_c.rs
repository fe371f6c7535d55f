//! Failing system calls and exhausted memory below the C ABI.

#![allow(unsafe_code, reason = "the C ABI takes raw pointers")]

#[path = "../both/through_c/structs.rs"]
mod structs;

use std::ffi::CStr;
use std::path::Path;
use std::ptr::{null, null_mut};

use vipool::Tick;
use vipool::capi::error::vipool_last_error;
use vipool::capi::farm::*;
use vipool::capi::map::*;
use vipool::capi::map_session::*;
use vipool::capi::plan::*;
use vipool::capi::session::vipool_handle;
use vipool::capi::status::vipool_status::{self, VIPOOL_OK};
use vipool::session::SessionId;

use structs::sized;

use crate::interpose::Fault;
use crate::memory::with_allocation_limit;
use crate::recovery::{TestDirectory, session_id};
use crate::{Outcome, assert_errors_name, assert_no_errors, farm_text, sweep};

/// Returns the text of the last error if the status is not `VIPOOL_OK`.
fn check(status: vipool_status) -> Result<(), String> {
    if status == VIPOOL_OK {
        return Ok(());
    }
    assert_ne!(status, vipool_status::VIPOOL_ERR_PANIC);
    // SAFETY: the text ends with a NUL, and this thread makes no call while it reads.
    let text = unsafe { CStr::from_ptr(vipool_last_error()) };
    Err(text.to_str().unwrap().to_owned())
}

/// A plan of the C ABI.
struct CPlan(*mut vipool_plan);

impl CPlan {
    fn new(last_octet: u8) -> Self {
        let text = farm_text(last_octet);
        let (mut farm, mut plan) = (null_mut(), null_mut());
        let mut options = sized::<vipool_plan_options>();
        options.host = c"server".as_ptr();
        options.host_length = "server".len();
        // SAFETY: the texts and structs are valid, and the farm is freed once.
        unsafe {
            check(vipool_farm_parse(text.as_ptr().cast(), text.len(), &mut farm)).unwrap();
            check(vipool_plan_new(farm, &options, &mut plan)).unwrap();
            vipool_farm_free(farm);
        }
        Self(plan)
    }
}

impl Drop for CPlan {
    fn drop(&mut self) {
        // SAFETY: the plan is freed once.
        unsafe { vipool_plan_free(self.0) };
    }
}

/// A map of the C ABI.
struct CMap(*mut vipool_map);

impl Drop for CMap {
    fn drop(&mut self) {
        // SAFETY: the map is closed once.
        unsafe { vipool_map_close(self.0) };
    }
}

impl CMap {
    fn create(directory: &Path, plan: &CPlan) -> Result<Self, String> {
        let directory = directory.to_str().unwrap();
        let (text, length) = (directory.as_ptr().cast(), directory.len());
        let mut map = null_mut();
        // SAFETY: the text and the plan are valid.
        check(unsafe { vipool_map_create(text, length, plan.0, null(), &mut map) })?;
        Ok(Self(map))
    }

    fn open(directory: &Path) -> Result<Self, String> {
        let directory = directory.to_str().unwrap();
        let (text, length) = (directory.as_ptr().cast(), directory.len());
        let mut map = null_mut();
        // SAFETY: the text is valid.
        check(unsafe { vipool_map_open(text, length, null(), &mut map) })?;
        Ok(Self(map))
    }

    fn open_session(&self, session: SessionId, user: &str) -> Result<vipool_handle, String> {
        let mut options = sized::<vipool_open_options>();
        (options.user, options.user_length) = (user.as_ptr().cast(), user.len());
        let mut opened = sized::<vipool_opened_session>();
        let now = Tick::now().as_secs();
        // SAFETY: the map, the structs and the text are valid.
        let status =
            unsafe { vipool_map_open_session(self.0, session.raw(), &options, now, &mut opened) };
        check(status).map(|()| opened.handle)
    }

    fn close_session(&self, session: SessionId) -> Result<(), String> {
        // SAFETY: the map is valid.
        let close =
            |now| unsafe { vipool_map_close_session(self.0, session.raw(), now, null_mut()) };
        check(close(Tick::now().as_secs()))
    }
}

/// Runs the operations of an agent.
fn run_operations(directory: &Path, plans: &[CPlan; 2]) -> Outcome {
    let mut outcome = Outcome::default();
    // The last creation completes a reload that failed.
    let [plan, new_plan] = plans;
    for (plan, numbers) in [(plan, [1, 2]), (new_plan, [3, 4]), (new_plan, [5, 6])] {
        let create_result = CMap::create(directory, plan);
        outcome.has_map |= create_result.is_ok();
        let map = outcome.record(create_result);
        let Some(map) = map.or_else(|| outcome.record(CMap::open(directory))) else { continue };
        outcome.has_map = true;
        for number in numbers {
            let user = format!("user{number}");
            if let Some(handle) = outcome.record(map.open_session(session_id(number), &user)) {
                outcome.open_sessions.insert(number, (structs::handle(&handle), user));
            }
        }
        let [_, closed_number] = numbers;
        if outcome.open_sessions.contains_key(&closed_number)
            && outcome.record(map.close_session(session_id(closed_number))).is_some()
        {
            outcome.open_sessions.remove(&closed_number);
        }
    }
    outcome
}

/// Repeats the operations until a run has no fault, as [`sweep`] does.
fn sweep_c(fault: Fault, check_errors: impl Fn(&Outcome, &Path, &str)) -> u32 {
    let plans = [CPlan::new(8), CPlan::new(9)];
    sweep(fault, |directory| run_operations(directory, &plans), check_errors)
}

#[test]
fn failing_calls_below_the_c_abi_lose_nothing() {
    for error in [libc::EIO, libc::ENOSPC, libc::ENOMEM] {
        let fault_count = sweep_c(Fault::Error(error), |outcome, directory, context| {
            assert_errors_name(error, outcome, directory, context);
        });
        assert!(fault_count > 50, "{fault_count}");
    }
    assert!(sweep_c(Fault::Interrupt, assert_no_errors) > 15);
    assert!(sweep_c(Fault::ShortTransfer, assert_no_errors) > 1);
}

/// An allocation in one of these functions would end the process.
#[test]
fn opening_and_closing_sessions_through_c_needs_no_memory() {
    let directory = TestDirectory::new("memory-c");
    let map = CMap::create(&directory.0, &CPlan::new(8)).unwrap();
    for _ in 0..2 {
        let (opened, reopened, closed) = with_allocation_limit(0, || {
            let opened = map.open_session(session_id(1), "ann");
            (opened, map.open_session(session_id(1), "ann"), map.close_session(session_id(1)))
        });
        assert_eq!(structs::handle(&opened.unwrap()), structs::handle(&reopened.unwrap()));
        closed.unwrap();
    }
}
