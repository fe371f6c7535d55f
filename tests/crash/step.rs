//! A writer stopped after each of its instructions: what the next writer would find there.
//!
//! A child does random operations under PTRACE_SINGLESTEP (ptrace(2)). Whenever an instruction has
//! changed the map, a copy is recovered as it would be if the child had been killed there, and a
//! reader looks at the map itself. Now and then the map is set back to such a state, so that
//! recovery is stepped through as well.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use vipool::Tick;
use vipool::map::{Leases, Map, OpenOptions, Reader};
use vipool::raw::mapping::Mapping;
use vipool::session::{Handle, SessionId};

use crate::operations::{Random, Scene, operate, scenes};
use crate::process::{Child, Event, be_traced, shared_words, stay_here, stop};
use crate::view::{Directory, Held, held, id, recovered};

/// Within an operation, and behind it.
const WITHIN: u64 = 1;
const BEHIND: u64 = 2;

/// What was seen after an instruction that changed the map.
struct Seen {
    bytes: [Vec<u8>; 2],
    recovered: Held,
    found: Vec<(SessionId, Option<(Handle, Leases)>)>,
}

#[test]
fn every_instruction_may_be_the_last() {
    let instructions = vipool_testing::effort(448_000, 20_000_000);
    stay_here();
    let mut counts = (0, 0, 0);
    let mut seeds = Random::of_any_seed();
    for scene in scenes() {
        let share = instructions * scene.weight / 4 + 1;
        let Some((steps, states, operations)) = run(&scene, share, &mut seeds) else {
            return;
        };
        println!("{}: {steps} instructions, {states} states, {operations} operations", scene.name);
        counts = (counts.0 + steps, counts.1 + states, counts.2 + operations);
    }
    println!("{} instructions, {} states, {} operations", counts.0, counts.1, counts.2);
    assert!(counts.0 >= instructions && counts.1 > 100);
}

/// Steps through operations; answers how many instructions, states and operations there were.
fn run(scene: &Scene, instructions: u64, seeds: &mut Random) -> Option<(u64, u64, u64)> {
    let directory = Directory::new("step");
    let map = Map::create(&directory.0, &scene.plan).unwrap();
    for number in &scene.sessions[..scene.open] {
        map.open_session(id(*number), &OpenOptions::default(), Tick::from_secs(1)).unwrap();
    }
    let reader = Reader::attach(&directory.0).unwrap();
    let files = ["map", "sessions"].map(|name| {
        let path = directory.0.join(name);
        std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
    });
    let maps = files.each_ref().map(|file| Mapping::new(file, false).unwrap());
    let place = &shared_words(1)[0];
    let seed = seeds.below(u32::MAX.into());
    let mut child = Child::start(|| {
        if !be_traced() {
            panic!("not to be traced");
        }
        let map = Map::open(&directory.0).unwrap();
        let mut random = Random::new(seed);
        let mut now = 2;
        loop {
            // Now and then long enough for addresses to cool and for leaders to be given up.
            now += [0, 0, 1, 1, 1, 2, 3, 12][random.below(8) as usize];
            let begin = || {
                stop();
                place.store(WITHIN, Ordering::SeqCst);
                ControlFlow::Continue(())
            };
            operate(&map, scene, &mut random, now, begin);
            place.store(BEHIND, Ordering::SeqCst);
        }
    });
    let mut random = Random::new(seed + 1);
    // Leases of the operation that was cut short before: a reader may not know of them yet.
    let mut unsettled = BTreeSet::new();
    let (mut steps, mut states, mut operations) = (0, 0, 0);
    while steps < instructions {
        match child.wait() {
            Event::Stopped(libc::SIGSTOP) => {}
            Event::Exited(1) if operations == 0 => {
                vipool_testing::record_skip(
                    "ptrace",
                    "allow ptrace in this container (CAP_SYS_PTRACE)",
                );
                return None;
            }
            other => panic!("the child: {other:?}"),
        }
        let mut last = bytes_of(&maps);
        let before = recovered(&last[0], &last[1]);
        let sessions: BTreeSet<SessionId> =
            before.values().map(|tenant| tenant.lease.session).collect();
        let mut seen = Vec::new();
        loop {
            child.step();
            match child.wait() {
                Event::Stopped(libc::SIGTRAP) => {}
                other => panic!("the child: {other:?}"),
            }
            let at = place.load(Ordering::SeqCst);
            steps += u64::from(at == WITHIN);
            if at != 0 && !is_still(&maps, &last) {
                last = bytes_of(&maps);
                seen.push(Seen {
                    recovered: recovered(&last[0], &last[1]),
                    found: sessions.iter().map(|id| (*id, reader.find(*id))).collect(),
                    bytes: last.clone(),
                });
            }
            if at == BEHIND {
                break;
            }
        }
        place.store(0, Ordering::SeqCst);
        let after = recovered(&last[0], &last[1]);
        // What readers see without recovery is what is there.
        assert_eq!(held(&Map::from_bytes(&last[0], &last[1]).unwrap()), after);
        check(scene, &before, &after, &unsettled, &seen);
        operations += 1;
        states += seen.len() as u64;
        unsettled.clear();
        if !seen.is_empty() && random.below(4) == 0 {
            let died_at = &seen[random.below(seen.len() as u64) as usize];
            for (file, bytes) in files.iter().zip(&died_at.bytes) {
                file.write_all_at(bytes, 0).unwrap();
            }
            unsettled = changed(&before, &after);
        }
        child.go_on();
    }
    Some((steps, states, operations))
}

fn bytes_of(maps: &[Mapping; 2]) -> [Vec<u8>; 2] {
    maps.each_ref().map(|map| {
        map.words().iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect()
    })
}

/// Whether the maps are what these bytes say.
fn is_still(maps: &[Mapping; 2], bytes: &[Vec<u8>; 2]) -> bool {
    maps.iter().zip(bytes).all(|(map, bytes)| {
        let words = map.words().iter().zip(bytes.chunks_exact(8));
        words.fold(true, |same, (word, bytes)| {
            same & (word.load(Ordering::Relaxed).to_ne_bytes() == *bytes)
        })
    })
}

/// The sessions that an operation gave something to or took something from.
fn changed(before: &Held, after: &Held) -> BTreeSet<SessionId> {
    let differs = |a: &Held, b: &Held| -> Vec<SessionId> {
        let only = a.iter().filter(|(slot, lease)| b.get(slot) != Some(lease));
        only.map(|(_, tenant)| tenant.lease.session).collect()
    };
    differs(before, after).into_iter().chain(differs(after, before)).collect()
}

/// Every state between holds what was there before and after, and of what changed nothing but that;
/// readers found every session that did not change.
fn check(
    scene: &Scene,
    before: &Held,
    after: &Held,
    unsettled: &BTreeSet<SessionId>,
    seen: &[Seen],
) {
    let changed = changed(before, after);
    for state in seen {
        for (slot, tenant) in before {
            if after.get(slot) == Some(tenant) {
                assert_eq!(
                    state.recovered.get(slot),
                    Some(tenant),
                    "{}: a lease is lost",
                    scene.name
                );
            }
        }
        for (slot, tenant) in &state.recovered {
            // Who is being closed gives back its leases one after another, and with one of them the
            // record that names it.
            let ends = after.values().all(|other| other.lease.session != tenant.lease.session);
            let known = before.get(slot) == Some(tenant)
                || after.get(slot) == Some(tenant)
                || ends && before.get(slot).is_some_and(|before| before.nameless() == *tenant);
            assert!(known, "{}: {tenant:?} is neither of before nor of after", scene.name);
        }
        for (session, found) in &state.found {
            if changed.contains(session) || unsettled.contains(session) {
                continue;
            }
            let leases: Vec<_> = before
                .values()
                .map(|tenant| tenant.lease)
                .filter(|l| l.session == *session)
                .collect();
            let found = found.as_ref().map(|(_, leases)| leases.iter().collect::<Vec<_>>());
            assert_eq!(found, Some(leases), "{}: a reader misses {session}", scene.name);
        }
    }
}
