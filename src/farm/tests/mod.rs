mod findings;
mod plans;
