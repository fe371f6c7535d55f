//! Compares the map with a simple model. After each random operation, both must have the same
//! state.

mod comparison;
mod model;
mod operations;
mod pool;
mod replan;
