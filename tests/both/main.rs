//! One suite that runs against the Rust API and against the C ABI: what one can do the other can,
//! with the same answers. Needs the feature `capi`.

#![cfg(feature = "capi")]

mod api;
mod suite;
mod through_c;
mod through_rust;

/// Every test of the suite, once for each API.
macro_rules! both {
    ($($test:ident)*) => {
        mod rust {
            $(#[test] fn $test() { super::suite::$test::<super::through_rust::Rust>(); })*
        }
        mod c {
            $(#[test] fn $test() { super::suite::$test::<super::through_c::C>(); })*
        }
    };
}

both! {
    a_session_opens_once_and_closes_once
    addresses_run_out
    what_is_asked_for_is_given_or_refused
    reserved_and_drained
    cooled_addresses_wait_for_the_probe
    sessions_of_the_system
    not_ready_before_the_restore
    monitors_see_all
    texts
    plans_that_are_none
    rules_of_the_process_list
    rewriting
    eight_threads
}
