//! The signal handlers of the tracer.

use std::mem::zeroed;

use libc::c_int;

/// As long as this value lives, the tracer ignores SIGINT and SIGQUIT, because the terminal also
/// sends these signals to the traced programs. With a time limit, SIGALRM interrupts waitpid(2).
pub struct SignalGuard {
    previous_actions: [(c_int, libc::sigaction); 3],
}

impl SignalGuard {
    pub fn new(has_time_limit: bool) -> Self {
        extern "C" fn do_nothing(_: c_int) {}
        let handler = do_nothing as extern "C" fn(c_int) as libc::sighandler_t;
        let handlers = [
            (libc::SIGINT, libc::SIG_IGN),
            (libc::SIGQUIT, libc::SIG_IGN),
            // Installed without SA_RESTART, so that the signal interrupts waitpid(2).
            (libc::SIGALRM, handler),
        ];
        let previous_actions = handlers.map(|(signal, handler)| {
            // SAFETY: zero is valid for every field of sigaction: the integers, the signal set and
            // the optional function pointer. The handler is async-signal-safe, because it does
            // nothing.
            unsafe {
                let mut action: libc::sigaction = zeroed();
                let mut previous_action: libc::sigaction = zeroed();
                action.sa_sigaction = handler;
                libc::sigaction(signal, &action, &mut previous_action);
                (signal, previous_action)
            }
        });
        if has_time_limit {
            // The timer repeats, because a single alarm could arrive just before waitpid(2) and be
            // lost.
            let interval = libc::timeval { tv_sec: 0, tv_usec: 200_000 };
            let timer = libc::itimerval { it_interval: interval, it_value: interval };
            // SAFETY: the pointer is valid for one itimerval; the result is not requested.
            unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
        }
        Self { previous_actions }
    }
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        // SAFETY: an itimerval of zeros is valid and stops the timer. The actions are those that
        // sigaction(2) returned.
        unsafe {
            let stopped_timer: libc::itimerval = zeroed();
            libc::setitimer(libc::ITIMER_REAL, &stopped_timer, std::ptr::null_mut());
            for (signal, action) in &self.previous_actions {
                libc::sigaction(*signal, action, std::ptr::null_mut());
            }
        }
    }
}
