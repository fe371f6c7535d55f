//! Compares a call through the C ABI with the same call in Rust. Both read and write the bytes of a
//! sockaddr, as a hook layer does.
//!
//! `cargo xtask bench capi` (`--json`) measures short blocks of calls, alternately in Rust and C.
//! It prints both medians and the median of the difference within a pair of blocks. Other load
//! affects both blocks of a pair alike. The memory layout changes a result by some nanoseconds, so
//! the bench measures in several processes. The table contains the median and the quartiles over
//! all processes.
//!
//! With `-- NAME rust|c COUNT` the program only makes COUNT calls. Two runs with different counts
//! under `valgrind --tool=callgrind` then show the instructions of one call.

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
use vipool::capi::process_list::vipool_program;
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
use vipool::capi::socket::vipool_socket;
use vipool::capi::status::vipool_status;
use vipool::capi::visible::vipool_rewrite_visible_ip;
use vipool::map::{Map, OpenOptions, Plan};
use vipool::policy::{Features, Policy, Program};
use vipool::pool::{MAX_SLOTS, Pool, PoolKind};
use vipool::rewrite::sockaddr::{self, Parsed};
use vipool::rewrite::{
    KernelListeners, LiveSystem, Outcome, Protocol, RewriteRules, Rewriter, SocketProperties,
};
use vipool::session::{SessionId, SessionKind};

const POOL: &str = "127.3.0.2-127.3.0.253";

fn session(value: u64) -> SessionId {
    SessionId::new(SessionKind::Embedder, value).expect("small")
}

fn plan() -> Plan {
    let features = Features::default().with_loopback(true);
    let range = POOL.parse().expect("a range");
    Plan::new([Pool::new("loopback", PoolKind::Loopback, &[range], MAX_SLOTS).expect("one range")])
        .with_policy(Policy::new([Program::new("/bin/x").with_features(features)]))
}

/// The objects of a C program that has the map of [`plan`] with one open session.
struct C {
    map: *mut vipool_map,
    reader: *mut vipool_reader,
    rewriter: *mut vipool_rewriter,
    handle: vipool_handle,
}

impl Drop for C {
    fn drop(&mut self) {
        // SAFETY: each handle came from the library and is freed once.
        unsafe {
            vipool_rewriter_free(self.rewriter);
            vipool_reader_close(self.reader);
            vipool_map_close(self.map);
        }
    }
}

fn sized<T>() -> T {
    // SAFETY: zeros are valid for every struct of the header, and the size is the first field.
    unsafe {
        let mut value = std::mem::zeroed::<T>();
        (&raw mut value).cast::<usize>().write(size_of::<T>());
        value
    }
}

fn check_ok(status: vipool_status) {
    assert_eq!(status, vipool_status::VIPOOL_OK);
}

fn c(rule: u64) -> C {
    let mut c = C {
        map: null_mut(),
        reader: null_mut(),
        rewriter: null_mut(),
        handle: vipool_handle::default(),
    };
    // SAFETY: every pointer points to a live value of its type.
    unsafe {
        let plan = c_plan();
        check_ok(vipool_map_create_in_memory(plan, null(), &mut c.map));
        vipool_plan_free(plan);
        check_ok(vipool_reader_open_map(c.map, &mut c.reader));
        let mut opened = sized::<vipool_opened_session>();
        check_ok(vipool_map_open_session(c.map, session(1).raw(), null(), 0, &mut opened));
        c.handle = opened.handle;
        let mut options = sized::<vipool_rewriter_options>();
        (options.handle, options.rule) = (opened.handle, rule);
        check_ok(vipool_rewriter_new(c.reader, &options, &mut c.rewriter));
    }
    c
}

/// Builds the same plan as [`plan`] through the C ABI. The caller frees it.
fn c_plan() -> *mut vipool_plan {
    let (mut farm, mut plan): (*mut vipool_farm, *mut vipool_plan) = (null_mut(), null_mut());
    let mut range = Default::default();
    // SAFETY: every pointer points to a live value of its type.
    unsafe {
        check_ok(vipool_range_parse(POOL.as_ptr().cast(), POOL.len(), &mut range));
        check_ok(vipool_farm_new(&mut farm));
        check_ok(vipool_farm_set_loopback(farm, &range, 1, null(), 0));
        // All settings are zero, so there is no cool-down, as in the plan for Rust.
        check_ok(vipool_farm_set_settings(farm, &sized()));
        let mut program = sized::<vipool_program>();
        (program.pattern, program.pattern_length) = (c"/bin/x".as_ptr(), 6);
        program.features = 2;
        check_ok(vipool_farm_add_program(farm, &program));
        check_ok(vipool_plan_new(farm, &sized(), &mut plan));
        vipool_farm_free(farm);
    }
    plan
}

/// Parses a sockaddr, decides, and writes the new sockaddr, as a hook layer in Rust does.
fn through_rust(
    bytes: &[u8],
    decide: impl FnOnce(SocketAddr) -> Option<SocketAddr>,
) -> ([u8; sockaddr::IPV6_LENGTH], usize) {
    let mut out = [0; sockaddr::IPV6_LENGTH];
    let length = match sockaddr::parse(bytes) {
        Parsed::Inet(address) => decide(address).map_or(0, |to| sockaddr::write(&to, &mut out)),
        Parsed::Unspecified(_) | Parsed::Other => 0,
    };
    (out, length)
}

/// The command line.
enum Mode {
    /// Print a table of the results of several processes. Each process measures `pairs` pairs of
    /// blocks.
    Table { processes: usize, pairs: usize, json: bool },
    /// Measure in this process and print only the numbers.
    Process { pairs: usize },
    /// Make `count` calls of one kind in one language.
    Calls { name: String, c: bool, count: u64 },
}

impl Mode {
    fn read() -> Self {
        // cargo passes --bench, or --test for a short run.
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.starts_with("--")).collect();
        let flag = |name: &str| arguments.iter().any(|word| word == name);
        let count = |word: &str| word.parse().expect("a number");
        match *words {
            [] if flag("--test") => Mode::Table { processes: 1, pairs: 11, json: false },
            [] => Mode::Table { processes: 15, pairs: 801, json: flag("--json") },
            ["process", pairs] => Mode::Process { pairs: count(pairs) as usize },
            [name, side @ ("rust" | "c"), calls] => {
                Mode::Calls { name: name.to_owned(), c: side == "c", count: count(calls) }
            }
            _ => panic!("no arguments, or: NAME rust|c COUNT"),
        }
    }

    /// Measures one kind of call, or only makes the calls in the mode `Calls`.
    fn call<R, S>(&self, name: &str, mut rust: impl FnMut() -> R, mut c: impl FnMut() -> S) {
        match self {
            Mode::Calls { name: wanted, .. } if wanted != name => {}
            Mode::Table { .. } => unreachable!("other processes measure"),
            Mode::Calls { c: false, count, .. } => {
                (0..*count).for_each(|_| drop(black_box(rust())))
            }
            Mode::Calls { count, .. } => (0..*count).for_each(|_| drop(black_box(c()))),
            Mode::Process { pairs } => compare(name, *pairs, &mut rust, &mut c),
        }
    }
}

/// The number of calls in a block. Most blocks of this length run without an interruption.
const BLOCK: u32 = 200;

fn block<R>(call: &mut impl FnMut() -> R) -> f64 {
    let begin = Instant::now();
    for _ in 0..BLOCK {
        drop(black_box(call()));
    }
    begin.elapsed().as_nanos() as f64 / f64::from(BLOCK)
}

fn compare<R, S>(
    name: &str,
    pairs: usize,
    rust: &mut impl FnMut() -> R,
    c: &mut impl FnMut() -> S,
) {
    let mut figures = [const { Vec::new() }; 3];
    for pair in 0..pairs {
        // Alternate the order, so that neither language always has warm caches.
        let (in_rust, in_c) = if pair % 2 == 0 {
            let in_rust = block(rust);
            (in_rust, block(c))
        } else {
            let in_c = block(c);
            (block(rust), in_c)
        };
        for (list, figure) in figures.iter_mut().zip([in_rust, in_c, in_c - in_rust]) {
            list.push(figure);
        }
    }
    let [in_rust, in_c, more] = figures.map(|mut list| quartiles(&mut list)[1]);
    println!("{name} {in_rust} {in_c} {more}");
}

/// Sorts the list and returns its quartiles.
fn quartiles(list: &mut [f64]) -> [f64; 3] {
    list.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| list[list.len() * quarter / 4])
}

/// Measures in several processes, one after another, and prints the table.
fn table(processes: usize, pairs: usize, json: bool) {
    let mut rows: Vec<(String, [Vec<f64>; 3])> = Vec::new();
    for _ in 0..processes {
        let this = std::env::current_exe().expect("a program has a file");
        let process = Command::new(this).args(["process", &pairs.to_string()]).output();
        let output = process.expect("this program starts");
        assert!(output.status.success(), "{output:?}");
        for line in String::from_utf8(output.stdout).expect("UTF-8").lines() {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            let index = rows.iter().position(|(known, _)| known == name).unwrap_or(rows.len());
            if index == rows.len() {
                rows.push((name.to_owned(), Default::default()));
            }
            for (list, word) in rows[index].1.iter_mut().zip(words) {
                list.push(word.parse().expect("a number"));
            }
        }
    }
    if !json {
        println!("{:<16}{:>8}{:>10}{:>12}   (middle half)", "ns", "Rust", "C", "C - Rust");
    }
    for (name, lists) in rows {
        let [[_, rust, _], [_, c, _], [first, more, third]] =
            lists.map(|mut list| quartiles(&mut list));
        match json {
            true => println!(
                "{{\"name\":\"{name}\",\"rust\":{rust:.1},\"c\":{c:.1},\"difference\":{more:.1},\
                 \"middle_half\":[{first:.1},{third:.1}]}}"
            ),
            false => {
                println!(
                    "{name:<16}{rust:>8.1}{c:>10.1}{more:>+12.1}   ({first:+.1} to {third:+.1})"
                );
            }
        }
    }
    if !json {
        println!("open_close and what follows: two calls, an opening and a closing");
    }
}

fn main() {
    let mode = Mode::read();
    if let Mode::Table { processes, pairs, json } = mode {
        return table(processes, pairs, json);
    }
    let mut map = Map::in_memory(&plan()).expect("a map");
    let reader = map.reader().expect("a reader");
    let handle = map
        .open_session(session(1), &OpenOptions::default(), Tick::ZERO)
        .expect("a session")
        .handle;
    let policy = reader.policy();
    let program = policy.programs().next().expect("a rule");
    let system = LiveSystem { reader: &reader, policy, program, listeners: KernelListeners };
    let leases = reader.lookup(session(1));
    let (addresses, rules) = (reader.addresses(&leases), RewriteRules::new(&program, &policy));
    let rewriter = || Rewriter {
        addresses,
        rules,
        lease_held: reader.is_live(black_box(&handle)),
        system: &system,
    };
    let c = c(program.id());
    rewriting(&mode, rewriter, &c);

    let mut found = sized::<vipool_found_session>();
    let mut own = sized::<vipool_addresses>();
    // Call through pointers, because a C program cannot inline these functions.
    let check = black_box(vipool_reader_check_handle as unsafe extern "C" fn(_, _) -> _);
    let find = black_box(vipool_reader_find_session as unsafe extern "C" fn(_, _, _) -> _);
    let look_up = black_box(vipool_reader_get_addresses as unsafe extern "C" fn(_, _, _) -> _);
    let id = session(1);
    // SAFETY, of all calls below: every pointer points to a live value of its type.
    mode.call(
        "is_live",
        || reader.is_live(black_box(&handle)),
        // SAFETY: see above.
        || unsafe { check(c.reader.cast_const(), black_box(&raw const c.handle)) },
    );
    mode.call(
        "find",
        || reader.find(black_box(id)),
        // SAFETY: see above.
        || unsafe { find(c.reader.cast_const(), black_box(id.raw()), &raw mut found) },
    );
    mode.call(
        "addresses",
        || reader.addresses(&reader.lookup(black_box(id))),
        // SAFETY: see above.
        || unsafe { look_up(c.reader.cast_const(), black_box(id.raw()), &raw mut own) },
    );
    opening(&mode, &mut map, &c);
}

fn rewriting<'w, W: vipool::rewrite::SystemView + 'w>(
    mode: &Mode,
    rewriter: impl Fn() -> Rewriter<'w, W>,
    c: &C,
) {
    let mut bytes = [0; sockaddr::IPV4_LENGTH];
    sockaddr::write(&SocketAddr::from(([127, 0, 0, 1], 6379)), &mut bytes);
    let mut outside = [0; sockaddr::IPV4_LENGTH];
    sockaddr::write(&SocketAddr::from(([192, 0, 2, 1], 443)), &mut outside);
    let properties = SocketProperties::new(Protocol::Tcp, None);
    let mut socket = sized::<vipool_socket>();
    socket.protocol = 1;
    let mut outcome = sized::<vipool_outcome>();
    let out = &raw mut outcome;
    let decider = c.rewriter.cast_const();
    let bind = black_box(vipool_rewrite_bind as unsafe extern "C" fn(_, _, _, _, _) -> _);
    let connect = black_box(vipool_rewrite_connect as unsafe extern "C" fn(_, _, _, _, _) -> _);
    let shown =
        black_box(vipool_rewrite_visible_address as unsafe extern "C" fn(_, _, _, _, _, _) -> _);
    let visible_ip = black_box(vipool_rewrite_visible_ip as unsafe extern "C" fn(_, _, _) -> _);
    let at = |bytes: &[u8; sockaddr::IPV4_LENGTH]| -> *const c_void { bytes.as_ptr().cast() };

    mode.call(
        "bind",
        || {
            through_rust(black_box(&bytes), |to| {
                rewriter().bind(black_box(&properties), to).rewritten().map(|bind| bind.address)
            })
        },
        // SAFETY: every pointer points to a live value of its type.
        || unsafe {
            bind(decider, black_box(&raw const socket), at(black_box(&bytes)), 16_u32, out)
        },
    );
    mode.call(
        "connect",
        || {
            through_rust(black_box(&outside), |to| {
                rewriter()
                    .connect(black_box(&properties), to)
                    .rewritten()
                    .map(|connect| connect.destination)
            })
        },
        // SAFETY: as above.
        || unsafe {
            connect(decider, black_box(&raw const socket), at(black_box(&outside)), 16_u32, out)
        },
    );
    mode.call(
        "accept",
        || {
            through_rust(black_box(&bytes), |source| {
                match rewriter().visible_address(source, || None) {
                    Outcome::Rewritten(shown) => Some(shown),
                    Outcome::Passed(_) | Outcome::Refused(_) => None,
                }
            })
        },
        // SAFETY: as above.
        || unsafe { shown(decider, at(black_box(&bytes)), 16_u32, None, null_mut(), out) },
    );
    let (ip, c_ip): (IpAddr, vipool_ip) =
        ([127, 3, 0, 2].into(), IpAddr::from([127, 3, 0, 2]).into());
    mode.call(
        "visible_ip",
        || rewriter().visible_ip(black_box(ip)).rewritten(),
        // SAFETY: as above.
        || unsafe { visible_ip(decider, black_box(&raw const c_ip), out) },
    );
}

/// Measures opening a session and closing it by its handle.
fn opening(mode: &Mode, map: &mut Map, c: &C) {
    let id = session(2);
    let user = OpenOptions::new().with_user("ada");
    let mut options = sized::<vipool_open_options>();
    (options.user, options.user_length) = (c"ada".as_ptr(), 3);
    let mut opened = sized::<vipool_opened_session>();
    let mut closed = sized::<vipool_closed_session>();
    let open =
        black_box(vipool_map_open_session as unsafe extern "C" fn(_, _, _, _, _) -> vipool_status);
    let close =
        black_box(vipool_map_close_by_handle as unsafe extern "C" fn(_, _, _, _) -> vipool_status);
    for (name, given, in_c) in [
        ("open_close", OpenOptions::default(), null()),
        ("open_close_user", user, &raw const options),
    ] {
        mode.call(
            name,
            || {
                let opened =
                    map.open_session(black_box(id), black_box(&given), Tick::ZERO).expect("free");
                map.close_by_handle(black_box(&opened.handle), Tick::ZERO).expect("open")
            },
            // SAFETY: every pointer points to a live value of its type.
            || unsafe {
                check_ok(open(
                    c.map.cast_const(),
                    black_box(id.raw()),
                    black_box(in_c),
                    0_u32,
                    &raw mut opened,
                ));
                check_ok(close(
                    c.map.cast_const(),
                    black_box(&raw const opened.handle),
                    0_u32,
                    &raw mut closed,
                ));
            },
        );
    }
    let single = single_threaded_map();
    let mut writer = map.exclusive_writer().expect("exclusive access");
    mode.call(
        "writer",
        || {
            let options = OpenOptions::default();
            let opened =
                writer.open_session(black_box(id), black_box(&options), Tick::ZERO).expect("free");
            writer.close_by_handle(black_box(&opened.handle), Tick::ZERO).expect("open")
        },
        // SAFETY: as above.
        || unsafe {
            let map = single.cast_const();
            check_ok(open(map, black_box(id.raw()), black_box(null()), 0_u32, &raw mut opened));
            check_ok(close(map, black_box(&raw const opened.handle), 0_u32, &raw mut closed));
        },
    );
    // SAFETY: as above; the map is closed once.
    unsafe { vipool_map_close(single) };
}

/// Creates a map in memory for one thread.
fn single_threaded_map() -> *mut vipool_map {
    let mut map = null_mut();
    let mut options = sized::<vipool_map_options>();
    options.flags = VIPOOL_MAP_SINGLE_THREADED;
    // SAFETY: every pointer points to a live value of its type.
    unsafe {
        let plan = c_plan();
        check_ok(vipool_map_create_in_memory(plan, &options, &mut map));
        vipool_plan_free(plan);
    }
    map
}
