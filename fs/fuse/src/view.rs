//! How a mount shows what the union keeps: whose ids, whether with ACLs, how many links.
//!
//! The union and the layers under it know one set of user and group numbers, those that are kept
//! on disk. Where a mount is to show others (a container's, seen from outside; one owner for
//! everything), they are translated here, at the edge, in both directions and in one place.

use pellicle_union::{Attr, Caller, FileKind, SetAttr};

/// `length` numbers from `kept` on are shown as those from `shown` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First number, as it is kept on disk.
    pub kept: u32,
    /// First number, as programs see it.
    pub shown: u32,
    /// How many.
    pub length: u32,
}

/// Translates the numbers of users, or of groups.
///
/// Without ranges every number is itself. With ranges a number in none of them becomes
/// [`IdMap::overflow`], both ways, as the kernel has it for ids without a place in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    /// The ranges; where two hold a number, the first counts.
    pub ranges: Vec<IdRange>,
    /// What every number is shown as, before any range is looked at.
    pub squash: Option<u32>,
    /// What stands for a number in no range (`/proc/sys/kernel/overflowuid`, `overflowgid`).
    pub overflow: u32,
}

impl IdMap {
    /// What programs see for the number `id` on disk.
    #[must_use]
    pub fn show(&self, id: u32) -> u32 {
        self.squash.unwrap_or_else(|| self.show_mapped(id))
    }

    /// What is kept on disk for the number `id` that a program gave. Squashing has no part in it.
    #[must_use]
    pub fn keep(&self, id: u32) -> u32 {
        self.translate(id, |r| (r.shown, r.kept))
    }

    /// As [`IdMap::show`] without squashing: for lists of ids, which one number for all would
    /// make ambiguous.
    fn show_mapped(&self, id: u32) -> u32 {
        self.translate(id, |r| (r.kept, r.shown))
    }

    fn translate(&self, id: u32, ends: impl Fn(&IdRange) -> (u32, u32)) -> u32 {
        if self.ranges.is_empty() {
            return id;
        }
        let found = self.ranges.iter().find_map(|range| {
            let (from, to) = ends(range);
            let at = id.checked_sub(from).filter(|at| *at < range.length)?;
            to.checked_add(at)
        });
        found.unwrap_or(self.overflow)
    }
}

/// How a mount shows what the union keeps. The default shows it as it is.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Translates users.
    pub uids: IdMap,
    /// Translates groups.
    pub gids: IdMap,
    /// Every directory has one link, which tells programs not to count its subdirectories.
    pub static_nlink: bool,
    /// No ACLs: what is set on files is not looked at, and none can be set.
    pub no_acl: bool,
    /// No extended attributes at all.
    pub no_xattrs: bool,
}

/// The two attributes that hold ACLs.
const ACL_NAMES: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Which way ids go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the disk to programs.
    Show,
    /// From programs to the disk.
    Keep,
}

impl View {
    pub(crate) fn show(&self, attr: Attr) -> Attr {
        let one_link = self.static_nlink && attr.kind == FileKind::Directory;
        Attr {
            uid: self.uids.show(attr.uid),
            gid: self.gids.show(attr.gid),
            nlink: if one_link { 1 } else { attr.nlink },
            ..attr
        }
    }

    pub(crate) fn keep_caller(&self, caller: Caller) -> Caller {
        Caller {
            uid: self.uids.keep(caller.uid),
            gid: self.gids.keep(caller.gid),
            ..caller
        }
    }

    pub(crate) fn keep_attr(&self, set: SetAttr) -> SetAttr {
        SetAttr {
            uid: set.uid.map(|id| self.uids.keep(id)),
            gid: set.gid.map(|id| self.gids.keep(id)),
            ..set
        }
    }

    /// Whether the attribute `name` cannot be had in this mount.
    pub(crate) fn hides(&self, name: &[u8]) -> bool {
        self.no_acl && ACL_NAMES.contains(&name)
    }

    /// Takes the hidden names out of `names`, each of which ends with a zero byte.
    pub(crate) fn visible(&self, mut names: Vec<u8>) -> Vec<u8> {
        if self.no_acl {
            names = names
                .split_inclusive(|b| *b == 0)
                .filter(|name| !self.hides(name.strip_suffix(&[0]).unwrap_or(name)))
                .flatten()
                .copied()
                .collect();
        }
        names
    }

    /// Whether the attribute `name` holds ids that [`View::acl`] would translate.
    pub(crate) fn maps(&self, name: &[u8]) -> bool {
        let mapped = !self.uids.ranges.is_empty() || !self.gids.ranges.is_empty();
        mapped && ACL_NAMES.contains(&name)
    }

    /// Translates the ids in the value of an attribute that [`View::maps`].
    ///
    /// The layout is that of `include/uapi/linux/posix_acl_xattr.h`: four bytes of version, then
    /// entries of a tag and permissions, 16 bits each, and an id of 32, all little-endian.
    pub(crate) fn acl(&self, value: &mut [u8], way: Way) {
        const VERSION: usize = 4;
        const USER: [u8; 2] = 0x02u16.to_le_bytes();
        const GROUP: [u8; 2] = 0x08u16.to_le_bytes();

        let entries = value.get_mut(VERSION..).unwrap_or_default();
        for entry in entries.as_chunks_mut::<8>().0 {
            let [t0, t1, _, _, id @ ..] = entry;
            let map = match [*t0, *t1] {
                USER => &self.uids,
                GROUP => &self.gids,
                _ => continue,
            };
            let number = u32::from_le_bytes(*id);
            let number = match way {
                Way::Show => map.show_mapped(number),
                Way::Keep => map.keep(number),
            };
            *id = number.to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[(u32, u32, u32)]) -> IdMap {
        IdMap {
            ranges: ranges
                .iter()
                .map(|&(kept, shown, length)| IdRange {
                    kept,
                    shown,
                    length,
                })
                .collect(),
            squash: None,
            overflow: 65_534,
        }
    }

    #[test]
    fn ids_go_there_and_back() {
        let map = map(&[(0, 1000, 1), (1, 110_000, 65_536)]);
        for (kept, shown) in [(0, 1000), (1, 110_000), (65_536, 175_535)] {
            assert_eq!(map.show(kept), shown);
            assert_eq!(map.keep(shown), kept);
        }
    }

    #[test]
    fn ids_in_no_range_overflow_both_ways() {
        let map = map(&[(10, 20, 5)]);
        for id in [9, 15, u32::MAX] {
            assert_eq!(map.show(id), 65_534, "{id}");
        }
        for id in [19, 25, 0] {
            assert_eq!(map.keep(id), 65_534, "{id}");
        }
    }

    #[test]
    fn a_range_up_to_the_last_id_does_not_wrap() {
        let map = map(&[(10, u32::MAX - 1, 5)]);
        assert_eq!(map.show(11), u32::MAX);
        assert_eq!(map.show(12), 65_534);
    }

    #[test]
    fn without_ranges_every_id_is_itself_and_squashing_shows_one() {
        let mut map = IdMap::default();
        assert_eq!((map.show(7), map.keep(7)), (7, 7));
        map.squash = Some(3);
        assert_eq!((map.show(7), map.keep(7)), (3, 7));
    }

    #[test]
    fn acls_are_translated_but_not_squashed() {
        let mut uids = map(&[(0, 1000, 10)]);
        uids.squash = Some(1);
        let view = View {
            uids,
            gids: map(&[(0, 2000, 10)]),
            ..View::default()
        };
        let acl = |user: u32, group: u32| {
            let mut v = vec![2, 0, 0, 0];
            for (tag, id) in [(1u16, u32::MAX), (2, user), (4, u32::MAX), (8, group)] {
                v.extend(tag.to_le_bytes());
                v.extend(7u16.to_le_bytes());
                v.extend(id.to_le_bytes());
            }
            v
        };
        let mut value = acl(5, 6);
        view.acl(&mut value, Way::Show);
        assert_eq!(value, acl(1005, 2006));
        view.acl(&mut value, Way::Keep);
        assert_eq!(value, acl(5, 6));
        assert!(view.maps(ACL_NAMES[1]) && !view.maps(b"user.x"));
        assert!(!View::default().maps(ACL_NAMES[1]));
    }

    #[test]
    fn a_torn_acl_is_left_alone() {
        let view = View {
            uids: map(&[(0, 1000, 10)]),
            ..View::default()
        };
        for length in 0..12 {
            let mut value = vec![2; length];
            view.acl(&mut value, Way::Show);
            assert_eq!(value.len(), length);
        }
    }

    #[test]
    fn names_of_acls_are_left_out_without_acls() {
        let names = b"user.a\0system.posix_acl_access\0user.b\0".to_vec();
        let mut view = View::default();
        assert_eq!(view.visible(names.clone()), names);
        view.no_acl = true;
        assert_eq!(view.visible(names), b"user.a\0user.b\0");
    }
}
