//! Runs a writer one instruction at a time, and checks the map after each change.
//!
//! A child runs random operations under PTRACE_SINGLESTEP (ptrace(2)). After each instruction that
//! changed the map, the test recovers a copy of the map, as if the child had been killed after this
//! instruction. The test also reads the original map. Sometimes the test resets the map to an
//! intermediate state. The next operation of the child recovers the map, so the test also steps
//! through the recovery.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use vipool::Tick;
use vipool::map::{Leases, Map, OpenOptions, Reader};
use vipool::raw::mapping::Mapping;
use vipool::session::{Handle, SessionId};

use crate::operations::{Random, Scenario, run_random_operation, scenarios};
use crate::process::{
    Child, WaitStatus, enable_tracing, pin_to_current_cpu, shared_words, stop_self,
};
use crate::recovery::{LeaseTable, TestDirectory, all_leases, recover_copy, session_id};

// The values that the child writes to the progress word. The test resets the word to 0 after each
// operation.
const IN_OPERATION: u64 = 1;
const FINISHED: u64 = 2;

/// The map after an instruction that changed it.
struct MapState {
    /// The contents of the map file and of the sessions file.
    bytes: [Vec<u8>; 2],
    /// The leases after recovery.
    recovered_leases: LeaseTable,
    /// The result of a reader's lookup of each session that was open before the operation.
    lookup_results: Vec<(SessionId, Option<(Handle, Leases)>)>,
}

#[test]
fn kill_after_any_instruction_loses_no_lease_and_doubles_none() {
    let instruction_count = vipool_testing::effort(448_000, 20_000_000);
    pin_to_current_cpu();
    let (mut total_step_count, mut total_state_count, mut total_operation_count) = (0, 0, 0);
    let mut seeds = Random::from_environment();
    for scenario in scenarios() {
        let min_step_count = instruction_count * scenario.quarters / 4 + 1;
        let counts = step_through_operations(&scenario, min_step_count, &mut seeds);
        let Some((step_count, state_count, operation_count)) = counts else { return };
        println!(
            "{}: {step_count} instructions, {state_count} states, {operation_count} operations",
            scenario.name
        );
        total_step_count += step_count;
        total_state_count += state_count;
        total_operation_count += operation_count;
    }
    println!(
        "{total_step_count} instructions, {total_state_count} states, {total_operation_count} operations"
    );
    assert!(total_step_count >= instruction_count && total_state_count > 100);
}

/// Steps through at least `min_step_count` instructions of operations. Returns the numbers of
/// instructions, states and operations. Returns `None` if the system forbids tracing.
fn step_through_operations(
    scenario: &Scenario,
    min_step_count: u64,
    seeds: &mut Random,
) -> Option<(u64, u64, u64)> {
    let directory = TestDirectory::new("step");
    let map = Map::create(&directory.0, &scenario.plan).unwrap();
    for number in &scenario.sessions[..scenario.initial_open_count] {
        map.open_session(session_id(*number), &OpenOptions::default(), Tick::from_secs(1)).unwrap();
    }
    let reader = Reader::attach(&directory.0).unwrap();
    let files = ["map", "sessions"].map(|name| {
        let path = directory.0.join(name);
        std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
    });
    let mappings = files.each_ref().map(|file| Mapping::new(file).unwrap());
    let progress = &shared_words(1)[0];
    let seed = seeds.below(u32::MAX.into());
    let mut child = Child::start(|| {
        if !enable_tracing() {
            panic!("the system forbids ptrace");
        }
        let map = Map::open(&directory.0).unwrap();
        let mut random = Random::new(seed);
        let mut now = 2;
        loop {
            // Some time steps are so long that addresses cool down and that sessions with dead
            // leaders are closed.
            now += [0, 0, 1, 1, 1, 2, 3, 12][random.below(8) as usize];
            let begin = || {
                stop_self();
                progress.store(IN_OPERATION, Ordering::SeqCst);
                ControlFlow::Continue(())
            };
            run_random_operation(&map, scenario, &mut random, now, begin);
            progress.store(FINISHED, Ordering::SeqCst);
        }
    });
    let mut random = Random::new(seed + 1);
    // The sessions that an interrupted operation changed. An operation is interrupted if the test
    // resets the map to a state that existed during this operation. During the next operation, a
    // reader need not find these sessions.
    let mut interrupted_sessions = BTreeSet::new();
    let (mut step_count, mut state_count, mut operation_count) = (0, 0, 0);
    while step_count < min_step_count {
        match child.wait() {
            WaitStatus::Stopped(libc::SIGSTOP) => {}
            WaitStatus::Exited(1) if operation_count == 0 => {
                vipool_testing::record_skip(
                    "ptrace",
                    "allow ptrace in this container (CAP_SYS_PTRACE)",
                );
                return None;
            }
            status => panic!("the child: {status:?}"),
        }
        let mut last_bytes = copy_bytes(&mappings);
        let leases_before = recover_copy(&last_bytes[0], &last_bytes[1]);
        let sessions: BTreeSet<SessionId> =
            leases_before.values().map(|record| record.lease.session).collect();
        let mut states = Vec::new();
        loop {
            child.step();
            match child.wait() {
                WaitStatus::Stopped(libc::SIGTRAP) => {}
                status => panic!("the child: {status:?}"),
            }
            let current_progress = progress.load(Ordering::SeqCst);
            step_count += u64::from(current_progress == IN_OPERATION);
            if current_progress != 0 && !is_unchanged(&mappings, &last_bytes) {
                last_bytes = copy_bytes(&mappings);
                states.push(MapState {
                    recovered_leases: recover_copy(&last_bytes[0], &last_bytes[1]),
                    lookup_results: sessions
                        .iter()
                        .map(|session| (*session, reader.find(*session)))
                        .collect(),
                    bytes: last_bytes.clone(),
                });
            }
            if current_progress == FINISHED {
                break;
            }
        }
        progress.store(0, Ordering::SeqCst);
        let leases_after = recover_copy(&last_bytes[0], &last_bytes[1]);
        // After a complete operation, a recovery changes no lease.
        assert_eq!(
            all_leases(&Map::from_bytes(&last_bytes[0], &last_bytes[1]).unwrap()),
            leases_after
        );
        check_states(scenario, &leases_before, &leases_after, &interrupted_sessions, &states);
        operation_count += 1;
        state_count += states.len() as u64;
        if states.is_empty() || random.below(4) != 0 {
            interrupted_sessions.clear();
        } else {
            let crash_state = &states[random.below(states.len() as u64) as usize];
            for (file, bytes) in files.iter().zip(&crash_state.bytes) {
                file.write_all_at(bytes, 0).unwrap();
            }
            // If this operation followed an interrupted one, the state can be from its recovery.
            interrupted_sessions.extend(changed_sessions(&leases_before, &leases_after));
        }
        child.resume();
    }
    Some((step_count, state_count, operation_count))
}

/// Returns the contents of the map file and of the sessions file.
fn copy_bytes(mappings: &[Mapping; 2]) -> [Vec<u8>; 2] {
    mappings.each_ref().map(|mapping| {
        mapping.words().iter().flat_map(|word| word.load_relaxed().to_ne_bytes()).collect()
    })
}

/// Returns whether the mappings contain these bytes.
fn is_unchanged(mappings: &[Mapping; 2], bytes: &[Vec<u8>; 2]) -> bool {
    mappings.iter().zip(bytes).all(|(mapping, file_bytes)| {
        let words = mapping.words().iter().zip(file_bytes.chunks_exact(8));
        words.fold(true, |is_equal, (word, word_bytes)| {
            is_equal & (word.load_relaxed().to_ne_bytes() == *word_bytes)
        })
    })
}

/// Returns the sessions whose leases an operation changed.
fn changed_sessions(leases_before: &LeaseTable, leases_after: &LeaseTable) -> BTreeSet<SessionId> {
    let difference = |leases: &LeaseTable, other_leases: &LeaseTable| -> Vec<SessionId> {
        let changed_leases =
            leases.iter().filter(|(slot, record)| other_leases.get(slot) != Some(record));
        changed_leases.map(|(_, record)| record.lease.session).collect()
    };
    let ended_or_changed = difference(leases_before, leases_after);
    let new_or_changed = difference(leases_after, leases_before);
    ended_or_changed.into_iter().chain(new_or_changed).collect()
}

/// Checks the states of the map during an operation.
///
/// A lease that exists both before and after the operation must exist in every state. Every lease
/// in a state must exist before or after the operation. Readers must find every session, except the
/// sessions that the operation changes and `interrupted_sessions`.
fn check_states(
    scenario: &Scenario,
    leases_before: &LeaseTable,
    leases_after: &LeaseTable,
    interrupted_sessions: &BTreeSet<SessionId>,
    states: &[MapState],
) {
    let sessions_of_operation = changed_sessions(leases_before, leases_after);
    for state in states {
        for (slot, record) in leases_before {
            if leases_after.get(slot) == Some(record) {
                assert_eq!(
                    state.recovered_leases.get(slot),
                    Some(record),
                    "{}: a lease is lost",
                    scenario.name
                );
            }
        }
        for (slot, record) in &state.recovered_leases {
            let is_expected =
                leases_before.get(slot) == Some(record) || leases_after.get(slot) == Some(record);
            assert!(
                is_expected,
                "{}: {record:?} exists neither before nor after the operation",
                scenario.name
            );
        }
        for (session, lookup_result) in &state.lookup_results {
            if sessions_of_operation.contains(session) || interrupted_sessions.contains(session) {
                continue;
            }
            let expected_leases: Vec<_> = leases_before
                .values()
                .map(|record| record.lease)
                .filter(|lease| lease.session == *session)
                .collect();
            let found_leases =
                lookup_result.as_ref().map(|(_, leases)| leases.iter().collect::<Vec<_>>());
            assert_eq!(
                found_leases,
                Some(expected_leases),
                "{}: a reader misses {session}",
                scenario.name
            );
        }
    }
}
