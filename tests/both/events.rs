//! Events by callback, which only C has: Rust is told the same by what the calls return.

#![allow(unsafe_code, reason = "this is what a C program does")]

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Mutex;

use vipool::capi::event::*;
use vipool::capi::leader::vipool_leader;
use vipool::capi::map::*;
use vipool::capi::open::*;
use vipool::capi::plan::vipool_plan_free;
use vipool::capi::status::vipool_status::{self, *};
use vipool::capi::upkeep::*;
use vipool::capi::writer::*;
use vipool::map::Settings;

use crate::suite::{plan, session};
use crate::through_c::build;
use crate::through_c::values::{check, ip, sized};

/// Kind, session and address or status.
type Told = Mutex<Vec<(u32, u64, String)>>;

unsafe extern "C" fn on_event(context: *mut c_void, event: *const vipool_event) {
    // SAFETY: the context that was handed in, and an event of the library's.
    let (told, event) = unsafe { (&*context.cast::<Told>(), &*event) };
    assert_eq!(event.size, size_of::<vipool_event>());
    let what = match ip(event.lease.address) {
        Some(address) => address.to_string(),
        None => format!("{:?}", vipool_status::from_number(event.reason).unwrap()),
    };
    told.lock().unwrap().push((event.kind, event.session & 0xff, what));
}

/// What was told since the last time.
fn told(events: &Told) -> Vec<String> {
    let events = std::mem::take(&mut *events.lock().unwrap());
    let kinds = ["", "assigned", "released", "exhausted", "low water"];
    let line = |(kind, session, what)| format!("{} {session} {what}", kinds[kind as usize]);
    events.into_iter().map(line).collect()
}

unsafe extern "C" fn nobody(_: *mut c_void, _: u64, _: *const vipool_leader) -> u32 {
    0
}

#[test]
fn each_event_is_told_once() {
    let settings = Settings::new().with_low_water(1);
    let mut small = plan().with_settings(settings);
    small.pools.truncate(1);
    let events = Told::default();
    let mut options = sized::<vipool_map_options>();
    options.on_event = Some(on_event);
    options.context = (&raw const events).cast_mut().cast();
    let (mut map, mut writer) = (null_mut(), null_mut());
    let id = |value| session(value).raw();
    let (mut opened, mut closed) = (sized::<vipool_opened>(), sized::<vipool_closed>());
    let (out, gave_back) = (&raw mut opened, &raw mut closed);
    // SAFETY: valid handles and structs; each handle goes back once, and the events outlive them.
    unsafe {
        let plan = build::plan(&small).unwrap();
        check(vipool_map_in_memory(plan, &options, &mut map)).unwrap();
        vipool_plan_free(plan);

        check(vipool_map_open_session(map, id(1), null(), 100, out)).unwrap();
        assert_eq!(told(&events), ["assigned 1 10.0.5.10"]);
        check(vipool_map_open_session(map, id(1), null(), 100, out)).unwrap();
        assert_eq!(told(&events), [""; 0]);

        check(vipool_writer_new(map, &mut writer)).unwrap();
        for value in [2, 2, 3, 4] {
            check(vipool_writer_open_session(writer, id(value), null(), 100, out)).unwrap();
        }
        let last = ["assigned 4 10.0.5.13", "low water 4 VIPOOL_OK"];
        let three = ["assigned 2 10.0.5.11", "assigned 3 10.0.5.12", last[0], last[1]];
        assert_eq!(told(&events), three);
        let none = vipool_writer_open_session(writer, id(5), null(), 100, out);
        assert_eq!(none, VIPOOL_ERR_EXHAUSTED);
        assert_eq!(told(&events), ["exhausted 5 VIPOOL_ERR_EXHAUSTED"]);
        check(vipool_writer_close(writer, &opened.handle, 100, null_mut())).unwrap();
        check(vipool_writer_close_session(writer, id(3), 100, gave_back)).unwrap();
        assert_eq!(told(&events), ["released 4 10.0.5.13", "released 3 10.0.5.12"]);
        assert_eq!(vipool_writer_close_session(writer, id(3), 100, gave_back), VIPOOL_ERR_NOT_OPEN);
        assert_eq!(told(&events), [""; 0]);
        vipool_writer_free(writer);

        check(vipool_map_close_session(map, id(2), 101, null_mut())).unwrap();
        assert_eq!(told(&events), ["released 2 10.0.5.11"]);
        check(vipool_map_reconcile(map, 102, Some(nobody), null_mut(), null_mut())).unwrap();
        assert_eq!(told(&events), ["released 1 10.0.5.10"]);
        check(vipool_map_reap(map, 103, 10, null(), null_mut())).unwrap();
        assert_eq!(told(&events), [""; 0]);
        vipool_map_free(map);
    }
}
