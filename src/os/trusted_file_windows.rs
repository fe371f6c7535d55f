//! Opens, creates and replaces the files of a map, and rejects planted files. This is the Windows
//! version of `trusted_file.rs`.
//!
//! A trusted file meets these conditions: The file is a regular file and not a link of any kind.
//! Its owner is the system, the administrators or the user of this process. No other user can write
//! to the file.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::fs::{MetadataExt, OpenOptionsExt};
use std::os::windows::io::{AsRawHandle, FromRawHandle};
use std::path::Path;
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{
    CloseHandle, ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_SUCCESS,
    ERROR_USER_MAPPED_FILE, GENERIC_ALL, GENERIC_READ, GENERIC_WRITE, HANDLE, INVALID_HANDLE_VALUE,
    LocalFree,
};
use windows_sys::Win32::Security::Authorization::{
    ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo, SDDL_REVISION_1,
    SE_FILE_OBJECT,
};
use windows_sys::Win32::Security::{
    ACCESS_ALLOWED_ACE, ACL, DACL_SECURITY_INFORMATION, EqualSid, GetAce, GetTokenInformation,
    INHERIT_ONLY_ACE, IsWellKnownSid, OWNER_SECURITY_INFORMATION,
    PROTECTED_DACL_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR, PSID, SECURITY_ATTRIBUTES,
    SetKernelObjectSecurity, TOKEN_QUERY, TOKEN_USER, TokenUser, WinBuiltinAdministratorsSid,
    WinCreatorOwnerRightsSid, WinCreatorOwnerSid, WinLocalSystemSid,
};
use windows_sys::Win32::Storage::FileSystem::{
    CREATE_NEW, CreateDirectoryW, CreateFileW, DELETE, FILE_APPEND_DATA, FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_NORMAL, FILE_ATTRIBUTE_REPARSE_POINT, FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT, FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE,
    FILE_WRITE_DATA, READ_CONTROL, WRITE_DAC, WRITE_OWNER,
};
use windows_sys::Win32::System::SystemServices::{
    ACCESS_ALLOWED_ACE_TYPE, ACCESS_ALLOWED_CALLBACK_ACE_TYPE, ACCESS_DENIED_ACE_TYPE,
    ACCESS_DENIED_CALLBACK_ACE_TYPE,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};
use windows_sys::core::BOOL;

use super::trust_error::TrustError;
use super::users::UserId;

/// The share mode of every open file: other processes may read, write, rename and delete the file,
/// because writers and readers share it. Windows can rename a mapped file, but cannot remove it.
const SHARE_MODE: u32 = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

/// The rights that let a user change a file.
const WRITE_RIGHTS: u32 = FILE_WRITE_DATA
    | FILE_APPEND_DATA
    | WRITE_DAC
    | WRITE_OWNER
    | DELETE
    | GENERIC_WRITE
    | GENERIC_ALL;

/// Opens a trusted file in `directory` for reading, and also for writing if `is_writable` is set.
pub fn open(directory: &Path, name: &str, is_writable: bool) -> Result<File, TrustError> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(is_writable)
        .share_mode(SHARE_MODE)
        .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT)
        .open(directory.join(name))?;
    let attributes = file.metadata()?.file_attributes();
    if attributes & FILE_ATTRIBUTE_REPARSE_POINT != 0 {
        return Err(TrustError::Untrusted("it is a link"));
    }
    if attributes & FILE_ATTRIBUTE_DIRECTORY != 0 {
        return Err(TrustError::Untrusted("it is not a regular file"));
    }
    let user = ProcessUser::of_process()?;
    let security = FileSecurity::read(&file)?;
    if !security.has_trusted_owner(&user) {
        return Err(TrustError::Untrusted("it belongs to another user"));
    }
    if security.has_untrusted_writer(&user) {
        return Err(TrustError::Untrusted("users other than its owner can write to it"));
    }
    Ok(file)
}

/// Same as [`open`], because Windows cancels no thread.
pub use self::open as open_uncancellable;

/// The identity of a file. It has no content on Windows, where a process need not check that its
/// map file is still in place. Windows does not remove a mapped file, and a writer that renames a
/// mapped file marks the map as superseded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity(());

impl FileIdentity {
    /// Returns the identity of an open file.
    pub fn of(_file: &File) -> io::Result<Self> {
        Ok(Self(()))
    }

    /// Returns true, see [`FileIdentity`].
    pub fn is_at(self, _path: &Path) -> io::Result<bool> {
        Ok(true)
    }
}

/// Creates a file of `length` zero bytes, all of them allocated. The system, the administrators and
/// the owner have full access. If `mode` has the bit 0o004, every user can read the file. Removes
/// an existing file at `path` first.
pub fn create(path: &Path, length: u64, mode: u32) -> Result<File, TrustError> {
    let file = recreate(path, mode)?;
    // Write the zeros, because not every file system allocates blocks when the length is set. If
    // the disk were full later, an access to a mapped hole would fault.
    io::copy(&mut io::Read::take(io::repeat(0), length), &mut &file)
        .inspect_err(|_| _ = std::fs::remove_file(path))?;
    Ok(file)
}

/// Creates an empty file as [`create_new`] does. Removes an existing file at `path` first.
pub fn recreate(path: &Path, mode: u32) -> Result<File, TrustError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    create_new(path, mode)
}

/// Creates an empty file. The system, the administrators and the owner have full access. If `mode`
/// has the bit 0o004, every user can read the file. Fails if the path exists.
pub fn create_new(path: &Path, mode: u32) -> Result<File, TrustError> {
    let extra_entries = if mode & 0o004 != 0 { "(A;;FR;;;BU)" } else { "" };
    Ok(create_with_access(path, extra_entries)?)
}

/// Creates an empty file that `user` can read. Only the system, the administrators and the user of
/// this process have full access. Fails if the path exists.
pub fn create_for_user(path: &Path, user: Option<&UserId>) -> Result<File, TrustError> {
    let extra_entries = user.map_or(String::new(), |sid| format!("(A;;FR;;;{sid})"));
    Ok(create_with_access(path, &extra_entries)?)
}

/// Does nothing: the access list of a new file does not depend on the file that it replaces.
pub fn keep_group(_new_file: &File, _old_path: &Path) {}

/// Succeeds: Windows does not limit the size of the files of a process.
pub fn check_size_limit(_length: u64) -> io::Result<()> {
    Ok(())
}

/// Succeeds: [`secure_directory`] secures the directory of a map.
pub fn check_directory(_directory: &Path) -> Result<(), TrustError> {
    Ok(())
}

/// Creates the directory of a map, or secures an existing one: the system, the administrators and
/// the owner get full access, and all users may read. Fails if an existing directory belongs to
/// another user, because every user can create directories in `ProgramData`.
pub fn secure_directory(path: &Path) -> Result<(), TrustError> {
    // Files that other programs create in the directory inherit only these entries, so other users
    // cannot read such files.
    let inherited_entries =
        ["SY", "BA", "OW"].map(|trustee| format!("(A;OICI;FA;;;{trustee})")).concat();
    with_security_attributes(&format!("D:P{inherited_entries}(A;;FRFX;;;BU)"), |security| {
        let wide_path: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
        // SAFETY: the path ends with a 0, and all fields of the structure are set.
        if unsafe { CreateDirectoryW(wide_path.as_ptr(), security) } != 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::AlreadyExists {
            return Err(error.into());
        }
        let directory = std::fs::OpenOptions::new()
            .access_mode(READ_CONTROL | WRITE_DAC)
            .share_mode(SHARE_MODE)
            .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS)
            .open(path)?;
        if directory.metadata()?.file_attributes() & FILE_ATTRIBUTE_REPARSE_POINT != 0 {
            return Err(TrustError::Untrusted("it is a link"));
        }
        if !FileSecurity::read(&directory)?.has_trusted_owner(&ProcessUser::of_process()?) {
            return Err(TrustError::Untrusted("it belongs to another user"));
        }
        let security_information = DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION;
        // SAFETY: the handle is open, and the structure points to a valid descriptor.
        let succeeded = unsafe {
            SetKernelObjectSecurity(
                directory.as_raw_handle(),
                security_information,
                security.lpSecurityDescriptor,
            )
        };
        if succeeded == 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
    })
}

/// Calls `call` with the security descriptor that `text` defines in the security descriptor
/// definition language (SDDL).
fn with_security_attributes<T, E: From<io::Error>>(
    text: &str,
    call: impl FnOnce(&SECURITY_ATTRIBUTES) -> Result<T, E>,
) -> Result<T, E> {
    let text: Vec<u16> = text.encode_utf16().chain([0]).collect();
    let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
    // SAFETY: `text` ends with a 0, and the system allocates the descriptor.
    let succeeded = unsafe {
        ConvertStringSecurityDescriptorToSecurityDescriptorW(
            text.as_ptr(),
            SDDL_REVISION_1,
            &mut descriptor,
            null_mut(),
        )
    };
    if succeeded == 0 {
        return Err(io::Error::last_os_error().into());
    }
    let result = call(&SECURITY_ATTRIBUTES {
        nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
        lpSecurityDescriptor: descriptor,
        bInheritHandle: 0,
    });
    // SAFETY: the system allocated the descriptor above. It is freed once, after its last use.
    unsafe { LocalFree(descriptor) };
    result
}

/// Creates an empty file. The system, the administrators and the owner have full access.
/// `extra_entries` contains further entries of the access list, in SDDL.
fn create_with_access(path: &Path, extra_entries: &str) -> io::Result<File> {
    with_security_attributes(
        &format!("D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;OW){extra_entries}"),
        |security| {
            let wide_path: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
            // SAFETY: the path ends with a 0, and all fields of the structure are set. A valid
            // handle has no other owner, so the file can own it.
            unsafe {
                let handle = CreateFileW(
                    wide_path.as_ptr(),
                    GENERIC_READ | GENERIC_WRITE,
                    SHARE_MODE,
                    security,
                    CREATE_NEW,
                    FILE_ATTRIBUTE_NORMAL,
                    null_mut(),
                );
                if handle == INVALID_HANDLE_VALUE {
                    return Err(io::Error::last_os_error());
                }
                Ok(File::from_raw_handle(handle))
            }
        },
    )
}

/// Renames `from` to `to` and replaces an existing file.
///
/// Windows cannot replace a file that a process has mapped, but it can rename that file. If the old
/// file is in use, this function therefore first renames it to `to` with the suffix `.oldN`. For a
/// moment, no file has the name `to`. A later call removes the renamed file if no process has the
/// file mapped.
pub fn replace(from: &Path, to: &Path) -> io::Result<()> {
    remove_renamed(to);
    let Err(error) = std::fs::rename(from, to) else { return Ok(()) };
    let in_use_errors = [ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_USER_MAPPED_FILE];
    if !error.raw_os_error().is_some_and(|code| in_use_errors.contains(&(code as u32))) {
        return Err(error);
    }
    for number in 0..1000 {
        let mut renamed_path = to.as_os_str().to_owned();
        renamed_path.push(format!(".old{number}"));
        let renamed_path = Path::new(&renamed_path);
        if !renamed_path.exists() {
            std::fs::rename(to, renamed_path)?;
            return std::fs::rename(from, to);
        }
    }
    Err(error)
}

/// Removes the files that [`replace`] renamed when it replaced `path`, except those that a process
/// still maps. Ignores errors.
fn remove_renamed(path: &Path) {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return };
    let name_prefix = format!("{}.old", name.display());
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(name_prefix.as_bytes()) {
            _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Returns whether the holder of the security identifier `sid` may own or change a map. The
/// identifier must be `user_sid`, the identifier of the system or of the administrators, or one of
/// the two well-known identifiers that represent the owner of a file. Because these two can
/// represent any owner, the caller also checks the owner.
///
/// # Safety
/// Both pointers refer to valid security identifiers.
unsafe fn is_trusted(sid: PSID, user_sid: PSID) -> bool {
    let trusted_kinds = [
        WinLocalSystemSid,
        WinBuiltinAdministratorsSid,
        WinCreatorOwnerSid,
        WinCreatorOwnerRightsSid,
    ];
    // SAFETY: the caller passes valid identifiers.
    unsafe {
        EqualSid(sid, user_sid) != 0
            || trusted_kinds.iter().any(|kind| IsWellKnownSid(sid, *kind) != 0)
    }
}

/// The user of this process.
struct ProcessUser {
    /// A TOKEN_USER, followed by the SID that it points to. The box keeps the address of the SID
    /// constant. The `u64` elements give both structures their alignment.
    buffer: Box<[u64; 16]>,
}

impl ProcessUser {
    fn of_process() -> io::Result<Self> {
        let mut user = Self { buffer: Box::new([0; 16]) };
        // SAFETY: the token is closed once; the system writes no more than the buffer holds.
        unsafe {
            let mut token: HANDLE = null_mut();
            if OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &mut token) == 0 {
                return Err(io::Error::last_os_error());
            }
            let buffer: *mut c_void = user.buffer.as_mut_ptr().cast();
            let size = size_of_val(&*user.buffer) as u32;
            let mut written_size = 0;
            let succeeded: BOOL =
                GetTokenInformation(token, TokenUser, buffer, size, &mut written_size);
            let error = io::Error::last_os_error();
            CloseHandle(token);
            if succeeded == 0 {
                return Err(error);
            }
        }
        Ok(user)
    }

    fn sid(&self) -> PSID {
        let user: *const TOKEN_USER = self.buffer.as_ptr().cast();
        // SAFETY: the system wrote the structure, which has not moved since.
        unsafe { (*user).User.Sid }
    }
}

/// The owner and the access list of a file.
struct FileSecurity {
    descriptor: PSECURITY_DESCRIPTOR,
    owner: PSID,
    access_list: *const ACL,
}

impl FileSecurity {
    fn read(file: &File) -> Result<Self, TrustError> {
        let mut security = Self { descriptor: null_mut(), owner: null_mut(), access_list: null() };
        let mut access_list: *mut ACL = null_mut();
        // SAFETY: the handle is open. The system allocates the descriptor, which contains the owner
        // and the list. `drop` frees the descriptor.
        let error = unsafe {
            GetSecurityInfo(
                file.as_raw_handle(),
                SE_FILE_OBJECT,
                OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION,
                &mut security.owner,
                null_mut(),
                &mut access_list,
                null_mut(),
                &mut security.descriptor,
            )
        };
        if error != ERROR_SUCCESS {
            return Err(io::Error::from_raw_os_error(error as i32).into());
        }
        security.access_list = access_list;
        if security.owner.is_null() || access_list.is_null() {
            // Without an access list, every user has full access.
            return Err(TrustError::Untrusted("every user can write to it"));
        }
        Ok(security)
    }

    fn has_trusted_owner(&self, user: &ProcessUser) -> bool {
        // SAFETY: the descriptor contains the owner, and `user` contains the other identifier.
        unsafe { is_trusted(self.owner, user.sid()) }
    }

    fn has_untrusted_writer(&self, user: &ProcessUser) -> bool {
        // SAFETY: the list is valid as long as the descriptor, which `self` owns.
        unsafe { has_untrusted_writer(self.access_list, user) }
    }
}

/// Returns whether an access list allows an untrusted user to change the file.
///
/// Entries of an unknown kind count as entries that allow access to an untrusted user. Entries for
/// objects are of such a kind, because vipool never writes them.
///
/// # Safety
/// `access_list` points to a valid access list.
unsafe fn has_untrusted_writer(access_list: *const ACL, user: &ProcessUser) -> bool {
    // SAFETY: the caller passes a valid list.
    let count = unsafe { (*access_list).AceCount };
    (0..u32::from(count)).any(|index| {
        // SAFETY: the index is below the count. Every entry begins with a header and an access
        // mask. In an entry that allows access, with or without a condition, the SID itself
        // follows.
        unsafe {
            let mut entry: *mut c_void = null_mut();
            if GetAce(access_list, index, &mut entry) == 0 {
                return true;
            }
            let entry: *const ACCESS_ALLOWED_ACE = entry.cast();
            let header = (*entry).Header;
            if u32::from(header.AceFlags) & INHERIT_ONLY_ACE != 0
                || (*entry).Mask & WRITE_RIGHTS == 0
            {
                return false;
            }
            match u32::from(header.AceType) {
                ACCESS_ALLOWED_ACE_TYPE | ACCESS_ALLOWED_CALLBACK_ACE_TYPE => {
                    let sid = (&raw const (*entry).SidStart).cast_mut().cast();
                    !is_trusted(sid, user.sid())
                }
                ACCESS_DENIED_ACE_TYPE | ACCESS_DENIED_CALLBACK_ACE_TYPE => false,
                _ => true,
            }
        }
    })
}

impl Drop for FileSecurity {
    fn drop(&mut self) {
        // SAFETY: the descriptor is NULL, or GetSecurityInfo allocated it. It is freed once.
        unsafe { LocalFree(self.descriptor) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windows_sys::Win32::Security::{
        ACL_REVISION, AddAccessAllowedAce, CreateWellKnownSid, InitializeAcl, WinBuiltinUsersSid,
    };
    use windows_sys::Win32::System::SystemServices::ACCESS_ALLOWED_OBJECT_ACE_TYPE;

    /// Returns whether a list with one entry of this type, which names the group Users, has an
    /// untrusted writer.
    fn users_can_write(ace_type: u32, mask: u32) -> bool {
        let user = ProcessUser::of_process().unwrap();
        let (mut list, mut sid) = ([0u32; 64], [0u32; 17]);
        let list_pointer: *mut ACL = list.as_mut_ptr().cast();
        let mut sid_size = size_of_val(&sid) as u32;
        // SAFETY: the buffers are aligned and large enough. The system reports an error otherwise.
        unsafe {
            let sid = sid.as_mut_ptr().cast();
            assert_ne!(CreateWellKnownSid(WinBuiltinUsersSid, null_mut(), sid, &mut sid_size), 0);
            assert_ne!(InitializeAcl(list_pointer, size_of_val(&list) as u32, ACL_REVISION), 0);
            assert_ne!(AddAccessAllowedAce(list_pointer, ACL_REVISION, mask, sid), 0);
            let mut entry = null_mut();
            assert_ne!(GetAce(list_pointer, 0, &mut entry), 0);
            (*entry.cast::<ACCESS_ALLOWED_ACE>()).Header.AceType = ace_type as u8;
            has_untrusted_writer(list_pointer, &user)
        }
    }

    #[test]
    fn every_kind_of_entry_that_allows_writing_counts() {
        for ace_type in [
            ACCESS_ALLOWED_ACE_TYPE,
            ACCESS_ALLOWED_CALLBACK_ACE_TYPE,
            ACCESS_ALLOWED_OBJECT_ACE_TYPE,
        ] {
            assert!(users_can_write(ace_type, FILE_WRITE_DATA), "type {ace_type}");
            assert!(!users_can_write(ace_type, READ_CONTROL), "type {ace_type}");
        }
        assert!(!users_can_write(ACCESS_DENIED_ACE_TYPE, FILE_WRITE_DATA));
    }

    #[test]
    fn directory_is_created_or_secured() {
        let path = std::env::temp_dir().join(format!("vipool-trust-{}", std::process::id()));
        // The directory inherits its rights, because this call passes no security descriptor.
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("farm.toml"), "").unwrap();
        secure_directory(&path).unwrap();
        secure_directory(&path).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        secure_directory(&path).unwrap();
        create(&path.join("map"), 8, 0o644).unwrap();
        assert!(open(&path, "map", false).is_ok());
        std::fs::remove_dir_all(&path).unwrap();
        assert!(matches!(
            secure_directory(&path.join("no").join("parent")),
            Err(TrustError::Io(_))
        ));
    }
}
