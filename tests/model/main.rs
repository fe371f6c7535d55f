//! A map beside a simple model of it. After each random operation, both have the same state.

mod comparison;
mod model;
mod operations;
mod pool;
mod replan;
