//! Which names, targets and sizes are taken at all.

use pellicle_store::FileKind;

use crate::{
    acl::{ACCESS, DEFAULT},
    error::Error,
};

/// Longest file name, bytes (`NAME_MAX`).
pub(crate) const NAME_MAX: usize = 255;
/// Longest target of a symbolic link, bytes (`PATH_MAX` less the NUL).
pub(crate) const TARGET_MAX: usize = 4095;
/// Longest value of an extended attribute, bytes (`XATTR_SIZE_MAX`).
pub(crate) const XATTR_SIZE_MAX: usize = 65_536;
/// Longest list of extended attribute names, bytes (`XATTR_LIST_MAX`).
pub(crate) const XATTR_LIST_MAX: usize = 65_536;
/// Largest size of a file, bytes (`off_t`).
pub(crate) const SIZE_MAX: u64 = i64::MAX as u64;

/// A name that a directory may hold.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.len() > NAME_MAX {
        return Err(Error::NameTooLong);
    }
    let odd = name.is_empty() || name == b"." || name == b"..";
    if odd || name.iter().any(|b| matches!(b, b'/' | 0)) {
        return Err(Error::Invalid);
    }
    Ok(())
}

/// The target of a symbolic link.
pub(crate) fn check_target(target: &[u8]) -> Result<(), Error> {
    if target.len() > TARGET_MAX {
        return Err(Error::NameTooLong);
    }
    if target.is_empty() {
        return Err(Error::NotFound);
    }
    if target.contains(&0) {
        return Err(Error::Invalid);
    }
    Ok(())
}

/// The full name of an extended attribute; the kernel answers ERANGE to a bad length.
pub(crate) fn check_xattr_name(name: &[u8]) -> Result<(), Error> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Error::Range);
    }
    if name.contains(&0) {
        return Err(Error::Invalid);
    }
    Ok(())
}

/// An attribute that may be set: in a namespace that xattr(7) knows, as on ext4. What a layer brings
/// besides can be read and removed.
pub(crate) fn check_xattr_namespace(name: &[u8]) -> Result<(), Error> {
    if name == ACCESS || name == DEFAULT {
        return Ok(());
    }
    let known: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    match known.iter().find_map(|prefix| name.strip_prefix(*prefix)) {
        Some([]) => Err(Error::Invalid),
        Some(_) => Ok(()),
        None => Err(Error::Unsupported),
    }
}

/// The end of a range of a file's bytes.
pub(crate) fn check_range(offset: u64, length: u64) -> Result<u64, Error> {
    offset
        .checked_add(length)
        .filter(|end| *end <= SIZE_MAX)
        .ok_or(Error::TooLarge)
}

/// What a rename or link of this kind counts as.
pub(crate) fn is_dir(kind: FileKind) -> bool {
    kind == FileKind::Directory
}
