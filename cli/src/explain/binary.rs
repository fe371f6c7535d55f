//! What the file of a program says of itself: whether the dynamic linker will load a hook into it.
//!
//! The parts of an ELF file that are read are those of elf(5); nothing else of it is looked at.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A program's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binary {
    /// It names no dynamic linker.
    pub is_static: bool,
    /// It is for another kind of processor, or another word size, than this command.
    pub is_foreign: bool,
    /// It was linked by Go's tools, whose network calls do not go through the C library.
    pub is_go: bool,
}

/// Sizes of the headers of 64-bit files, and where in them is what.
const HEADER: usize = 64;
const SEGMENT: usize = 56;
const SECTION: usize = 64;
const PT_INTERP: u32 = 3;
const ELFCLASS64: u8 = 2;
/// `e_machine` of this build.
const MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
/// More than any linker writes; a damaged file is not to take long.
const MOST_HEADERS: u16 = 4096;

/// Looks into the file; `None` if it is no ELF file.
pub fn look_into(path: &Path) -> io::Result<Option<Binary>> {
    let file = File::open(path)?;
    let mut header = [0; HEADER];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    if !header.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    if header[4] != ELFCLASS64 || number16(&header, 18) != MACHINE {
        return Ok(Some(Binary { is_foreign: true, ..Binary::default() }));
    }
    let segments = table(&file, number64(&header, 32), number16(&header, 56), SEGMENT);
    let sections = table(&file, number64(&header, 40), number16(&header, 60), SECTION);
    Ok(Some(Binary {
        is_static: !segments.iter().any(|segment| number32(segment, 0) == PT_INTERP),
        is_foreign: false,
        is_go: has_section(&file, &sections, number16(&header, 62), b".go.buildinfo"),
    }))
}

/// The headers of a table, as many as there are.
fn table(file: &File, at: u64, count: u16, size: usize) -> Vec<Vec<u8>> {
    let read = |place: u16| {
        let mut bytes = vec![0; size];
        let at = at.checked_add(u64::from(place) * size as u64)?;
        file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    };
    (0..count.min(MOST_HEADERS)).map_while(read).collect()
}

/// Whether one of the sections has this name; the names are in the one at `names`.
fn has_section(file: &File, sections: &[Vec<u8>], names: u16, wanted: &[u8]) -> bool {
    let Some(names) = sections.get(usize::from(names)).map(|section| number64(section, 24)) else {
        return false;
    };
    let mut name = vec![0; wanted.len() + 1];
    sections.iter().any(|section| {
        let at = names.checked_add(number32(section, 0).into());
        at.is_some_and(|at| file.read_exact_at(&mut name, at).is_ok())
            && name.strip_suffix(&[0]) == Some(wanted)
    })
}

fn number16(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_what_they_are() {
        let own = look_into(Path::new("/proc/self/exe")).unwrap();
        assert_eq!(own, Some(Binary::default()));
        assert_eq!(look_into(Path::new("/proc/self/comm")).unwrap(), None);
        assert!(look_into(Path::new("/nowhere")).is_err());
        // Cut anywhere, it is still looked at to the end.
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cut");
        for length in [0, 3, 63, 64, 65, 200, 1000] {
            std::fs::write(&file, &whole[..length]).unwrap();
            look_into(&file).unwrap();
        }
        let mut foreign = whole[..64].to_vec();
        foreign[18] ^= 1;
        std::fs::write(&file, &foreign).unwrap();
        assert!(look_into(&file).unwrap().unwrap().is_foreign);
    }
}
