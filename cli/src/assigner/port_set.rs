//! Sets of ports, and their text form in the kernel's sysctl files.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use anyhow::Context;

/// A set of ports. Its text form is the kernel's notation, for example `4000-4010,5000`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet(pub BTreeSet<u16>);

impl PortSet {
    /// Returns the ports that are in this set or in `other`.
    pub fn union(&self, other: &PortSet) -> PortSet {
        PortSet(self.0.union(&other.0).copied().collect())
    }

    /// Returns the ports of this set that are not in `other`.
    pub fn difference(&self, other: &PortSet) -> PortSet {
        PortSet(self.0.difference(&other.0).copied().collect())
    }
}

impl FromStr for PortSet {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut ports = BTreeSet::new();
        for item in text.trim().split(',').filter(|item| !item.is_empty()) {
            let (first_text, last_text) = item.split_once('-').unwrap_or((item, item));
            let context = || format!("{item:?} is not a port");
            let first_port = first_text.parse().with_context(context)?;
            ports.extend(first_port..=last_text.parse::<u16>().with_context(context)?);
        }
        Ok(PortSet(ports))
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ports = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first_port) = ports.next() {
            let mut last_port = first_port;
            while let Some(next_port) =
                ports.next_if(|next_port| Some(*next_port) == last_port.checked_add(1))
            {
                last_port = next_port;
            }
            write!(f, "{separator}{first_port}")?;
            if last_port > first_port {
                write!(f, "-{last_port}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_round_trip_in_the_kernels_notation() {
        for text in ["", "7", "1-3", "80,4000-4010,65535", "65534-65535"] {
            assert_eq!(text.parse::<PortSet>().unwrap().to_string(), text);
        }
        assert_eq!("1,2,3,5\n".parse::<PortSet>().unwrap().to_string(), "1-3,5");
        for text in ["x", "1-", "65536", "-1"] {
            assert!(text.parse::<PortSet>().is_err(), "{text}");
        }
    }

    #[test]
    fn removing_added_ports_keeps_the_administrators_ports() {
        let existing: PortSet = "80,4000-4002".parse().unwrap();
        let requested: PortSet = "4001-4005".parse().unwrap();
        let added_ports = requested.difference(&existing);
        assert_eq!(added_ports.to_string(), "4003-4005");
        assert_eq!(existing.union(&requested).difference(&added_ports), existing);
    }
}
