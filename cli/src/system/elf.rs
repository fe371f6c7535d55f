//! Reads the properties of a program's ELF file that determine whether the hook layer can rewrite
//! the calls of the program.
//!
//! elf(5) describes the format. This module reads only the fields that it needs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Properties of a program's file that determine whether the hook can rewrite the program's calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ElfInfo {
    /// The file contains no path of a dynamic linker.
    pub is_static: bool,
    /// The file is for another processor or word size than this build.
    pub is_foreign: bool,
    /// The linker of Go created the file. Most Go programs do not use the C library for network
    /// calls.
    pub is_go: bool,
}

/// Sizes of the headers in 64-bit files.
const FILE_HEADER_SIZE: usize = 64;
const SEGMENT_HEADER_SIZE: usize = 56;
const SECTION_HEADER_SIZE: usize = 64;
const PT_INTERP: u32 = 3;
const ELFCLASS64: u8 = 2;
/// `e_machine` of this build.
const NATIVE_MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
/// Maximum number of headers to read from one table. Real programs have fewer headers. The limit
/// bounds the time to read a damaged file.
const MAX_HEADERS: u16 = 4096;

/// Reads the file. Returns `None` if it is not an ELF file.
///
/// # Errors
/// The file cannot be opened or read.
pub fn read_elf(path: &Path) -> io::Result<Option<ElfInfo>> {
    let file = File::open(path)?;
    let mut header = [0; FILE_HEADER_SIZE];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    if !header.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    if header[4] != ELFCLASS64 || read_u16(&header, 18) != NATIVE_MACHINE {
        return Ok(Some(ElfInfo { is_foreign: true, ..ElfInfo::default() }));
    }
    let segments =
        read_headers(&file, read_u64(&header, 32), read_u16(&header, 56), SEGMENT_HEADER_SIZE);
    let sections =
        read_headers(&file, read_u64(&header, 40), read_u16(&header, 60), SECTION_HEADER_SIZE);
    Ok(Some(ElfInfo {
        is_static: !segments.iter().any(|segment| read_u32(segment, 0) == PT_INTERP),
        is_foreign: false,
        is_go: has_section(&file, &sections, read_u16(&header, 62), b".go.buildinfo"),
    }))
}

/// Reads a table of headers. Stops at the first header that lies outside the file.
fn read_headers(file: &File, table_offset: u64, count: u16, size: usize) -> Vec<Vec<u8>> {
    let read_header = |index: u16| {
        let mut bytes = vec![0; size];
        let offset = table_offset.checked_add(u64::from(index) * size as u64)?;
        file.read_exact_at(&mut bytes, offset).ok().map(|()| bytes)
    };
    (0..count.min(MAX_HEADERS)).map_while(read_header).collect()
}

/// Returns whether a section has the name `name`. The section with index `names_index` contains
/// the names of all sections.
fn has_section(file: &File, sections: &[Vec<u8>], names_index: u16, name: &[u8]) -> bool {
    let Some(names_section) = sections.get(usize::from(names_index)) else {
        return false;
    };
    let names_offset = read_u64(names_section, 24);
    let mut name_bytes = vec![0; name.len() + 1];
    sections.iter().any(|section| {
        let offset = names_offset.checked_add(read_u32(section, 0).into());
        offset.is_some_and(|offset| file.read_exact_at(&mut name_bytes, offset).is_ok())
            && name_bytes.strip_suffix(&[0]) == Some(name)
    })
}

fn read_u16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_ne_bytes(bytes[offset..offset + 2].try_into().expect("two bytes"))
}

fn read_u32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn read_u64(bytes: &[u8], offset: usize) -> u64 {
    u64::from_ne_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_and_non_elf_files_are_recognized_and_truncated_files_are_readable() {
        let test_program = read_elf(Path::new("/proc/self/exe")).unwrap();
        assert_eq!(test_program, Some(ElfInfo::default()));
        assert_eq!(read_elf(Path::new("/proc/self/comm")).unwrap(), None);
        assert!(read_elf(Path::new("/nowhere")).is_err());
        // Reading a truncated file causes no error, whatever its length.
        let contents = std::fs::read("/proc/self/exe").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("truncated");
        for length in [0, 3, 63, 64, 65, 200, 1000] {
            std::fs::write(&file, &contents[..length]).unwrap();
            read_elf(&file).unwrap();
        }
        let mut foreign_header = contents[..64].to_vec();
        foreign_header[18] ^= 1;
        std::fs::write(&file, &foreign_header).unwrap();
        assert!(read_elf(&file).unwrap().unwrap().is_foreign);
    }
}
