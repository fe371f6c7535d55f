//! Reads environment variables, and selects the map directory.

use std::path::PathBuf;

use windows_sys::Win32::System::Environment::GetEnvironmentVariableW;

/// The value of an environment variable, at most `N` ASCII characters.
pub struct ShortValue<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> ShortValue<N> {
    /// Returns the characters of the value.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Reads an environment variable without allocating. Returns `None` if the variable is unset, or if
/// its value is empty, longer than `N` characters, or not ASCII. Also returns `None` if the name has
/// 32 or more characters.
pub fn read<const N: usize>(name: &str) -> Option<ShortValue<N>> {
    let mut wide_name = [0; 32];
    if name.len() >= wide_name.len() {
        return None;
    }
    for (target, source) in wide_name.iter_mut().zip(name.bytes()) {
        *target = u16::from(source);
    }
    let mut units = [0; 256];
    // SAFETY: the name is shorter than its buffer, so it ends in NUL. The system writes no more
    // units than the other buffer holds.
    let length =
        unsafe { GetEnvironmentVariableW(wide_name.as_ptr(), units.as_mut_ptr(), 256) } as usize;
    let units = units.get(..length).filter(|units| !units.is_empty() && units.len() <= N)?;
    let mut value = ShortValue { bytes: [0; N], length };
    for (target, source) in value.bytes.iter_mut().zip(units) {
        *target = u8::try_from(*source).ok().filter(u8::is_ascii)?;
    }
    Some(value)
}

/// Returns the directory of the map: the value of `VIPOOL_MAP`, or the system-wide directory if
/// this variable is unset or empty. Tests and programs that embed vipool set the variable.
pub fn map_directory() -> PathBuf {
    match std::env::var_os("VIPOOL_MAP") {
        Some(directory) if !directory.is_empty() => directory.into(),
        _ => vipool::system::map_directory(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_names_are_unset() {
        let name = "N".repeat(40);
        // SAFETY: on Windows, any thread may change the environment at any time.
        unsafe {
            std::env::set_var(&name[..31], "short");
            std::env::set_var(&name[..32], "long");
        }
        assert_eq!(read::<8>(&name[..31]).unwrap().as_bytes(), b"short");
        assert!(read::<8>(&name[..32]).is_none());
        assert!(read::<8>(&name).is_none());
    }
}
