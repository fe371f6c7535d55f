//! Reserves ports in `net.ipv4.ip_local_reserved_ports`. The kernel does not choose a reserved port
//! for a program that binds port 0.
//!
//! Without the reservation, a program that binds port 0 on 127.0.0.1 could get a port of farm.toml
//! that another program needs. So `up` reserves the ports that farm.toml lists in `fixed-ports` and
//! `own-ports`. `down` removes only the reservations that `up` added, and keeps the reservations of
//! the administrator.

use std::fs;

use anyhow::Context;

use super::port_set::PortSet;
use super::state::{AssignedResources, AssignerState};

const SYSCTL_FILE: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Returns whether [`set_reserved_ports`] would change the kernel's list.
///
/// # Errors
/// The kernel's file cannot be read.
pub fn would_change_reserved_ports(state: &AssignerState, ports: &PortSet) -> anyhow::Result<bool> {
    let reserved_ports = read_sysctl()?;
    let administrator_ports = reserved_ports.difference(&state.assigned.ports);
    Ok(administrator_ports.union(ports) != reserved_ports)
}

/// Reserves `ports`. Removes the reservations of the assigner for all other ports.
///
/// # Errors
/// The kernel's file or the state file cannot be read or written.
pub fn set_reserved_ports(state: &mut AssignerState, ports: &PortSet) -> anyhow::Result<()> {
    let administrator_ports = read_sysctl()?.difference(&state.assigned.ports);
    let added_ports = ports.difference(&administrator_ports);
    // Write the state file first. If this process is killed before it reserves the ports, the file
    // lists ports that are not reserved. Such an entry is harmless.
    let intended_ports = added_ports.union(&state.assigned.ports);
    if intended_ports != state.assigned.ports {
        state.write(AssignedResources { ports: intended_ports, ..state.assigned.clone() })?;
    }
    write_sysctl(&administrator_ports.union(&added_ports))?;
    state.write_subset(AssignedResources { ports: added_ports, ..state.assigned.clone() })
}

/// Reads the ports that are reserved in this network namespace.
fn read_sysctl() -> anyhow::Result<PortSet> {
    fs::read_to_string(SYSCTL_FILE)
        .with_context(|| format!("cannot read {SYSCTL_FILE}"))?
        .parse()
        .with_context(|| SYSCTL_FILE)
}

/// Writes the reserved ports, unless the kernel's list is already equal.
fn write_sysctl(ports: &PortSet) -> anyhow::Result<()> {
    if read_sysctl()? == *ports {
        return Ok(());
    }
    fs::write(SYSCTL_FILE, format!("{ports}\n"))
        .with_context(|| format!("cannot write {SYSCTL_FILE}"))
}
