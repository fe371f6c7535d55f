//! One suite that runs against the Rust API and against the C ABI: what one can do the other can,
//! with the same answers. Needs the feature `capi`.

#![cfg(all(feature = "capi", target_os = "linux"))]

mod api;
mod c_only;
mod events;
mod more;
mod rewriting;
mod suite;
mod through_c;
mod through_rust;

/// Every test of the suite, once for each API.
macro_rules! both {
    ($($room:ident::$test:ident)*) => {
        mod rust {
            $(#[test] fn $test() { super::$room::$test::<super::through_rust::Rust>(); })*
        }
        mod c {
            $(#[test] fn $test() { super::$room::$test::<super::through_c::C>(); })*
        }
    };
}

both! {
    suite::a_session_opens_once_and_closes_once
    suite::addresses_run_out
    suite::what_is_asked_for_is_given_or_refused
    suite::reserved_and_drained
    suite::cooled_addresses_wait_for_the_probe
    suite::sessions_of_the_system
    suite::not_ready_before_the_restore
    suite::monitors_see_all
    suite::texts
    suite::plans_that_are_none
    rewriting::rules_of_the_process_list
    rewriting::rewriting
    suite::eight_threads
    more::farms_built_by_calls
    more::farms_that_are_wrong
    more::a_writer_has_the_map_to_itself
    more::the_journal_tells_all
    more::copies_of_files
    more::why_a_rule_holds
    more::links_are_followed
    more::what_the_machine_says
    more::clients_are_told
    more::ranges
}
