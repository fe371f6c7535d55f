//! Runs a reload one instruction at a time, and opens and closes sessions between instructions.
//!
//! A child reloads the map under PTRACE_SINGLESTEP (ptrace(2)). After each instruction that changed
//! the old map, and after each system call, the test recovers a copy of the files, as if the child
//! had been killed after this instruction. After each system call, the test also reloads a copy.
//! Both must keep exactly the leases. While the child does not hold the writer lock, the test opens
//! and closes sessions.

use std::fs::{self, File};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::Ordering;

use vipool::Tick;
use vipool::map::Map;
use vipool::raw::mapping::Mapping;

use crate::operations::Random;
use crate::process::{
    Child, WaitStatus, enable_tracing, pin_to_current_cpu, shared_words, stop_self,
};
use crate::recovery::{LeaseTable, TestDirectory, all_leases, recover_copy};
use crate::reload::{change_random_session, plan};

const SLOT_COUNT: u32 = 20;
/// The time of all operations.
const NOW: Tick = Tick::from_secs(1);
/// The bytes of the id in a map file and in its sessions file.
const FILE_ID: Range<usize> = 24..32;

// The values that the child writes to the progress word. The test resets the word to 0 after each
// reload.
const IN_RELOAD: u64 = 1;
const FINISHED: u64 = 2;

/// Returns whether a process holds the lock on this file.
fn is_locked(lock_file: &File) -> bool {
    // SAFETY: all-zero bytes are a valid `flock`.
    let mut flock: libc::flock = unsafe { std::mem::zeroed() };
    flock.l_type = libc::F_WRLCK as libc::c_short;
    // SAFETY: `flock` is valid for reads and writes.
    let result = unsafe { libc::fcntl(lock_file.as_raw_fd(), libc::F_OFD_GETLK, &mut flock) };
    assert_eq!(result, 0);
    i32::from(flock.l_type) != libc::F_UNLCK
}

fn copy_words(mapping: &Mapping) -> Vec<u64> {
    mapping.words().iter().map(|word| word.load_relaxed()).collect()
}

/// Checks that the next writer finds exactly these leases if all processes are killed now.
fn check_files(directory: &Path, leases: &LeaseTable) {
    let read_file = |name| fs::read(directory.join(name)).unwrap_or_default();
    let map = read_file("map");
    // A process that is killed between two renames leaves the sessions file under its temporary name.
    let has_id_of_map = |sessions: &Vec<u8>| sessions.get(FILE_ID) == map.get(FILE_ID);
    let sessions = ["sessions", "sessions.new"].map(read_file).into_iter().find(has_id_of_map);
    assert_eq!(recover_copy(&map, &sessions.unwrap()), *leases);
}

/// Copies the files of a map, as if all processes had been killed. Checks that the next reload
/// keeps exactly these leases.
fn check_reload_of_copy(directory: &Path, leases: &LeaseTable, number: u64) {
    let copy = TestDirectory::new("step-reload-copy");
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.0.join(path.file_name().unwrap())).unwrap();
    }
    assert_eq!(all_leases(&Map::open(&copy.0).unwrap()), *leases);
    let map = Map::create_at(&copy.0, &plan(number, SLOT_COUNT), NOW).unwrap();
    assert_eq!(all_leases(&map), *leases);
    check_files(&copy.0, leases);
    for name in ["map.new", "sessions.new"] {
        assert!(!copy.0.join(name).exists(), "{name} remains");
    }
}

#[test]
fn kill_after_any_step_of_a_reload_loses_no_lease_and_doubles_none() {
    // The plans of the reloads. The map stays in place if a number follows itself.
    let numbers: Vec<u64> = [2, 2, 1, 1, 0].repeat(vipool_testing::effort(1, 20));
    let directory = TestDirectory::new("step-reload");
    let mut random = Random::from_environment();
    pin_to_current_cpu();
    let map = Map::create_at(&directory.0, &plan(0, SLOT_COUNT), NOW).unwrap();
    (0..10).for_each(|_| change_random_session(&map, &mut random, 1));
    let lock_file =
        fs::OpenOptions::new().read(true).write(true).open(directory.0.join("lock")).unwrap();
    let progress = &shared_words(1)[0];
    let mut child = Child::start(|| {
        if !enable_tracing() {
            panic!("the system forbids ptrace");
        }
        for number in &numbers {
            let plan = plan(*number, SLOT_COUNT);
            stop_self();
            progress.store(IN_RELOAD, Ordering::SeqCst);
            let map = Map::create_at(&directory.0, &plan, NOW).unwrap();
            progress.store(FINISHED, Ordering::SeqCst);
            drop(map);
        }
    });
    let (mut step_count, mut state_count, mut operation_count) = (0u64, 0u64, 0u64);
    for (reload, number) in numbers.iter().enumerate() {
        match child.wait() {
            WaitStatus::Stopped(libc::SIGSTOP) => {}
            WaitStatus::Exited(1) if reload == 0 => {
                vipool_testing::record_skip(
                    "ptrace",
                    "allow ptrace in this container (CAP_SYS_PTRACE)",
                );
                return;
            }
            status => panic!("the child: {status:?}"),
        }
        let mapping = Mapping::new(&File::open(directory.0.join("map")).unwrap()).unwrap();
        let mut words = copy_words(&mapping);
        let mut leases = all_leases(&map);
        loop {
            let is_at_system_call = child.is_at_system_call();
            child.step();
            match child.wait() {
                WaitStatus::Stopped(libc::SIGTRAP) => {}
                status => panic!("the child: {status:?}"),
            }
            match progress.load(Ordering::SeqCst) {
                0 => continue,
                FINISHED => break,
                _ => step_count += 1,
            }
            let is_unchanged =
                mapping.words().iter().zip(&words).fold(true, |is_equal, (word, old_word)| {
                    is_equal & (word.load_relaxed() == *old_word)
                });
            if is_at_system_call || !is_unchanged {
                state_count += 1;
                check_files(&directory.0, &leases);
                words = copy_words(&mapping);
            }
            if is_at_system_call {
                check_reload_of_copy(&directory.0, &leases, random.below(4));
            }
            if random.below(3_000) == 0 && !is_locked(&lock_file) {
                change_random_session(&map, &mut random, 1);
                operation_count += 1;
                leases = all_leases(&map);
                words = copy_words(&mapping);
            }
        }
        progress.store(0, Ordering::SeqCst);
        assert_eq!(all_leases(&map), leases, "after a reload of plan {number}");
        check_reload_of_copy(&directory.0, &leases, *number);
        child.resume();
    }
    assert_eq!(child.wait(), WaitStatus::Exited(0));
    println!("{step_count} instructions, {state_count} states, {operation_count} operations");
    assert!(state_count > 100 && operation_count > 10);
}
