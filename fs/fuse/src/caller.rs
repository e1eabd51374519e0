//! Who sent a message, and whether they belong to a group.
//!
//! A message carries one group of its sender, but set-group-ID bits hang on all of them. The kernel
//! sends its own answer for access control lists only in a form (`FUSE_SETXATTR_EXT`) that fuser
//! 0.18 cannot read, and for `fallocate(2)` and `copy_file_range(2)` not at all; so `/proc` is asked.
//! That is rare: only where a file has the bit and its group may not execute it, or a list is set.

use std::fs;

/// The sender of a message, as the mount's user and process namespaces number it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: u32,
}

impl Sender {
    /// Whether it has `CAP_FSETID`, as far as can be told: root of the mount's user namespace has.
    pub(crate) fn may_keep_set_id(self) -> bool {
        self.uid == 0
    }

    /// Whether `group` is one of its groups. Where the process cannot be found, or is not the
    /// sender (it may be numbered in another process namespace than ours), the one group of the
    /// message counts: then a bit may go that could have stayed.
    pub(crate) fn is_in(self, group: u32) -> bool {
        self.gid == group || self.other_groups().is_some_and(|all| all.contains(&group))
    }

    fn other_groups(self) -> Option<Vec<u32>> {
        let read = |what| fs::read_to_string(format!("/proc/{}/{what}", self.pid)).ok();
        let status = read("status")?;
        let (uids, gids) = (read("uid_map")?, read("gid_map")?);
        let line = |key: &str| status.lines().find_map(|l| l.strip_prefix(key));
        let ids = |line: &str, map: &str| -> Vec<u32> {
            let outside = line.split_ascii_whitespace().filter_map(|n| n.parse().ok());
            outside.filter_map(|id| inside(map, id)).collect()
        };
        // Real, effective, saved and file system id, proc_pid_status(5).
        let is_sender = ids(line("Uid:")?, &uids).get(3) == Some(&self.uid)
            && ids(line("Gid:")?, &gids).get(3) == Some(&self.gid);
        is_sender.then(|| ids(line("Groups:").unwrap_or_default(), &gids))
    }
}

/// What `id` of our user namespace is in the one that `map` (user_namespaces(7)) belongs to.
fn inside(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().filter_map(|n| n.parse().ok());
        let (first, outside, count): (u32, u32, u32) =
            (numbers.next()?, numbers.next()?, numbers.next()?);
        let at = id.checked_sub(outside).filter(|at| *at < count)?;
        first.checked_add(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_a_map() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(inside(map, 1000), Some(0));
        assert_eq!(inside(map, 100_000), Some(1));
        assert_eq!(inside(map, 165_535), Some(65_536));
        assert_eq!(inside(map, 165_536), None);
        assert_eq!(inside("0 0 4294967295\n", 7), Some(7));
        assert_eq!(inside("", 7), None);
    }

    #[test]
    fn groups_of_this_very_process_are_found_and_of_another_user_not() {
        let me = Sender {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            pid: std::process::id(),
        };
        assert!(me.is_in(me.gid));
        for group in rustix::process::getgroups().unwrap() {
            assert!(me.is_in(group.as_raw()));
        }
        let other = Sender {
            uid: me.uid + 1,
            ..me
        };
        assert!(other.other_groups().is_none());
    }
}
