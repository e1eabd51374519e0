//! What `--help` and `--version` print.

use crate::options::PROGRAM;

/// The fuse-overlayfs whose options these are: what programs look for that drive one.
const COMPATIBLE: &str = "1.16";

/// The text of `--version`. Programs that want a fuse-overlayfs of at least some version read the
/// line that names it, up to its last word.
pub(crate) fn version() -> String {
    format!(
        "{PROGRAM}: version {}\nfuse-overlayfs: version {COMPATIBLE}\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// The text of `--help`.
pub(crate) fn help() -> String {
    format!("usage: {PROGRAM} [options] [source] <mountpoint>\n\n{OPTIONS}")
}

/// Every option; the manual page has the same ones.
pub(crate) const OPTIONS: &str = "\
    -h   --help            print help
    -V   --version         print version
    -d   -o debug          tell what is done (implies -f)
    -f                     foreground operation
    -s                     one serving thread

layers:
    -o lowerdir=D[:D...]   directories below, the topmost first
    -o upperdir=D          directory for changes; without it the mount is read-only
    -o workdir=D           directory to work in, on the file system of upperdir
    -o upper=dir|journal   how changes are kept (dir: as kernel overlayfs does)
    -o userxattr           whiteouts and the like in user.overlay attributes, for root too

ids and attributes:
    -o uidmapping=A:B:N    user ids from A on disk are shown as those from B, N of them;
                           more triples may follow, colons between them
    -o gidmapping=A:B:N    the same for groups
    -o squash_to_root      show everything as owned by root
    -o squash_to_uid=N     show everything as owned by this user
    -o squash_to_gid=N     show everything as owned by this group
    -o static_nlink        one link for every directory
    -o xattr_permissions=2 keep owners and modes in user.containers.override_stat
    -o noacl               no ACLs
    -o noxattrs=1          no extended attributes
    -o xino=on|off|auto    taken; inode numbers are always stable

durability:
    -o fsync=0|1           0: a sync does nothing (default: 1)
    -o volatile            the same as fsync=0

mount:
    -o allow_other         let everyone in, as far as files permit (default for root)
    -o allow_root          let root in
    -o ro|rw               read-only or not
    -o nosuid, nodev, noexec, noatime, nodiratime, sync, dirsync and their opposites
    -o fsname=NAME         the source that is shown
    -o max_threads=N       serving threads
    -o clone_fd            a device descriptor for each thread
    -o opens=silent|answered|passthrough
                           what opening a file costs; passthrough: the kernel reads and
                           writes host files by itself (root, Linux 6.9)
    -o timeout=SECS        taken; what the kernel keeps never grows old

Backslashes escape commas and colons in paths. What is not known is passed over.
Examples:
    pellicle-overlay -o lowerdir=/image,upperdir=/c/diff,workdir=/c/work /c/merged
    mount -t fuse.pellicle-overlay overlay /c/merged -o lowerdir=/image/2:/image/1
    fusermount3 -u /c/merged
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fuse_overlayfs_is_named_with_its_version_last() {
        let version = version();
        let line = version
            .lines()
            .find(|line| line.contains("fuse-overlayfs: version "))
            .unwrap();
        let last = line.split(' ').next_back().unwrap();
        assert!(last.split('.').all(|n| n.parse::<u32>().is_ok()), "{line}");
    }

    #[test]
    fn the_manual_page_has_every_option() {
        let page = include_str!("../pellicle-overlay.1");
        for line in OPTIONS.lines() {
            let Some(option) = line.trim().strip_prefix("-o ") else {
                continue;
            };
            let name = option.split(['=', ' ', '|', ',']).next().unwrap();
            assert!(page.contains(&format!("\\fB{name}\\fR")), "{name}");
        }
    }
}
