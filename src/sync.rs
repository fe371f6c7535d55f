//! Atomics, and back-off for waiting. With `--cfg loom`, the atomics are those of the model checker
//! loom.

use std::time::{Duration, Instant};

#[cfg(not(loom))]
#[allow(unused_imports)]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// Exponential back-off for a loop that polls until a deadline.
#[derive(Debug)]
pub(crate) struct Backoff {
    timeout: Duration,
    /// Time of the first wait. [`Backoff::new`] does not read the clock, so a loop that succeeds at
    /// the first attempt never reads the clock.
    start: Option<Instant>,
    pause: Duration,
}

impl Backoff {
    const FIRST_PAUSE: Duration = Duration::from_micros(20);
    const MAX_PAUSE: Duration = Duration::from_millis(2);

    /// Returns a back-off whose timeout begins at the first wait.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, start: None, pause: Self::FIRST_PAUSE }
    }

    /// Sleeps and returns true, or returns false at once if the timeout has passed. Each pause is
    /// twice as long as the previous pause, up to a limit.
    pub(crate) fn wait(&mut self) -> bool {
        let start = *self.start.get_or_insert_with(Instant::now);
        if start.elapsed() >= self.timeout {
            return false;
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(Self::MAX_PAUSE);
        true
    }
}
