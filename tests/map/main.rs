//! Tests of the public interface of the map: opening and closing sessions, files, and new plans.

mod allocation;
mod edge_cases;
mod files;
mod migration;
mod plan_support;
mod pools;
mod release;
mod reload;
mod reopen;
mod replan;
mod reservations;
mod shared;
mod support;
mod threads;
mod users;
