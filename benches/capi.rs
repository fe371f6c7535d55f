//! A call through the C ABI beside the same in Rust: both take the bytes of a sockaddr where a
//! hook layer has them, and give bytes back.
//!
//! `cargo bench --features capi --bench capi`

use std::ffi::c_void;
use std::hint::black_box;
use std::net::SocketAddr;
use std::ptr::{null, null_mut};

use criterion::{Criterion, criterion_group, criterion_main};
use vipool::capi::map::{vipool_map, vipool_map_reader, vipool_opened};
use vipool::capi::map::{vipool_map_close_session, vipool_map_in_memory, vipool_map_open_session};
use vipool::capi::plan::{vipool_plan, vipool_program};
use vipool::capi::plan::{vipool_plan_add_pool, vipool_plan_add_program, vipool_plan_new};
use vipool::capi::reader::{vipool_found, vipool_reader, vipool_reader_check, vipool_reader_find};
use vipool::capi::rewrite::{
    vipool_ask_address_fn, vipool_outcome, vipool_rewrite_bind, vipool_rewrite_shown, vipool_socket,
};
use vipool::capi::rewriter::{vipool_rewriter, vipool_rewriter_new, vipool_rewriter_options};
use vipool::capi::session::{vipool_handle, vipool_session};
use vipool::capi::status::vipool_status;
use vipool::map::{Map, OpenOptions, Plan};
use vipool::policy::{Features, Policy, Program};
use vipool::pool::{MAX_SLOTS, Pool, PoolKind};
use vipool::rewrite::sockaddr::{self, Parsed};
use vipool::rewrite::{Live, Outcome, Protocol, Rewriter, Rules, SocketFacts};
use vipool::session::{SessionId, SessionKind};

const POOL: &str = "127.3.0.2-127.3.0.253";

// Called by pointer, so that nothing is inlined that a C program could not inline.
type RewriteBind = unsafe extern "C" fn(
    *const vipool_rewriter,
    *const vipool_socket,
    *const c_void,
    u32,
    *mut vipool_outcome,
) -> vipool_status;
type RewriteShown = unsafe extern "C" fn(
    *const vipool_rewriter,
    *const c_void,
    u32,
    vipool_ask_address_fn,
    *mut c_void,
    *mut vipool_outcome,
) -> vipool_status;
type Check = unsafe extern "C" fn(*const vipool_reader, *const vipool_handle) -> vipool_status;
type Find =
    unsafe extern "C" fn(*const vipool_reader, vipool_session, *mut vipool_found) -> vipool_status;

fn session(value: u64) -> SessionId {
    SessionId::new(SessionKind::Embedder, value).expect("small")
}

fn plan() -> Plan {
    let features = Features { loopback: true, ..Features::default() };
    let range = POOL.parse().expect("a range");
    Plan {
        pools: vec![
            Pool::new("loopback", PoolKind::Loopback, &[range], MAX_SLOTS).expect("one range"),
        ],
        policy: Policy {
            programs: vec![Program { pattern: "/bin/x".into(), features, ..Program::default() }],
            ..Policy::default()
        },
        ..Plan::default()
    }
}

/// What a C program has made: the same as [`plan`].
struct C {
    map: *mut vipool_map,
    reader: *mut vipool_reader,
    rewriter: *mut vipool_rewriter,
    handle: vipool_handle,
}

fn sized<T>() -> T {
    // SAFETY: zero is valid for every struct of the header, and the size is its first field.
    unsafe {
        let mut value = std::mem::zeroed::<T>();
        (&raw mut value).cast::<usize>().write(size_of::<T>());
        value
    }
}

fn made(status: vipool_status) {
    assert_eq!(status, vipool_status::VIPOOL_OK);
}

fn c(rule: u64) -> C {
    let mut c = C {
        map: null_mut(),
        reader: null_mut(),
        rewriter: null_mut(),
        handle: vipool_handle::default(),
    };
    let mut plan: *mut vipool_plan = null_mut();
    let mut range = Default::default();
    // SAFETY: every pointer is to a live value of its type; the few handles are kept to the end.
    unsafe {
        made(vipool_plan_new(&mut plan));
        let text = POOL.as_ptr().cast();
        made(vipool::capi::address::vipool_range_parse(text, POOL.len(), &mut range));
        made(vipool_plan_add_pool(plan, c"loopback".as_ptr(), 8, 2, &range, 1, 0));
        let mut program = sized::<vipool_program>();
        (program.pattern, program.pattern_length) = (c"/bin/x".as_ptr(), 6);
        program.features = 2;
        made(vipool_plan_add_program(plan, &program));
        made(vipool_map_in_memory(plan, null(), &mut c.map));
        made(vipool_map_reader(c.map, &mut c.reader));
        let mut opened = sized::<vipool_opened>();
        made(vipool_map_open_session(c.map, session(1).raw(), null(), 0, &mut opened));
        c.handle = opened.handle;
        let mut options = sized::<vipool_rewriter_options>();
        (options.handle, options.rule) = (opened.handle, rule);
        made(vipool_rewriter_new(c.reader, &options, &mut c.rewriter));
    }
    c
}

/// What a hook layer in Rust does: bytes in, decision, bytes out.
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

fn calls(criterion: &mut Criterion) {
    let map = Map::in_memory(&plan()).expect("a map");
    let reader = map.reader().expect("a reader");
    let handle =
        map.open_session(session(1), &OpenOptions::default(), 0).expect("a session").handle;
    let policy = reader.policy();
    let program = policy.programs().next().expect("a rule");
    let world = Live { reader: &reader, policy, program };
    let leases = reader.lookup(session(1));
    let (addresses, rules) = (reader.addresses(&leases), Rules::of(&program, &policy));
    let rewriter =
        || Rewriter { addresses, rules, live: reader.is_live(black_box(&handle)), world: &world };
    let c = c(program.id());
    let mut bytes = [0; sockaddr::IPV4_LENGTH];
    let local = SocketAddr::from(([127, 0, 0, 1], 6379));
    sockaddr::write(&local, &mut bytes);
    let facts =
        SocketFacts { protocol: Protocol::Tcp, local: None, v6only: false, shares_port: false };
    let mut socket = sized::<vipool_socket>();
    socket.protocol = 1;
    let mut outcome = sized::<vipool_outcome>();
    let mut found = sized::<vipool_found>();

    let mut group = criterion.benchmark_group("bind");
    group.bench_function("rust", |b| {
        b.iter(|| {
            through_rust(black_box(&bytes), |to| {
                let bind = rewriter().bind(black_box(&facts), to);
                bind.rewritten().map(|bind| bind.address)
            })
        });
    });
    group.bench_function("c", |b| {
        let (call, to): (RewriteBind, _) = (black_box(vipool_rewrite_bind), &bytes);
        // SAFETY: every pointer is to a live value of its type.
        b.iter(|| unsafe {
            call(c.rewriter, &socket, black_box(to).as_ptr().cast(), 16, &mut outcome)
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("accept");
    group.bench_function("rust", |b| {
        b.iter(|| {
            through_rust(black_box(&bytes), |source| match rewriter().shown(source, || None) {
                Outcome::Rewritten(shown) => Some(shown),
                Outcome::Passed(_) | Outcome::Refused(_) => None,
            })
        });
    });
    group.bench_function("c", |b| {
        let (call, to): (RewriteShown, _) = (black_box(vipool_rewrite_shown), &bytes);
        // SAFETY: every pointer is to a live value of its type.
        b.iter(|| unsafe {
            call(c.rewriter, black_box(to).as_ptr().cast(), 16, None, null_mut(), &mut outcome)
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("is_live");
    group.bench_function("rust", |b| b.iter(|| reader.is_live(black_box(&handle))));
    group.bench_function("c", |b| {
        let call: Check = black_box(vipool_reader_check);
        // SAFETY: every pointer is to a live value of its type.
        b.iter(|| unsafe { call(c.reader, black_box(&c.handle)) });
    });
    group.finish();

    let mut group = criterion.benchmark_group("find");
    group.bench_function("rust", |b| b.iter(|| reader.find(black_box(session(1)))));
    group.bench_function("c", |b| {
        let call: Find = black_box(vipool_reader_find);
        let id = session(1).raw();
        // SAFETY: every pointer is to a live value of its type.
        b.iter(|| unsafe { call(c.reader, black_box(id), &mut found) });
    });
    group.finish();

    let mut group = criterion.benchmark_group("open_close");
    group.bench_function("rust", |b| {
        b.iter(|| {
            let opened = map.open_session(black_box(session(2)), &OpenOptions::default(), 0);
            black_box(opened).expect("free");
            map.close_session(session(2), 0).expect("open")
        });
    });
    group.bench_function("c", |b| {
        let id = session(2).raw();
        let mut opened = sized::<vipool_opened>();
        // SAFETY: every pointer is to a live value of its type.
        b.iter(|| unsafe {
            made(vipool_map_open_session(c.map, black_box(id), null(), 0, &mut opened));
            made(vipool_map_close_session(c.map, id, 0, null_mut()));
        });
    });
    group.finish();
}

criterion_group!(benches, calls);
criterion_main!(benches);
