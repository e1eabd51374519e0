//! What overlay file systems write beside a file's own attributes, and how it is read.
//!
//! Kernel overlayfs keeps its marks in `trusted.overlay.*`, or in `user.overlay.*` when mounted with
//! `userxattr` (Documentation/filesystems/overlayfs.rst); fuse-overlayfs adds its own opaque mark,
//! `.wh.` files, and `user.containers.override_stat`, which podman's containers/storage writes too.
//! None of it is seen in a merged tree; an attribute that is to be seen under such a name is stored
//! under an escaped one, `*.overlay.overlay.x` for `*.overlay.x`.

use pellicle_store::{Device, FileKind};

/// Whose marks count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// Those of `trusted.overlay.`, as the kernel reads them; `user.overlay.` is an attribute like
    /// any other.
    Trusted,
    /// Those of `user.overlay.`, as the kernel mounted with `userxattr`.
    User,
    /// Both, and fuse-overlayfs's.
    #[default]
    Any,
}

/// When `user.containers.override_stat` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverrideStat {
    /// In layers whose top directory has it, as fuse-overlayfs decides.
    #[default]
    Auto,
    /// Wherever it is.
    Always,
    /// Nowhere: it is an attribute like any other.
    Never,
}

/// The start of every mark that needs privilege.
pub const TRUSTED_PREFIX: &[u8] = b"trusted.overlay.";
/// The start of every mark that needs none.
pub const USER_PREFIX: &[u8] = b"user.overlay.";
/// The mark that the dir upper keeps an inode's number in. No other program writes or reads it.
pub const NUMBER: &[u8] = b"pellicle.ino";
/// The mark of an empty file that is a character device 0:0, which on the host would be a whiteout.
/// To other programs it is the empty file.
pub const DEVICE_0: &[u8] = b"pellicle.device0";
/// Attributes that the host cannot store: see [`Stat`].
pub const OVERRIDE_STAT: &[u8] = b"user.containers.override_stat";
/// The start of names that containers/storage hides real ones behind.
pub const OVERRIDE_PREFIX: &[u8] = b"user.containers.override_";
/// fuse-overlayfs's own names, and the override it had before.
const FUSE_PREFIX: &[u8] = b"user.fuseoverlayfs.";
const FUSE_OVERRIDE: [&[u8]; 2] = [
    b"user.fuseoverlayfs.override_stat",
    b"security.fuseoverlayfs.override_stat",
];

/// What an extended attribute on the host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// An attribute of the file, under this name.
    Own(&'a [u8]),
    /// The mark of that name: `opaque`, `redirect`, …
    Mark(&'a [u8]),
    /// [`Stat`] in text.
    Override,
    /// Neither: bookkeeping, or about the host (labels of its security modules).
    Hidden,
}

impl Marks {
    fn has(self, trusted: bool) -> bool {
        match self {
            Self::Trusted => trusted,
            Self::User => !trusted,
            Self::Any => true,
        }
    }

    /// What the attribute called `name` is. With `overrides`, `user.containers.override_*` counts.
    #[must_use]
    pub fn meaning(self, name: &[u8], overrides: bool) -> Meaning<'_> {
        for (prefix, trusted) in [(TRUSTED_PREFIX, true), (USER_PREFIX, false)] {
            if let Some(mark) = name.strip_prefix(prefix)
                && self.has(trusted)
            {
                return Meaning::Mark(mark);
            }
        }
        if self == Self::Any && name == b"user.fuseoverlayfs.opaque" {
            return Meaning::Mark(b"opaque");
        }
        if overrides {
            if name == OVERRIDE_STAT || FUSE_OVERRIDE.contains(&name) {
                return Meaning::Override;
            }
            if let Some(hidden) = name.strip_prefix(OVERRIDE_PREFIX) {
                return Meaning::Own(hidden);
            }
        }
        if self == Self::Any && name.starts_with(FUSE_PREFIX) {
            return Meaning::Hidden;
        }
        // Labels and signatures of the host's security modules are about the host.
        let host: [&[u8]; 3] = [b"security.selinux", b"security.ima", b"security.evm"];
        let seen: [&[u8]; 5] = [
            b"user.",
            b"trusted.",
            b"security.",
            b"system.posix_acl_access",
            b"system.posix_acl_default",
        ];
        if !host.contains(&name) && seen.iter().any(|start| name.starts_with(start)) {
            Meaning::Own(name)
        } else {
            Meaning::Hidden
        }
    }

    /// The name that a mark `overlay.x` (an escaped one, found as the mark `overlay.x`) stands for:
    /// `user.overlay.x` or `trusted.overlay.x`, whichever `name` begins with.
    #[must_use]
    pub fn unescaped(name: &[u8]) -> Option<Vec<u8>> {
        [TRUSTED_PREFIX, USER_PREFIX].into_iter().find_map(|p| {
            let rest = name.strip_prefix(p)?.strip_prefix(b"overlay.")?;
            Some([p, rest].concat())
        })
    }

    /// The name under which an attribute called `name` is stored.
    #[must_use]
    pub fn escaped(self, name: &[u8]) -> Vec<u8> {
        for (prefix, trusted) in [(TRUSTED_PREFIX, true), (USER_PREFIX, false)] {
            if let Some(rest) = name.strip_prefix(prefix)
                && self.has(trusted)
            {
                return [prefix, b"overlay.", rest].concat();
            }
        }
        name.to_vec()
    }
}

/// What `user.containers.override_stat` says: `uid:gid:mode[:type]`, ids in decimal, the mode in
/// octal, the type one of `dir`, `file`, `symlink`, `pipe`, `socket`, `block-MAJOR-MINOR` and
/// `char-MAJOR-MINOR` (containers/storage, `pkg/idtools`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission, set-id and sticky bits.
    pub perm: u16,
    /// The kind, if said.
    pub kind: Option<FileKind>,
    /// Device number of a device.
    pub rdev: Device,
}

impl Stat {
    /// Reads the text; `None` if it is none.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.strip_suffix(b"\0").unwrap_or(text);
        let mut parts = std::str::from_utf8(text).ok()?.splitn(4, ':');
        let uid = parts.next()?.parse().ok()?;
        let gid = parts.next()?.parse().ok()?;
        let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
        let mut stat = Self {
            uid,
            gid,
            perm: (mode & 0o7777) as u16,
            kind: None,
            rdev: Device::default(),
        };
        let Some(kind) = parts.next() else {
            return Some(stat);
        };
        let mut words = kind.split('-');
        stat.kind = Some(match words.next()? {
            "dir" => FileKind::Directory,
            "file" => FileKind::Regular,
            "symlink" => FileKind::Symlink,
            "pipe" => FileKind::Fifo,
            "socket" => FileKind::Socket,
            device @ ("block" | "char") => {
                stat.rdev = Device {
                    major: words.next()?.parse().ok()?,
                    minor: words.next()?.parse().ok()?,
                };
                if device == "block" {
                    FileKind::BlockDevice
                } else {
                    FileKind::CharDevice
                }
            }
            _ => return None,
        });
        Some(stat)
    }

    /// The text that [`Stat::parse`] reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Self {
            uid,
            gid,
            perm,
            kind,
            rdev: Device { major, minor },
        } = self;
        let start = format!("{uid}:{gid}:0{perm:o}");
        match kind {
            None => start,
            Some(FileKind::Directory) => start + ":dir",
            Some(FileKind::Regular) => start + ":file",
            Some(FileKind::Symlink) => start + ":symlink",
            Some(FileKind::Fifo) => start + ":pipe",
            Some(FileKind::Socket) => start + ":socket",
            Some(FileKind::BlockDevice) => format!("{start}:block-{major}-{minor}"),
            Some(FileKind::CharDevice) => format!("{start}:char-{major}-{minor}"),
        }
    }
}
