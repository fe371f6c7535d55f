//! One test suite for the Rust API and the C ABI. Both APIs must return the same results. The suite
//! needs the feature `capi`, and runs only on Linux.

#![cfg(all(feature = "capi", target_os = "linux"))]

mod api;
mod c_only;
mod events;
mod farms;
mod rewriting;
mod suite;
mod system;
mod through_c;
mod through_rust;

/// Runs every test of the suite once for each API.
macro_rules! both {
    ($($module:ident::$test:ident)*) => {
        mod rust {
            $(#[test] fn $test() { super::$module::$test::<super::through_rust::RustApi>(); })*
        }
        mod c {
            $(#[test] fn $test() { super::$module::$test::<super::through_c::CApi>(); })*
        }
    };
}

both! {
    suite::session_opens_and_closes_once
    suite::exhausted_pools_and_limits_refuse_sessions
    suite::required_address_is_leased_or_refused
    suite::reserved_and_drained_addresses_are_withheld
    suite::names_are_compared_completely
    suite::lingering_address_is_freed_by_reap
    suite::reconcile_closes_ended_sessions
    suite::sessions_are_refused_until_restored
    suite::monitor_sees_sessions_pools_and_slots
    suite::texts_are_parsed_and_formatted
    suite::invalid_plan_creates_no_map
    rewriting::rule_matches_by_path_or_name
    rewriting::socket_calls_are_rewritten
    suite::eight_threads_share_a_map
    farms::farm_built_by_calls_makes_a_plan
    farms::invalid_values_are_reported_as_findings
    system::exclusive_writer_opens_and_closes_sessions
    system::journal_lists_events
    system::copy_leaves_the_files_unchanged
    system::match_results_explain_each_rule
    system::followed_link_matches_its_target
    system::system_state_is_reported
    system::client_address_is_stored_and_removed
    system::ranges_are_formatted_and_intersected
}
