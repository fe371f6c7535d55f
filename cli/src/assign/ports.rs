//! Ports that the kernel shall not pick for others: `net.ipv4.ip_local_reserved_ports`.
//!
//! A fixed port inside the ephemeral range can be taken, on 127.0.0.1, by any program that asks
//! for "some port"; `up` reserves those of farm.toml and `down` gives back those it added, so
//! that what an administrator reserved by hand before or since stays.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::str::FromStr;

use anyhow::Context;

const SYSCTL: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// A set of ports, written as the kernel does: `4000-4010,5000`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub BTreeSet<u16>);

impl Ports {
    /// Those of the other set too.
    pub fn with(&self, other: &Ports) -> Ports {
        Ports(self.0.union(&other.0).copied().collect())
    }

    /// These but for those of the other set.
    pub fn without(&self, other: &Ports) -> Ports {
        Ports(self.0.difference(&other.0).copied().collect())
    }
}

/// The ports that are reserved now, in this network namespace.
///
/// # Errors
/// The kernel's file cannot be read.
pub fn reserved() -> anyhow::Result<Ports> {
    fs::read_to_string(SYSCTL)
        .with_context(|| format!("cannot read {SYSCTL}"))?
        .parse()
        .with_context(|| SYSCTL)
}

/// Reserves these ports and no others.
///
/// # Errors
/// The kernel's file cannot be written.
pub fn reserve(ports: &Ports) -> anyhow::Result<()> {
    if reserved()? == *ports {
        return Ok(());
    }
    fs::write(SYSCTL, format!("{ports}\n")).with_context(|| format!("cannot write {SYSCTL}"))
}

impl FromStr for Ports {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut ports = BTreeSet::new();
        for item in text.trim().split(',').filter(|item| !item.is_empty()) {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let odd = || format!("{item:?} is not a port");
            ports.extend(first.parse().with_context(odd)?..=last.parse::<u16>().with_context(odd)?);
        }
        Ok(Ports(ports))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if(|next| Some(*next) == last.checked_add(1)) {
                last = next;
            }
            write!(f, "{comma}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_written_as_the_kernel_does() {
        for text in ["", "7", "1-3", "80,4000-4010,65535", "65534-65535"] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
        }
        assert_eq!("1,2,3,5\n".parse::<Ports>().unwrap().to_string(), "1-3,5");
        for text in ["x", "1-", "65536", "-1"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }

    #[test]
    fn giving_back_leaves_what_others_reserved() {
        let before: Ports = "80,4000-4002".parse().unwrap();
        let wanted: Ports = "4001-4005".parse().unwrap();
        let added = wanted.without(&before);
        assert_eq!(added.to_string(), "4003-4005");
        assert_eq!(before.with(&wanted).without(&added), before);
    }
}
