//! Between the union's words and fuser's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use pellicle_union::{Attr, Device, FileKind, Time};

/// What `st_blksize` says: programs read and write in units of it.
pub(crate) const BLOCK_SIZE: u32 = 4096;

/// How long the kernel keeps what it is told: 136 years. More seconds than 32 bits hold are not
/// safe on every kernel that runs on 32-bit machines.
pub(crate) const FOREVER_SECONDS: u64 = u32::MAX as u64;

/// The permission bits of a wire mode.
pub(crate) fn perm(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

pub(crate) fn kind(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

pub(crate) fn attr(a: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(a.ino.0),
        size: a.size,
        blocks: a.blocks,
        atime: to_system(a.atime),
        mtime: to_system(a.mtime),
        ctime: to_system(a.ctime),
        crtime: UNIX_EPOCH,
        kind: kind(a.kind),
        perm: a.perm,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: encode_device(a.rdev),
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// The attributes of a name that is not there: inode 0 makes the kernel keep that
/// (`fuse_lookup_name` in `fs/fuse/dir.c`).
pub(crate) fn nothing() -> FileAttr {
    attr(&Attr {
        ino: pellicle_union::Ino(0),
        kind: FileKind::Regular,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: Device::default(),
        size: 0,
        blocks: 0,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
    })
}

/// `new_encode_dev` of `include/linux/kdev_t.h`: 12 bits of major and 20 of minor.
pub(crate) fn encode_device(d: Device) -> u32 {
    (d.minor & 0xff) | ((d.major & 0xfff) << 8) | ((d.minor & 0xf_ff00) << 12)
}

pub(crate) fn decode_device(rdev: u32) -> Device {
    Device {
        major: (rdev >> 8) & 0xfff,
        minor: (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00),
    }
}

fn to_system(t: Time) -> SystemTime {
    let whole = Duration::from_secs(t.sec.unsigned_abs());
    let seconds = if t.sec < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    seconds
        .and_then(|s| s.checked_add(Duration::from_nanos(t.nsec.into())))
        .unwrap_or(UNIX_EPOCH)
}

/// A time that came from the kernel. fuser 0.18 makes `epoch - (|sec| + nsec)` out of a time before
/// the epoch (`system_time_from_time` in its `src/time.rs`), where `epoch - |sec| + nsec` is meant:
/// taking the pieces back out undoes that.
fn from_system(t: SystemTime) -> Time {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Time {
            sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            nsec: d.subsec_nanos(),
        },
        Err(before) => {
            let d = before.duration();
            Time {
                sec: 0i64.checked_sub_unsigned(d.as_secs()).unwrap_or(i64::MIN),
                nsec: d.subsec_nanos(),
            }
        }
    }
}

pub(crate) fn time(t: TimeOrNow) -> Time {
    match t {
        TimeOrNow::Now => Time::now(),
        TimeOrNow::SpecificTime(t) => from_system(t),
    }
}

pub(crate) fn specific(t: SystemTime) -> Time {
    from_system(t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_the_wire() {
        for (major, minor) in [(0, 0), (1, 3), (8, 257), (0xfff, 0xf_ffff), (259, 65_536)] {
            let d = Device { major, minor };
            assert_eq!(decode_device(encode_device(d)), d);
        }
        // null(4): what mknod(2) hands over for `c 1 3`.
        assert_eq!(encode_device(Device { major: 1, minor: 3 }), 0x103);
    }

    #[test]
    fn times_before_the_epoch_reach_the_kernel_whole() {
        let t = to_system(Time {
            sec: -5,
            nsec: 300_000_000,
        });
        assert_eq!(
            UNIX_EPOCH.duration_since(t).unwrap(),
            Duration::from_millis(4_700)
        );
    }

    #[test]
    fn fusers_reading_of_times_before_the_epoch_is_undone() {
        // What fuser makes of sec = -5, nsec = 300,000,000.
        let theirs = UNIX_EPOCH - Duration::new(5, 300_000_000);
        assert_eq!(
            from_system(theirs),
            Time {
                sec: -5,
                nsec: 300_000_000
            }
        );
        assert_eq!(
            from_system(UNIX_EPOCH - Duration::from_secs(1)),
            Time { sec: -1, nsec: 0 }
        );
    }

    #[test]
    fn extreme_times_do_not_panic() {
        for sec in [i64::MIN, i64::MAX, -1, 0] {
            for nsec in [0, 999_999_999] {
                let _ = to_system(Time { sec, nsec });
            }
        }
    }
}
