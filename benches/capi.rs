//! Compares a call through the C ABI with the same call in Rust. If the C function parses
//! a sockaddr and writes a new sockaddr, the measured Rust code does the same.
//!
//! `cargo xtask bench capi` measures pairs of short blocks: a block of calls in Rust and a block of
//! calls in C. Other load on the machine affects both blocks of a pair alike. The memory layout
//! changes a result by some nanoseconds, so the bench measures in several processes. Each process
//! determines the median time in each language, and the median of the difference within a pair of
//! blocks. The table contains the medians over all processes, and the quartiles of the difference.
//! With `--json`, each row is a JSON object.
//!
//! With `-- NAME rust|c COUNT`, the program makes COUNT calls and measures nothing. Run it twice
//! under `valgrind --tool=callgrind` with different counts. The difference between the two results
//! is the number of instructions of the additional calls.

use std::ffi::c_void;
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::ptr::{null, null_mut};
use std::time::Instant;

use vipool::Tick;
use vipool::capi::address::{vipool_ip, vipool_range_parse};
use vipool::capi::farm::{vipool_farm, vipool_farm_free, vipool_farm_new};
use vipool::capi::farm_build::vipool_farm_add_program;
use vipool::capi::farm_settings::{vipool_farm_set_loopback, vipool_farm_set_settings};
use vipool::capi::map::{
    VIPOOL_MAP_SINGLE_THREADED, vipool_map, vipool_map_close, vipool_map_create_in_memory,
    vipool_map_options,
};
use vipool::capi::map_session::{
    vipool_closed_session, vipool_map_close_by_handle, vipool_map_open_session,
    vipool_open_options, vipool_opened_session,
};
use vipool::capi::outcome::vipool_outcome;
use vipool::capi::plan::{vipool_plan, vipool_plan_free, vipool_plan_new};
use vipool::capi::process_list::{VIPOOL_FEATURE_LOOPBACK, vipool_program};
use vipool::capi::reader::{
    vipool_found_session, vipool_reader, vipool_reader_check_handle, vipool_reader_close,
    vipool_reader_find_session, vipool_reader_get_addresses, vipool_reader_open_map,
};
use vipool::capi::rewrite::{
    vipool_rewrite_bind, vipool_rewrite_connect, vipool_rewrite_visible_address,
};
use vipool::capi::rewriter::{
    vipool_rewriter, vipool_rewriter_free, vipool_rewriter_new, vipool_rewriter_options,
};
use vipool::capi::session::{vipool_addresses, vipool_handle};
use vipool::capi::socket::{vipool_protocol, vipool_socket};
use vipool::capi::status::vipool_status;
use vipool::capi::visible::vipool_rewrite_visible_ip;
use vipool::map::{Map, OpenOptions, Plan, Settings};
use vipool::policy::{Features, Policy, Program};
use vipool::pool::{MAX_SLOTS, Pool, PoolKind};
use vipool::rewrite::sockaddr::{self, Parsed};
use vipool::rewrite::{
    KernelListeners, LiveSystem, Outcome, Protocol, RewriteRules, Rewriter, SocketProperties,
};
use vipool::session::{SessionId, SessionKind};

const POOL_RANGE: &str = "127.3.0.2-127.3.0.253";

fn session_id(value: u64) -> SessionId {
    SessionId::new(SessionKind::Embedder, value).expect("a small number")
}

fn plan() -> Plan {
    let features = Features::default().with_loopback(true);
    let range = POOL_RANGE.parse().expect("a valid range");
    Plan::new([Pool::new("loopback", PoolKind::Loopback, &[range], MAX_SLOTS).expect("one range")])
        .with_settings(Settings::without_cool_down())
        .with_policy(Policy::new([Program::new("/bin/x").with_features(features)]))
}

/// The objects of a C program: a map of [`plan`], one open session, a reader and a rewriter.
struct CObjects {
    map: *mut vipool_map,
    reader: *mut vipool_reader,
    rewriter: *mut vipool_rewriter,
    handle: vipool_handle,
}

impl Drop for CObjects {
    fn drop(&mut self) {
        // SAFETY: the library created each object, or its pointer is null. This function frees each
        // object once.
        unsafe {
            vipool_rewriter_free(self.rewriter);
            vipool_reader_close(self.reader);
            vipool_map_close(self.map);
        }
    }
}

/// Returns a zeroed struct of the C ABI with its size in the first field.
fn zeroed_with_size<T>() -> T {
    // SAFETY: every caller chooses a struct of the C header that begins with its size. Zeros are
    // valid for such a struct.
    unsafe {
        let mut value = std::mem::zeroed::<T>();
        (&raw mut value).cast::<usize>().write(size_of::<T>());
        value
    }
}

fn assert_ok(status: vipool_status) {
    assert_eq!(status, vipool_status::VIPOOL_OK);
}

/// Creates the objects of a C program. The rewriter applies the rule with the id `rule_id`.
fn create_c_objects(rule_id: u64) -> CObjects {
    let mut c_objects = CObjects {
        map: null_mut(),
        reader: null_mut(),
        rewriter: null_mut(),
        handle: vipool_handle::default(),
    };
    // SAFETY: every pointer points to a live value of its type.
    unsafe {
        let plan = create_c_plan();
        assert_ok(vipool_map_create_in_memory(plan, null(), &mut c_objects.map));
        vipool_plan_free(plan);
        assert_ok(vipool_reader_open_map(c_objects.map, &mut c_objects.reader));
        let mut opened = zeroed_with_size::<vipool_opened_session>();
        assert_ok(vipool_map_open_session(
            c_objects.map,
            session_id(1).raw(),
            null(),
            0,
            &mut opened,
        ));
        c_objects.handle = opened.handle;
        let mut options = zeroed_with_size::<vipool_rewriter_options>();
        (options.handle, options.rule) = (opened.handle, rule_id);
        assert_ok(vipool_rewriter_new(c_objects.reader, &options, &mut c_objects.rewriter));
    }
    c_objects
}

/// Builds the same plan as [`plan`] through the C ABI. The caller frees the plan.
fn create_c_plan() -> *mut vipool_plan {
    let (mut farm, mut plan): (*mut vipool_farm, *mut vipool_plan) = (null_mut(), null_mut());
    let mut range = Default::default();
    // SAFETY: every pointer points to a live value of its type.
    unsafe {
        assert_ok(vipool_range_parse(POOL_RANGE.as_ptr().cast(), POOL_RANGE.len(), &mut range));
        assert_ok(vipool_farm_new(&mut farm));
        assert_ok(vipool_farm_set_loopback(farm, &range, 1, null(), 0));
        // All settings are zero, so there is no cool-down, as in the plan for Rust.
        assert_ok(vipool_farm_set_settings(farm, &zeroed_with_size()));
        let mut program = zeroed_with_size::<vipool_program>();
        (program.pattern, program.pattern_length) = (c"/bin/x".as_ptr(), 6);
        program.features = VIPOOL_FEATURE_LOOPBACK;
        assert_ok(vipool_farm_add_program(farm, &program));
        assert_ok(vipool_plan_new(farm, &zeroed_with_size(), &mut plan));
        vipool_farm_free(farm);
    }
    plan
}

/// Parses a sockaddr, rewrites the address, and writes the new sockaddr. A hook layer in Rust does
/// the same.
fn rewrite_bytes_in_rust(
    bytes: &[u8],
    rewrite: impl FnOnce(SocketAddr) -> Option<SocketAddr>,
) -> ([u8; sockaddr::IPV6_LENGTH], usize) {
    let mut out = [0; sockaddr::IPV6_LENGTH];
    let length = match sockaddr::parse(bytes) {
        Parsed::Inet(address) => {
            rewrite(address).map_or(0, |address| sockaddr::write(&address, &mut out))
        }
        Parsed::Unspecified(_) | Parsed::Other => 0,
    };
    (out, length)
}

/// The mode that the command line selects.
enum Mode {
    /// Print a table of the results of several processes. Each process measures `pair_count` pairs
    /// of blocks for each row.
    Table { process_count: usize, pair_count: usize, json: bool },
    /// Measure in this process and print the results as numbers.
    Process { pair_count: usize },
    /// Make `count` calls of one kind in one language.
    Calls { name: String, is_c: bool, count: u64 },
}

impl Mode {
    fn from_arguments() -> Self {
        // `cargo bench` passes --bench. The argument --test selects a short run.
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.starts_with("--")).collect();
        let has_flag = |name: &str| arguments.iter().any(|word| word == name);
        let parse_count = |word: &str| word.parse().expect("a number");
        match *words {
            [] if has_flag("--test") => {
                Mode::Table { process_count: 1, pair_count: 11, json: false }
            }
            [] => Mode::Table { process_count: 15, pair_count: 801, json: has_flag("--json") },
            ["process", count] => Mode::Process { pair_count: parse_count(count) as usize },
            [name, language @ ("rust" | "c"), count] => Mode::Calls {
                name: name.to_owned(),
                is_c: language == "c",
                count: parse_count(count),
            },
            _ => panic!("no arguments, or: NAME rust|c COUNT"),
        }
    }

    /// Measures the kind of call `name`. In the mode `Calls`, makes the calls of the selected kind
    /// and measures nothing.
    fn run<R, S>(
        &self,
        name: &str,
        mut rust_call: impl FnMut() -> R,
        mut c_call: impl FnMut() -> S,
    ) {
        match self {
            Mode::Calls { name: selected_name, .. } if selected_name != name => {}
            Mode::Table { .. } => unreachable!("other processes measure"),
            Mode::Calls { is_c: false, count, .. } => {
                (0..*count).for_each(|_| drop(black_box(rust_call())))
            }
            Mode::Calls { count, .. } => (0..*count).for_each(|_| drop(black_box(c_call()))),
            Mode::Process { pair_count } => compare(name, *pair_count, &mut rust_call, &mut c_call),
        }
    }
}

/// The number of calls in a block. Most blocks of this length run without an interrupt.
const CALLS_PER_BLOCK: u32 = 200;

/// Returns the nanoseconds per call in one block.
fn time_block<R>(call: &mut impl FnMut() -> R) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS_PER_BLOCK {
        drop(black_box(call()));
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS_PER_BLOCK)
}

/// Measures pairs of blocks and prints the medians.
fn compare<R, S>(
    name: &str,
    pair_count: usize,
    rust_call: &mut impl FnMut() -> R,
    c_call: &mut impl FnMut() -> S,
) {
    let mut samples = [const { Vec::new() }; 3];
    for pair in 0..pair_count {
        // Alternate the order, because the second block of a pair finds warmer caches.
        let (rust_ns, c_ns) = if pair % 2 == 0 {
            let rust_ns = time_block(rust_call);
            (rust_ns, time_block(c_call))
        } else {
            let c_ns = time_block(c_call);
            (time_block(rust_call), c_ns)
        };
        for (list, sample) in samples.iter_mut().zip([rust_ns, c_ns, c_ns - rust_ns]) {
            list.push(sample);
        }
    }
    let [rust_ns, c_ns, difference] = samples.map(|mut list| quartiles(&mut list)[1]);
    println!("{name} {rust_ns} {c_ns} {difference}");
}

/// Sorts the list and returns its quartiles.
fn quartiles(list: &mut [f64]) -> [f64; 3] {
    list.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| list[list.len() * quarter / 4])
}

/// Measures in several processes, one after another, and prints the table.
fn print_table(process_count: usize, pair_count: usize, json: bool) {
    let mut rows: Vec<(String, [Vec<f64>; 3])> = Vec::new();
    for _ in 0..process_count {
        let program = std::env::current_exe().expect("the path of this program");
        let result = Command::new(program).args(["process", &pair_count.to_string()]).output();
        let output = result.expect("this program starts");
        assert!(output.status.success(), "{output:?}");
        for line in String::from_utf8(output.stdout).expect("UTF-8").lines() {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            let index =
                rows.iter().position(|(row_name, _)| row_name == name).unwrap_or(rows.len());
            if index == rows.len() {
                rows.push((name.to_owned(), Default::default()));
            }
            for (list, word) in rows[index].1.iter_mut().zip(words) {
                list.push(word.parse().expect("a number"));
            }
        }
    }
    if !json {
        println!("{:<16}{:>8}{:>10}{:>12}   (interquartile range)", "ns", "Rust", "C", "C - Rust");
    }
    for (name, lists) in rows {
        let [[_, rust_median, _], [_, c_median, _], [first_quartile, difference, third_quartile]] =
            lists.map(|mut list| quartiles(&mut list));
        match json {
            true => println!(
                "{{\"name\":\"{name}\",\"rust\":{rust_median:.1},\"c\":{c_median:.1},\
                 \"difference\":{difference:.1},\
                 \"interquartile_range\":[{first_quartile:.1},{third_quartile:.1}]}}"
            ),
            false => {
                println!(
                    "{name:<16}{rust_median:>8.1}{c_median:>10.1}{difference:>+12.1}   \
                     ({first_quartile:+.1} to {third_quartile:+.1})"
                );
            }
        }
    }
    if !json {
        println!("open_close, open_close_user and writer: two calls, an open and a close");
    }
}

fn main() {
    let mode = Mode::from_arguments();
    if let Mode::Table { process_count, pair_count, json } = mode {
        return print_table(process_count, pair_count, json);
    }
    let mut map = Map::in_memory(&plan()).expect("a map");
    let reader = map.reader().expect("a reader");
    let handle = map
        .open_session(session_id(1), &OpenOptions::default(), Tick::ZERO)
        .expect("a session")
        .handle;
    let policy = reader.policy();
    let program = policy.programs().next().expect("a rule");
    let system = LiveSystem { reader: &reader, policy, program, listeners: KernelListeners };
    let leases = reader.lookup(session_id(1));
    let (addresses, rules) = (reader.addresses(&leases), RewriteRules::new(&program, &policy));
    let rewriter = || Rewriter {
        addresses,
        rules,
        lease_held: reader.is_live(black_box(&handle)),
        system: &system,
    };
    let c_objects = create_c_objects(program.id());
    measure_rewriter(&mode, rewriter, &c_objects);

    let mut found = zeroed_with_size::<vipool_found_session>();
    let mut found_addresses = zeroed_with_size::<vipool_addresses>();
    // Call the functions through pointers, because a C program cannot inline them.
    let check_handle = black_box(vipool_reader_check_handle as unsafe extern "C" fn(_, _) -> _);
    let find_session = black_box(vipool_reader_find_session as unsafe extern "C" fn(_, _, _) -> _);
    let get_addresses =
        black_box(vipool_reader_get_addresses as unsafe extern "C" fn(_, _, _) -> _);
    let id = session_id(1);
    // SAFETY of all calls below: every pointer points to a live value of its type.
    mode.run(
        "is_live",
        || reader.is_live(black_box(&handle)),
        // SAFETY: see above.
        || unsafe {
            check_handle(c_objects.reader.cast_const(), black_box(&raw const c_objects.handle))
        },
    );
    mode.run(
        "find",
        || reader.find(black_box(id)),
        // SAFETY: see above.
        || unsafe {
            find_session(c_objects.reader.cast_const(), black_box(id.raw()), &raw mut found)
        },
    );
    mode.run(
        "addresses",
        || reader.addresses(&reader.lookup(black_box(id))),
        // SAFETY: see above.
        || unsafe {
            get_addresses(
                c_objects.reader.cast_const(),
                black_box(id.raw()),
                &raw mut found_addresses,
            )
        },
    );
    measure_open_close(&mode, &mut map, &c_objects);
}

/// Measures the calls of a rewriter.
fn measure_rewriter<'s, S: vipool::rewrite::SystemView + 's>(
    mode: &Mode,
    rewriter: impl Fn() -> Rewriter<'s, S>,
    c_objects: &CObjects,
) {
    let mut loopback_bytes = [0; sockaddr::IPV4_LENGTH];
    sockaddr::write(&SocketAddr::from(([127, 0, 0, 1], 6379)), &mut loopback_bytes);
    let mut external_bytes = [0; sockaddr::IPV4_LENGTH];
    sockaddr::write(&SocketAddr::from(([192, 0, 2, 1], 443)), &mut external_bytes);
    let properties = SocketProperties::new(Protocol::Tcp, None);
    let mut socket = zeroed_with_size::<vipool_socket>();
    socket.protocol = vipool_protocol::VIPOOL_PROTOCOL_TCP as u32;
    let mut outcome = zeroed_with_size::<vipool_outcome>();
    let out = &raw mut outcome;
    let c_rewriter = c_objects.rewriter.cast_const();
    let bind = black_box(vipool_rewrite_bind as unsafe extern "C" fn(_, _, _, _, _) -> _);
    let connect = black_box(vipool_rewrite_connect as unsafe extern "C" fn(_, _, _, _, _) -> _);
    let visible_address =
        black_box(vipool_rewrite_visible_address as unsafe extern "C" fn(_, _, _, _, _, _) -> _);
    let visible_ip = black_box(vipool_rewrite_visible_ip as unsafe extern "C" fn(_, _, _) -> _);
    let as_pointer =
        |bytes: &[u8; sockaddr::IPV4_LENGTH]| -> *const c_void { bytes.as_ptr().cast() };

    mode.run(
        "bind",
        || {
            rewrite_bytes_in_rust(black_box(&loopback_bytes), |address| {
                rewriter()
                    .bind(black_box(&properties), address)
                    .rewritten()
                    .map(|bind| bind.address)
            })
        },
        // SAFETY: every pointer points to a live value of its type.
        || unsafe {
            bind(
                c_rewriter,
                black_box(&raw const socket),
                as_pointer(black_box(&loopback_bytes)),
                16_u32,
                out,
            )
        },
    );
    mode.run(
        "connect",
        || {
            rewrite_bytes_in_rust(black_box(&external_bytes), |address| {
                rewriter()
                    .connect(black_box(&properties), address)
                    .rewritten()
                    .map(|connect| connect.destination)
            })
        },
        // SAFETY: as above.
        || unsafe {
            connect(
                c_rewriter,
                black_box(&raw const socket),
                as_pointer(black_box(&external_bytes)),
                16_u32,
                out,
            )
        },
    );
    mode.run(
        "accept",
        || {
            rewrite_bytes_in_rust(black_box(&loopback_bytes), |source| {
                match rewriter().visible_address(source, || None) {
                    Outcome::Rewritten(visible) => Some(visible),
                    Outcome::Passed(_) | Outcome::Refused(_) => None,
                }
            })
        },
        // SAFETY: as above.
        || unsafe {
            visible_address(
                c_rewriter,
                as_pointer(black_box(&loopback_bytes)),
                16_u32,
                None,
                null_mut(),
                out,
            )
        },
    );
    let (ip, c_ip): (IpAddr, vipool_ip) =
        ([127, 3, 0, 2].into(), IpAddr::from([127, 3, 0, 2]).into());
    mode.run(
        "visible_ip",
        || rewriter().visible_ip(black_box(ip)).rewritten(),
        // SAFETY: as above.
        || unsafe { visible_ip(c_rewriter, black_box(&raw const c_ip), out) },
    );
}

/// Measures opening a session and closing it by its handle.
fn measure_open_close(mode: &Mode, map: &mut Map, c_objects: &CObjects) {
    let id = session_id(2);
    let user_options = OpenOptions::new().with_user("ada");
    let mut user_c_options = zeroed_with_size::<vipool_open_options>();
    (user_c_options.user, user_c_options.user_length) = (c"ada".as_ptr(), 3);
    let mut opened = zeroed_with_size::<vipool_opened_session>();
    let mut closed = zeroed_with_size::<vipool_closed_session>();
    let open =
        black_box(vipool_map_open_session as unsafe extern "C" fn(_, _, _, _, _) -> vipool_status);
    let close =
        black_box(vipool_map_close_by_handle as unsafe extern "C" fn(_, _, _, _) -> vipool_status);
    for (name, options, c_options) in [
        ("open_close", OpenOptions::default(), null()),
        ("open_close_user", user_options, &raw const user_c_options),
    ] {
        mode.run(
            name,
            || {
                let opened = map
                    .open_session(black_box(id), black_box(&options), Tick::ZERO)
                    .expect("a free address");
                map.close_by_handle(black_box(&opened.handle), Tick::ZERO).expect("an open session")
            },
            // SAFETY: every pointer points to a live value of its type.
            || unsafe {
                assert_ok(open(
                    c_objects.map.cast_const(),
                    black_box(id.raw()),
                    black_box(c_options),
                    0_u32,
                    &raw mut opened,
                ));
                assert_ok(close(
                    c_objects.map.cast_const(),
                    black_box(&raw const opened.handle),
                    0_u32,
                    &raw mut closed,
                ));
            },
        );
    }
    let single_threaded_map = create_single_threaded_map();
    let mut writer = map.exclusive_writer().expect("exclusive access");
    mode.run(
        "writer",
        || {
            let options = OpenOptions::default();
            let opened = writer
                .open_session(black_box(id), black_box(&options), Tick::ZERO)
                .expect("a free address");
            writer.close_by_handle(black_box(&opened.handle), Tick::ZERO).expect("an open session")
        },
        // SAFETY: as above.
        || unsafe {
            let map = single_threaded_map.cast_const();
            assert_ok(open(map, black_box(id.raw()), black_box(null()), 0_u32, &raw mut opened));
            assert_ok(close(map, black_box(&raw const opened.handle), 0_u32, &raw mut closed));
        },
    );
    // SAFETY: as above. This function closes the map once.
    unsafe { vipool_map_close(single_threaded_map) };
}

/// Creates a map in memory for one thread.
fn create_single_threaded_map() -> *mut vipool_map {
    let mut map = null_mut();
    let mut options = zeroed_with_size::<vipool_map_options>();
    options.flags = VIPOOL_MAP_SINGLE_THREADED;
    // SAFETY: every pointer points to a live value of its type.
    unsafe {
        let plan = create_c_plan();
        assert_ok(vipool_map_create_in_memory(plan, &options, &mut map));
        vipool_plan_free(plan);
    }
    map
}
