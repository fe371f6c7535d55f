//! Conversions of structs that need no other part of the suite, so that other tests can use them.

use std::mem::MaybeUninit;

use vipool::capi::layout::Versioned;
use vipool::capi::session::{vipool_handle, vipool_session};
use vipool::session::{Handle, SessionId};

/// Returns a zeroed struct with its size set.
pub fn sized<T: Versioned>() -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `Versioned` guarantees that all-zero bytes are a valid value, and that the first
    // field is the size.
    unsafe {
        value.as_mut_ptr().cast::<usize>().write(size_of::<T>());
        value.assume_init()
    }
}

pub fn session_id(raw: vipool_session) -> SessionId {
    SessionId::from_raw(raw).unwrap()
}

pub fn handle(handle: &vipool_handle) -> Handle {
    Handle {
        session: session_id(handle.session),
        pool: handle.pool as u16,
        slot: handle.slot,
        generation: handle.generation,
        boot: handle.boot,
    }
}
