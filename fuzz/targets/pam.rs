//! A logon and a logoff of the PAM module, with any bytes for whatever a client, a user or an
//! administrator chooses: user, host, service, environment and arguments.
//!
//! The module's own files, over a libpam that is made here: the real one would refuse some of it.
#![no_main]

#[path = "../../pam/src/logon.rs"]
mod logon;
#[allow(dead_code)] // what the entry points need
#[path = "../../pam/src/pam.rs"]
mod pam;
#[path = "../../pam/src/settings.rs"]
mod settings;

use std::cell::{LazyCell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use vipool::map::{Map, Plan, Settings as MapSettings};
use vipool::pool::{Pool, PoolKind};

use pam::{PAM_SESSION_ERR, PAM_SUCCESS, Pam};
use settings::Settings;

type Cleanup = unsafe extern "C" fn(*mut pam::RawHandle, *mut c_void, c_int);

/// What libpam would keep of the transaction.
#[derive(Default)]
struct Transaction {
    items: BTreeMap<c_int, CString>,
    environment: BTreeMap<Vec<u8>, CString>,
    kept: Option<(*mut c_void, Option<Cleanup>)>,
}

thread_local! {
    static NOW: RefCell<Transaction> = RefCell::default();
    static MAP: LazyCell<(TempDir, Map)> = LazyCell::new(|| {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let pool = |kind, range: &str| {
            Pool::new("default", kind, &[range.parse().expect("a range")], 64).expect("a pool")
        };
        let settings = MapSettings { cool_down: 0, check_in_use: false, ..MapSettings::default() };
        let pools = vec![
            pool(PoolKind::VirtualIp, "10.0.0.0/28"),
            pool(PoolKind::Loopback, "127.3.4.0/28"),
        ];
        let plan = Plan { pools, settings, ..Plan::default() };
        let map = Map::create(directory.path(), &plan).expect("a map can be made");
        (directory, map)
    });
}

#[unsafe(no_mangle)]
extern "C" fn pam_get_item(_: *const c_void, item: c_int, value: *mut *const c_void) -> c_int {
    let text = NOW.with_borrow(|now| now.items.get(&item).map_or(ptr::null(), |it| it.as_ptr()));
    // SAFETY: the module gives a valid place for one pointer.
    unsafe { *value = text.cast() };
    PAM_SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn pam_getenv(_: *mut c_void, name: *const c_char) -> *const c_char {
    // SAFETY: the module gives a string.
    let name = unsafe { CStr::from_ptr(name) };
    NOW.with_borrow(|now| {
        now.environment.get(name.to_bytes()).map_or(ptr::null(), |value| value.as_ptr())
    })
}

#[unsafe(no_mangle)]
extern "C" fn pam_putenv(_: *mut c_void, text: *const c_char) -> c_int {
    // SAFETY: the module gives a string.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    let at = text.iter().position(|byte| *byte == b'=').expect("a name and a value");
    let value = CString::new(&text[at + 1..]).expect("without NUL");
    NOW.with_borrow_mut(|now| now.environment.insert(text[..at].to_vec(), value));
    PAM_SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn pam_set_data(
    pamh: *mut pam::RawHandle,
    _: *const c_char,
    data: *mut c_void,
    cleanup: Option<Cleanup>,
) -> c_int {
    let before = NOW.with_borrow_mut(|now| now.kept.replace((data, cleanup)));
    if let Some((data, Some(cleanup))) = before {
        // SAFETY: what the module gave for this data, once.
        unsafe { cleanup(pamh, data, 0) };
    }
    PAM_SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn pam_get_data(_: *const c_void, _: *const c_char, data: *mut *const c_void) -> c_int {
    let kept = NOW.with_borrow(|now| now.kept);
    // SAFETY: the module gives a valid place for one pointer.
    unsafe { *data = kept.map_or(ptr::null(), |(data, _)| data) };
    PAM_SUCCESS
}

/// The real one takes any number of values for its format; the module gives one, a string.
#[unsafe(no_mangle)]
extern "C" fn pam_syslog(_: *const c_void, _: c_int, _: *const c_char, text: *const c_char) {
    // SAFETY: the module gives a string.
    let text = unsafe { CStr::from_ptr(text) }.to_str().expect("what is logged is UTF-8");
    assert!(!text.contains(char::is_control), "{text:?}");
}

fuzz_target!(|input: &[u8]| {
    let mut fields = input.split(|byte| *byte == 0);
    let mut next = || CString::new(fields.next().unwrap_or_default()).expect("divided by NUL");
    let [service, user, host, logind, preload] = [(); 5].map(|()| next());
    let user = if user.is_empty() { c"root".to_owned() } else { user };
    let arguments: Vec<CString> = fields.map(|it| CString::new(it).expect("as above")).collect();
    let _ = Settings::read(arguments.iter().map(|it| &**it), |_| {});

    let transaction = Transaction {
        items: [(1, service), (2, user), (4, host)].into(),
        environment: [
            (b"XDG_SESSION_ID".to_vec(), logind),
            (b"LD_PRELOAD".to_vec(), preload.clone()),
        ]
        .into(),
        kept: None,
    };
    NOW.set(transaction);
    MAP.with(|place| {
        let (directory, map) = &**place;
        // A path in the arguments could be anywhere on this machine: the map is always this one.
        let settings = Settings {
            map: directory.path().to_owned(),
            preload: Some("/dev/null".into()),
            min_uid: 0,
            ..Settings::default()
        };
        let mut nothing = 0u8;
        // SAFETY: the functions above do not look at the handle.
        let pam = unsafe { Pam::new((&raw mut nothing).cast()) };
        let status = logon::open(&pam, &settings);
        assert!(status == PAM_SUCCESS || status == PAM_SESSION_ERR);
        let open = map.sessions().expect("the map is whole").len();
        assert!(open <= 1);
        if open == 1 {
            let after = pam.env(c"LD_PRELOAD").expect("it was set").to_bytes();
            assert!(after.starts_with(preload.to_bytes()));
            let divided = |byte: &u8| b": ".contains(byte);
            assert!(after.split(divided).any(|file| file == b"/dev/null"));
        }
        assert_eq!(logon::open(&pam, &settings), status, "again");
        assert_eq!(logon::close(&pam), PAM_SUCCESS);
        assert_eq!(map.sessions().expect("the map is whole").len(), 0);
        let files = std::fs::read_dir(directory.path()).expect("it is there").flatten();
        let left = files.filter(|it| it.file_name().as_encoded_bytes().starts_with(b"client."));
        assert_eq!(left.count(), 0);
    });
});
