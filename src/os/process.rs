//! Identifies a process by its process id, start time and namespace.

use std::io;
use std::os::unix::fs::MetadataExt;

use crate::leader::Leader;

/// Returns the identity of the process that has this process id now. The start time distinguishes
/// the process from a later process with the same id (proc_pid_stat(5), pid_namespaces(7)).
///
/// The namespace is that of the caller, because the process has this id in that namespace. An error
/// of kind `NotFound` means that no such process exists.
#[cfg(target_os = "linux")]
pub fn identify(pid: u32) -> io::Result<Leader> {
    // The second field is the name in parentheses. The name can contain any bytes, so the search for
    // its end begins at the last byte. The start time is field 22, the 20th field after the name.
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    let start_time = stat
        .rsplit(|byte| *byte == b')')
        .next()
        .and_then(|fields| std::str::from_utf8(fields).ok()?.split(' ').nth(20)?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has an unexpected format")))?;
    let pid_namespace = std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino());
    Ok(Leader { pid, start_time, pid_namespace })
}

/// Returns whether a process has exited. A zombie does not count as exited. `pid_namespace` is the
/// namespace of the calling process. Returns false if the process was identified in another
/// namespace, because its process id has another meaning here.
#[cfg(target_os = "linux")]
pub fn has_exited(process: &Leader, pid_namespace: u64) -> bool {
    if process.pid_namespace != 0 && process.pid_namespace != pid_namespace {
        return false;
    }
    match identify(process.pid) {
        Ok(current) => current.start_time != process.start_time,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn process_is_identified_until_it_exits() {
        let this_process = identify(std::process::id()).unwrap();
        assert_eq!(identify(this_process.pid).unwrap(), this_process);
        assert_ne!(this_process.pid_namespace, 0);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let child_identity = identify(child.id()).unwrap();
        assert!(child_identity.start_time >= this_process.start_time);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(identify(child.id()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn process_name_can_contain_any_bytes() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (end_sender, end_receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            std::fs::write("/proc/thread-self/comm", b"\xff) 1 (\xfe").unwrap();
            let thread_directory = std::fs::read_link("/proc/thread-self").unwrap();
            let thread_id = thread_directory.file_name().unwrap().to_str().unwrap().parse();
            sender.send(thread_id.unwrap()).unwrap();
            // Wait until the sender is dropped.
            let _ = end_receiver.recv();
        });
        let thread_id = receiver.recv().unwrap();
        assert!(identify(thread_id).unwrap().start_time > 1);
        drop(end_sender);
        thread.join().unwrap();
    }

    #[test]
    fn exit_of_a_process_in_a_nested_pid_namespace_is_detected() {
        if !vipool_testing::have(&["root", "unshare"]) {
            return;
        }
        let mut unshare = std::process::Command::new("unshare")
            .args(["--pid", "--fork", "sleep", "60"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let children_file = format!("/proc/{0}/task/{0}/children", unshare.id());
        let child_id = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            std::fs::read_to_string(&children_file).ok()?.trim().parse().ok()
        });
        let leader = identify(child_id.unwrap()).unwrap();
        let own_namespace = identify(std::process::id()).unwrap().pid_namespace;
        assert!(!has_exited(&leader, own_namespace));
        let pid = leader.pid.to_string();
        let status = std::process::Command::new("kill").args(["-KILL", &pid]).status();
        assert!(status.unwrap().success());
        unshare.wait().unwrap();
        assert!(has_exited(&leader, own_namespace));
    }
}
