//! A map beside a plain model of it: whatever is done to both, they say the same.

mod machine;
mod model;
mod operations;
mod slots;
