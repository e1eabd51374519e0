//! POSIX access control lists, as far as a file system has to know them.
//!
//! The kernel checks permissions by them and hands them over as extended attributes; with
//! FUSE_POSIX_ACL and FUSE_DONT_MASK it leaves to the server what a new inode inherits
//! (`posix_acl_create`), that `chmod` changes the list (`posix_acl_chmod`) and that setting a list
//! changes the mode (`posix_acl_update_mode`), all in the kernel's `fs/posix_acl.c`. The value's
//! format is `include/uapi/linux/posix_acl_xattr.h`: version 2, then tag, permissions and id of
//! each entry, little-endian.

/// The list that permissions are checked by.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// What new inodes in a directory get.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// A valid list: owner, owning group and others once each, and a mask if anyone is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    /// Reads an attribute's value; `None` if it is no valid list.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let (version, rest) = value.split_first_chunk::<4>()?;
        let (entries, []) = rest.as_chunks::<8>() else {
            return None;
        };
        if u32::from_le_bytes(*version) != VERSION {
            return None;
        }
        let entries: Vec<Entry> = entries
            .iter()
            .map(|&[t0, t1, p0, p1, i0, i1, i2, i3]| Entry {
                tag: u16::from_le_bytes([t0, t1]),
                perm: u16::from_le_bytes([p0, p1]),
                id: u32::from_le_bytes([i0, i1, i2, i3]),
            })
            .collect();
        let count = |tag| entries.iter().filter(|e| e.tag == tag).count();
        let named = count(USER) + count(GROUP);
        let known = named + count(USER_OBJ) + count(GROUP_OBJ) + count(MASK) + count(OTHER);
        let once = [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|t| count(*t) == 1);
        let masked = count(MASK) == 1 || (count(MASK) == 0 && named == 0);
        let sane = entries.iter().all(|e| e.perm <= 7) && known == entries.len();
        let ordered = entries.is_sorted_by_key(|e| e.tag);
        (once && masked && sane && ordered).then_some(Self(entries))
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for e in &self.0 {
            value.extend(e.tag.to_le_bytes());
            value.extend(e.perm.to_le_bytes());
            value.extend(e.id.to_le_bytes());
        }
        value
    }

    fn perm(&self, tag: u16) -> Option<u16> {
        self.0.iter().find(|e| e.tag == tag).map(|e| e.perm)
    }

    fn set(&mut self, tag: u16, perm: u16) {
        for e in self.0.iter_mut().filter(|e| e.tag == tag) {
            e.perm = perm;
        }
    }

    /// The entry that the group bits of the mode stand for.
    fn group_tag(&self) -> u16 {
        if self.perm(MASK).is_some() {
            MASK
        } else {
            GROUP_OBJ
        }
    }

    /// Whether the mode alone says as much.
    pub(crate) fn is_minimal(&self) -> bool {
        self.0
            .iter()
            .all(|e| matches!(e.tag, USER_OBJ | GROUP_OBJ | OTHER))
    }

    /// `mode` with the permission bits that this list stands for.
    pub(crate) fn mode(&self, mode: u16) -> u16 {
        let bits = |tag, shift| self.perm(tag).unwrap_or(0) << shift;
        mode & !0o777 | bits(USER_OBJ, 6) | bits(self.group_tag(), 3) | bits(OTHER, 0)
    }

    /// This list after a `chmod` to `mode`.
    pub(crate) fn chmod(mut self, mode: u16) -> Self {
        self.set(USER_OBJ, mode >> 6 & 7);
        let group = self.group_tag();
        self.set(group, mode >> 3 & 7);
        self.set(OTHER, mode & 7);
        self
    }
}

/// What a new inode gets that was asked for with `mode`, in a directory with this default list: its
/// mode, and its access list unless the mode says it all.
pub(crate) fn inherit(default: &Acl, mode: u16) -> (u16, Option<Acl>) {
    let mode = default.mode(mode) & (mode | !0o777);
    let access = default.clone().chmod(mode);
    (mode, (!access.is_minimal()).then_some(access))
}
