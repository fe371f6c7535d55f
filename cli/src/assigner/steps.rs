//! The steps of `vipool up`, each with its duration.

use std::time::Instant;

use serde::Serialize;

/// A finished step.
#[derive(Serialize)]
pub struct Step {
    /// What the command did.
    pub description: String,
    /// The duration of the step.
    pub milliseconds: u64,
}

/// Measures the steps of a run, and prints them on request.
pub struct StepTimer {
    should_print_steps: bool,
    step_start: Instant,
    steps: Vec<Step>,
}

impl StepTimer {
    /// Starts the first step. If `should_print_steps` is true, each step is printed when it ends.
    pub fn start(should_print_steps: bool) -> Self {
        Self { should_print_steps, step_start: Instant::now(), steps: Vec::new() }
    }

    /// Ends the current step and starts the next step.
    pub fn end_step(&mut self, description: impl Into<String>) {
        let (description, duration) = (description.into(), self.step_start.elapsed());
        if self.should_print_steps {
            // If standard output is a file on a full disk, the run must continue.
            let _ = outln!("{description} ({duration:.1?})");
        }
        self.steps.push(Step { description, milliseconds: duration.as_millis() as u64 });
        self.step_start = Instant::now();
    }

    /// Returns the finished steps.
    pub fn into_steps(self) -> Vec<Step> {
        self.steps
    }
}
