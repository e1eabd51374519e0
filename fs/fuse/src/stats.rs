//! How many messages of each kind the kernel sent.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! messages {
    ($($name:ident = $text:literal),+ $(,)?) => {
        /// A kind of message, after the opcodes of `include/uapi/linux/fuse.h`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Message {
            $(#[doc = concat!("`FUSE_", $text, "`")] $name),+
        }

        impl Message {
            /// Every kind, in the order of the counters.
            pub const ALL: &'static [Message] = &[$(Message::$name),+];

            /// The opcode's name without its prefix.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Message::$name => $text),+ }
            }
        }
    };
}

messages! {
    Lookup = "LOOKUP", Forget = "FORGET", GetAttr = "GETATTR", SetAttr = "SETATTR",
    ReadLink = "READLINK", MkNod = "MKNOD", MkDir = "MKDIR", Unlink = "UNLINK", RmDir = "RMDIR",
    SymLink = "SYMLINK", Rename = "RENAME", Link = "LINK", Open = "OPEN", Read = "READ",
    Write = "WRITE", Flush = "FLUSH", Release = "RELEASE", Fsync = "FSYNC", OpenDir = "OPENDIR",
    ReadDir = "READDIR", ReadDirPlus = "READDIRPLUS", ReleaseDir = "RELEASEDIR",
    FsyncDir = "FSYNCDIR", StatFs = "STATFS", SetXattr = "SETXATTR", GetXattr = "GETXATTR",
    ListXattr = "LISTXATTR", RemoveXattr = "REMOVEXATTR", Access = "ACCESS", Create = "CREATE",
    IoCtl = "IOCTL", Poll = "POLL", Fallocate = "FALLOCATE", Lseek = "LSEEK",
    CopyFileRange = "COPY_FILE_RANGE", Lock = "LK", Bmap = "BMAP",
}

/// Counters of one mount, by kind of message. Counting is relaxed: the sum is right, the moment
/// is not exact.
#[derive(Debug)]
pub struct Stats {
    counts: [AtomicU64; Message::ALL.len()],
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Stats {
    pub(crate) fn count(&self, message: Message) {
        if let Some(counter) = self.counts.get(message as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many messages of this kind came so far.
    #[must_use]
    pub fn get(&self, message: Message) -> u64 {
        self.counts
            .get(message as usize)
            .map_or(0, |c| c.load(Ordering::Relaxed))
    }

    /// All kinds that came at all, with their counts.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(Message, u64)> {
        Message::ALL
            .iter()
            .map(|&m| (m, self.get(m)))
            .filter(|&(_, n)| n > 0)
            .collect()
    }

    /// Sum over all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|c| c.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_counter_of_its_own() {
        let stats = Stats::default();
        for (i, &m) in Message::ALL.iter().enumerate() {
            for _ in 0..=i {
                stats.count(m);
            }
        }
        for (i, &m) in Message::ALL.iter().enumerate() {
            assert_eq!(stats.get(m), i as u64 + 1, "{}", m.name());
        }
        let n = Message::ALL.len() as u64;
        assert_eq!(stats.total(), n * (n + 1) / 2);
    }
}
