//! Tests of event callbacks. Only the C ABI has event callbacks. In Rust, the results of the calls
//! contain the same information.

#![allow(unsafe_code, reason = "the C ABI takes raw pointers")]

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Mutex;

use vipool::capi::event::*;
use vipool::capi::leader::vipool_leader;
use vipool::capi::maintenance::*;
use vipool::capi::map::*;
use vipool::capi::map_session::*;
use vipool::capi::plan::vipool_plan_free;
use vipool::capi::status::vipool_status::{self, *};
use vipool::map::Settings;

use crate::suite::{plan, session_id};
use crate::through_c::build;
use crate::through_c::values::{check, copy_text, ip, sized};

/// The reported events: the kind, the session, and a text. The text contains the address, or the
/// status and the pool.
type Events = Mutex<Vec<(u32, u64, String)>>;

unsafe extern "C" fn on_event(context: *mut c_void, event: *const vipool_event) {
    // SAFETY: the test passed the context, and the library passes a valid event.
    let (events, event) = unsafe { (&*context.cast::<Events>(), &*event) };
    assert_eq!(event.size, size_of::<vipool_event>());
    let detail = match ip(event.lease.address) {
        Some(address) => address.to_string(),
        None => format!(
            "{:?} {} {}",
            vipool_status::from_number(event.reason).unwrap(),
            event.pool,
            copy_text(event.pool_name, event.pool_name_length)
        ),
    };
    events.lock().unwrap().push((event.kind, event.session & 0xff, detail));
}

/// Removes all events from `events` and returns them as texts.
fn take_events(events: &Events) -> Vec<String> {
    let taken_events = std::mem::take(&mut *events.lock().unwrap());
    let kind_names = ["", "assigned", "released", "exhausted", "low water"];
    let format_event =
        |(kind, session, detail)| format!("{} {session} {detail}", kind_names[kind as usize]);
    taken_events.into_iter().map(format_event).collect()
}

unsafe extern "C" fn is_never_alive(_: *mut c_void, _: u64, _: *const vipool_leader) -> u32 {
    0
}

#[test]
fn each_event_is_reported_once() {
    for flags in [0, VIPOOL_MAP_EXCLUSIVE, VIPOOL_MAP_SINGLE_THREADED] {
        check_events(flags);
    }
}

fn check_events(flags: u32) {
    let settings = Settings::without_cool_down().with_low_water(1);
    let mut small_plan = plan().with_settings(settings);
    small_plan.pools.truncate(1);
    let events = Events::default();
    let mut options = sized::<vipool_map_options>();
    options.on_event = Some(on_event);
    options.context = (&raw const events).cast_mut().cast();
    options.flags = flags;
    let mut map = null_mut();
    let id = |value| session_id(value).raw();
    let (mut opened, mut closed) =
        (sized::<vipool_opened_session>(), sized::<vipool_closed_session>());
    let (out_opened, out_closed) = (&raw mut opened, &raw mut closed);
    // SAFETY: the handles and structs are valid. Each handle is freed once, and the events outlive
    // the handles.
    unsafe {
        let plan = build::plan(&small_plan, 0).unwrap();
        check(vipool_map_create_in_memory(plan, &options, &mut map)).unwrap();
        vipool_plan_free(plan);

        check(vipool_map_open_session(map, id(1), null(), 100, out_opened)).unwrap();
        assert_eq!(take_events(&events), ["assigned 1 10.0.5.10"]);
        check(vipool_map_open_session(map, id(1), null(), 100, out_opened)).unwrap();
        assert_eq!(take_events(&events), [""; 0]);

        for value in [2, 2, 3, 4] {
            check(vipool_map_open_session(map, id(value), null(), 100, out_opened)).unwrap();
        }
        let expected_events = [
            "assigned 2 10.0.5.11",
            "assigned 3 10.0.5.12",
            "assigned 4 10.0.5.13",
            "low water 4 VIPOOL_OK 0 default",
        ];
        assert_eq!(take_events(&events), expected_events);
        let mut refused = sized::<vipool_opened_session>();
        let status = vipool_map_open_session(map, id(5), null(), 100, &mut refused);
        assert_eq!(status, VIPOOL_ERR_EXHAUSTED);
        assert_eq!(take_events(&events), ["exhausted 5 VIPOOL_ERR_EXHAUSTED 0 default"]);
        check(vipool_map_close_by_handle(map, &opened.handle, 100, null_mut())).unwrap();
        check(vipool_map_close_session(map, id(3), 100, out_closed)).unwrap();
        assert_eq!(take_events(&events), ["released 4 10.0.5.13", "released 3 10.0.5.12"]);
        let status = vipool_map_close_session(map, id(3), 100, out_closed);
        assert_eq!(status, VIPOOL_ERR_NOT_OPEN);
        assert_eq!(take_events(&events), [""; 0]);

        check(vipool_map_close_session(map, id(2), 101, null_mut())).unwrap();
        assert_eq!(take_events(&events), ["released 2 10.0.5.11"]);
        check(vipool_map_reconcile(map, 102, Some(is_never_alive), null_mut(), null_mut()))
            .unwrap();
        assert_eq!(take_events(&events), ["released 1 10.0.5.10"]);
        check(vipool_map_reap(map, 103, 10, null(), null_mut())).unwrap();
        assert_eq!(take_events(&events), [""; 0]);
        vipool_map_close(map);
    }
}
