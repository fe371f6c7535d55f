//! Runs a logon and a logoff through the PAM module, with arbitrary bytes as user, host, service
//! and environment. Also parses arbitrary bytes as the arguments of the module.
//!
//! The target defines its own libpam functions for the source of the module, because the real
//! libpam rejects some of these values.
#![no_main]

#[path = "../../pam/src/logon.rs"]
mod logon;
#[path = "../../pam/src/settings.rs"]
mod settings;
#[allow(dead_code)] // this target does not include the entry points, which use the rest
#[path = "../../pam/src/transaction.rs"]
mod transaction;

use std::cell::{LazyCell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use vipool::map::{Map, Plan, Settings as MapSettings};
use vipool::pool::{Pool, PoolKind};

use settings::Settings;
use transaction::{PAM_SESSION_ERR, PAM_SUCCESS, PamHandle, Transaction};

type Cleanup = unsafe extern "C" fn(*mut PamHandle, *mut c_void, c_int);

/// The state that libpam keeps for a transaction.
#[derive(Default)]
struct TransactionState {
    items: BTreeMap<c_int, CString>,
    environment: BTreeMap<Vec<u8>, CString>,
    /// The data of the module and its destructor.
    module_data: Option<(*mut c_void, Option<Cleanup>)>,
}

thread_local! {
    static STATE: RefCell<TransactionState> = RefCell::default();
    static MAP: LazyCell<(TempDir, Map)> = LazyCell::new(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let pool = |kind, range: &str| {
            Pool::new("default", kind, &[range.parse().expect("a range")], 64).expect("a pool")
        };
        let settings = MapSettings::without_cool_down();
        let pools = vec![
            pool(PoolKind::VirtualIp, "10.0.0.0/28"),
            pool(PoolKind::Loopback, "127.3.4.0/28"),
        ];
        let plan = Plan::new(pools).with_settings(settings);
        let map = Map::create(directory.path(), &plan).expect("a valid plan");
        (directory, map)
    });
}

#[unsafe(no_mangle)]
extern "C" fn pam_get_item(_: *const c_void, item: c_int, value: *mut *const c_void) -> c_int {
    let text =
        STATE.with_borrow(|state| state.items.get(&item).map_or(ptr::null(), |item| item.as_ptr()));
    // SAFETY: the module passes a valid pointer to one pointer.
    unsafe { *value = text.cast() };
    PAM_SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn pam_getenv(_: *mut c_void, name: *const c_char) -> *const c_char {
    // SAFETY: the module passes a NUL-terminated string.
    let name = unsafe { CStr::from_ptr(name) };
    STATE.with_borrow(|state| {
        state.environment.get(name.to_bytes()).map_or(ptr::null(), |value| value.as_ptr())
    })
}

#[unsafe(no_mangle)]
extern "C" fn pam_putenv(_: *mut c_void, text: *const c_char) -> c_int {
    // SAFETY: the module passes a NUL-terminated string.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    let equals = text.iter().position(|byte| *byte == b'=').expect("NAME=VALUE");
    let value = CString::new(&text[equals + 1..]).expect("no NUL");
    STATE.with_borrow_mut(|state| state.environment.insert(text[..equals].to_vec(), value));
    PAM_SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn pam_set_data(
    pamh: *mut PamHandle,
    _: *const c_char,
    data: *mut c_void,
    cleanup: Option<Cleanup>,
) -> c_int {
    let previous = STATE.with_borrow_mut(|state| state.module_data.replace((data, cleanup)));
    if let Some((data, Some(cleanup))) = previous {
        // SAFETY: the module registered this destructor for this data, and it runs once.
        unsafe { cleanup(pamh, data, 0) };
    }
    PAM_SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn pam_get_data(_: *const c_void, _: *const c_char, data: *mut *const c_void) -> c_int {
    let module_data = STATE.with_borrow(|state| state.module_data);
    // SAFETY: the module passes a valid pointer to one pointer.
    unsafe { *data = module_data.map_or(ptr::null(), |(data, _)| data) };
    PAM_SUCCESS
}

/// The real function is variadic. The module always passes one string.
#[unsafe(no_mangle)]
extern "C" fn pam_syslog(_: *const c_void, _: c_int, _: *const c_char, text: *const c_char) {
    // SAFETY: the module passes a NUL-terminated string.
    let text = unsafe { CStr::from_ptr(text) }.to_str().expect("log messages are UTF-8");
    assert!(!text.contains(char::is_control), "{text:?}");
}

fuzz_target!(|input: &[u8]| {
    let mut fields = input.split(|byte| *byte == 0);
    let mut next_field =
        || CString::new(fields.next().unwrap_or_default()).expect("fields contain no NUL");
    let [service, user, host, logind_session, preload] = [(); 5].map(|()| next_field());
    let user = if user.is_empty() { c"root".to_owned() } else { user };
    let arguments: Vec<CString> =
        fields.map(|field| CString::new(field).expect("no NUL")).collect();
    let _ = Settings::read(arguments.iter().map(|argument| &**argument), |_| {});

    let state = TransactionState {
        items: [(1, service), (2, user), (4, host)].into(),
        environment: [
            (b"XDG_SESSION_ID".to_vec(), logind_session),
            (b"LD_PRELOAD".to_vec(), preload.clone()),
        ]
        .into(),
        module_data: None,
    };
    STATE.set(state);
    MAP.with(|cell| {
        let (directory, map) = &**cell;
        // The paths are fixed, because the fuzzer must not choose paths on this machine.
        let settings = Settings {
            map_directory: directory.path().to_owned(),
            preload: Some("/dev/null".into()),
            min_uid: 0,
            ..Settings::default()
        };
        let mut dummy_handle = 0u8;
        // SAFETY: the libpam functions of this file never dereference the handle.
        let transaction = unsafe { Transaction::new((&raw mut dummy_handle).cast()) };
        let status = logon::open(&transaction, &settings);
        assert!(status == PAM_SUCCESS || status == PAM_SESSION_ERR);
        let open_session_count = map.sessions().expect("a valid map").len();
        assert!(open_session_count <= 1);
        if open_session_count == 1 {
            let new_preload =
                transaction.env(c"LD_PRELOAD").expect("the module sets it").into_bytes();
            assert!(new_preload.starts_with(preload.to_bytes()));
            let is_separator = |byte: &u8| b": ".contains(byte);
            assert!(new_preload.split(is_separator).any(|file| file == b"/dev/null"));
        }
        assert_eq!(logon::open(&transaction, &settings), status, "opening twice differs");
        assert_eq!(logon::close(&transaction), PAM_SUCCESS);
        assert_eq!(map.sessions().expect("a valid map").len(), 0);
        let files = std::fs::read_dir(directory.path()).expect("the directory exists").flatten();
        let client_files =
            files.filter(|file| file.file_name().as_encoded_bytes().starts_with(b"client."));
        assert_eq!(client_files.count(), 0);
    });
});
