//! Answers, written into the payload of the request that they answer.

use fuser::Errno;
use pellicle_union::{Attr, FileKind, Ino};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::wire::{AttrReply, DirEntry, DirEntryPlus, EntryOut, SizeOut};
use crate::operations::XattrAnswer;

/// Bytes that an answer has in the payload.
pub(super) type Length = usize;

/// Writes `bytes` at the start.
pub(super) fn bytes(payload: &mut [u8], bytes: &[u8]) -> Result<Length, Errno> {
    payload
        .get_mut(..bytes.len())
        .ok_or(Errno::EIO)?
        .copy_from_slice(bytes);
    Ok(bytes.len())
}

/// Writes one structure.
pub(super) fn value(
    payload: &mut [u8],
    value: &(impl IntoBytes + Immutable),
) -> Result<Length, Errno> {
    bytes(payload, value.as_bytes())
}

pub(super) fn entry(payload: &mut [u8], made: &Attr) -> Result<Length, Errno> {
    value(payload, &EntryOut::new(made))
}

pub(super) fn attributes(payload: &mut [u8], attr: &Attr) -> Result<Length, Errno> {
    value(payload, &AttrReply::new(attr))
}

pub(super) fn size(payload: &mut [u8], size: u32) -> Result<Length, Errno> {
    value(payload, &SizeOut { size, padding: 0 })
}

pub(super) fn xattr(payload: &mut [u8], answer: &XattrAnswer) -> Result<Length, Errno> {
    match answer {
        XattrAnswer::Size(length) => size(payload, *length),
        XattrAnswer::Bytes(list) => bytes(payload, list),
    }
}

/// Fills a payload with the entries of a listing.
pub(super) struct Listing<'a> {
    room: &'a mut [u8],
    used: usize,
}

impl<'a> Listing<'a> {
    /// `size`: what the kernel has room for, bytes.
    pub(super) fn new(payload: &'a mut [u8], size: u32) -> Self {
        let room = payload.len().min(size as usize);
        Self {
            room: payload.get_mut(..room).unwrap_or_default(),
            used: 0,
        }
    }

    pub(super) fn used(&self) -> Length {
        self.used
    }

    /// True if there was no room for it.
    pub(super) fn add(&mut self, name: &[u8], ino: Ino, kind: FileKind, next: u64) -> bool {
        self.put(&dir_entry(name, ino, kind, next), name).is_none()
    }

    /// True if there was no room for it.
    pub(super) fn add_plus(&mut self, name: &[u8], attr: &Attr, next: u64) -> bool {
        let head = DirEntryPlus {
            entry: EntryOut::new(attr),
            names: dir_entry(name, attr.ino, attr.kind, next),
        };
        self.put(&head, name).is_none()
    }

    /// One after the other, each padded to 8 bytes (`FUSE_DIRENT_ALIGN`).
    fn put(&mut self, head: &(impl IntoBytes + FromBytes + Immutable), name: &[u8]) -> Option<()> {
        let head = head.as_bytes();
        let bare = head.len().checked_add(name.len())?;
        let place = self
            .room
            .get_mut(self.used..)?
            .get_mut(..bare.checked_next_multiple_of(8)?)?;
        let (for_head, rest) = place.split_at_mut_checked(head.len())?;
        let (for_name, padding) = rest.split_at_mut_checked(name.len())?;
        for_head.copy_from_slice(head);
        for_name.copy_from_slice(name);
        padding.fill(0);
        self.used += place.len();
        Some(())
    }
}

fn dir_entry(name: &[u8], ino: Ino, kind: FileKind, next: u64) -> DirEntry {
    DirEntry {
        ino: ino.0,
        next,
        // Names have 255 bytes at most; a longer one would not fit the room.
        name_len: u32::try_from(name.len()).unwrap_or(u32::MAX),
        // DT_*: the file type's bits of a mode, moved down.
        kind: kind.mode_bits() >> 12,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_end_where_the_room_does() {
        let mut payload = [0xff; 200];
        let mut list = Listing::new(&mut payload, 96);
        assert!(!list.add(b"abc", Ino(7), FileKind::Directory, 1));
        assert_eq!(list.used(), 32);
        assert!(!list.add(b"12345678", Ino(8), FileKind::Symlink, 2));
        assert_eq!(list.used(), 64);
        assert!(!list.add(b"x", Ino(9), FileKind::Regular, 3));
        assert!(list.add(b"y", Ino(10), FileKind::Regular, 4), "full");
        assert_eq!(list.used(), 96);
        assert_eq!(payload[0..8], 7u64.to_ne_bytes());
        assert_eq!(payload[8..16], 1u64.to_ne_bytes());
        assert_eq!(payload[16..20], 3u32.to_ne_bytes());
        assert_eq!(payload[20..24], u32::from(libc::DT_DIR).to_ne_bytes());
        assert_eq!(&payload[24..32], b"abc\0\0\0\0\0");
        assert_eq!(payload[52..56], u32::from(libc::DT_LNK).to_ne_bytes());
        assert_eq!(payload[96], 0xff);
    }

    #[test]
    fn what_does_not_fit_a_payload_is_an_error() {
        assert!(bytes(&mut [0; 3], b"abcd").is_err());
        assert!(size(&mut [0; 7], 1).is_err());
        assert_eq!(bytes(&mut [0; 4], b"abcd").unwrap(), 4);
    }
}
