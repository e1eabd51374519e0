//! How many messages of each kind the kernel sent, how long they took and what they moved.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

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
    CopyFileRange = "COPY_FILE_RANGE", Lock = "LK", Bmap = "BMAP", TmpFile = "TMPFILE",
}

/// Buckets of a histogram: bucket `n` holds what took less than `1 << n` microseconds and at least
/// half of that; the last holds everything longer.
const BUCKETS: usize = 24;

/// Counters of one mount, by kind of message. Counting is relaxed: the sums are right, the moment
/// is not exact, and a message that is being counted may be in one of two sums only.
#[derive(Debug)]
pub struct Stats {
    counters: [Counter; Message::ALL.len()],
}

/// On cache lines of its own: threads that answer different kinds do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counter {
    nanoseconds: AtomicU64,
    bytes: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Counter {
    fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }
}

/// What was counted of one kind of message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Which kind.
    pub message: Message,
    /// How many came.
    pub count: u64,
    /// How long answering them took together, from the decoded request to the answer that is not
    /// encoded yet: without the kernel's part and without waiting.
    pub total: Duration,
    /// Bytes of file content that they moved: read, written or copied.
    pub bytes: u64,
    buckets: [u64; BUCKETS],
}

impl Tally {
    /// How long one took on average.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let mean = u128::checked_div(self.total.as_nanos(), self.count.into()).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// What the given part of them (`0.5`: the median) did not exceed: an upper bound, up to twice
    /// the truth, since times are counted by powers of two microseconds.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.count as f64 * part.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (power, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= wanted {
                return Duration::from_micros(1 << power);
            }
        }
        Duration::ZERO
    }

    /// How many took less than the given time and at least half of it, for every power of two
    /// microseconds that saw any, ascending; the last one that there is also holds longer ones.
    #[must_use]
    pub fn histogram(&self) -> Vec<(Duration, u64)> {
        self.buckets
            .iter()
            .enumerate()
            .filter(|&(_, &n)| n > 0)
            .map(|(power, &n)| (Duration::from_micros(1 << power), n))
            .collect()
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            counters: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl Stats {
    /// Counts a message that took this long to answer.
    pub(crate) fn record(&self, message: Message, took: Duration) {
        if let Some(counter) = self.counters.get(message as usize) {
            let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            counter
                .nanoseconds
                .fetch_add(nanoseconds, Ordering::Relaxed);
            let micros = nanoseconds / 1_000;
            // 0 microseconds: bucket 0; 1: 1; 2 and 3: 2.
            let power = (u64::BITS - micros.leading_zeros()) as usize;
            if let Some(bucket) = counter.buckets.get(power.min(BUCKETS - 1)) {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts bytes of content that a message moved.
    pub(crate) fn moved(&self, message: Message, bytes: u64) {
        if let Some(counter) = self.counters.get(message as usize) {
            counter.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// How many messages of this kind came so far.
    #[must_use]
    pub fn get(&self, message: Message) -> u64 {
        self.counters
            .get(message as usize)
            .map_or(0, Counter::count)
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

    /// Everything that was counted, of the kinds that came at all.
    #[must_use]
    pub fn tallies(&self) -> Vec<Tally> {
        Message::ALL
            .iter()
            .zip(&self.counters)
            .map(|(&message, counter)| {
                let buckets = std::array::from_fn(|i| {
                    counter
                        .buckets
                        .get(i)
                        .map_or(0, |b| b.load(Ordering::Relaxed))
                });
                Tally {
                    message,
                    count: buckets.iter().sum(),
                    total: Duration::from_nanos(counter.nanoseconds.load(Ordering::Relaxed)),
                    bytes: counter.bytes.load(Ordering::Relaxed),
                    buckets,
                }
            })
            .filter(|tally| tally.count > 0)
            .collect()
    }

    /// Messages over all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counters.iter().map(Counter::count).sum()
    }
}

/// A table, the kind that took longest together first.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tallies = self.tallies();
        tallies.sort_by_key(|t| std::cmp::Reverse(t.total));
        writeln!(
            f,
            "{:<16}{:>10}{:>16}{:>12}{:>10}{:>10}{:>10}{:>10}",
            "OPERATION", "MESSAGES", "BYTES", "TOTAL", "MEAN", "50% IN", "99% IN", "ALL IN"
        )?;
        for t in &tallies {
            writeln!(
                f,
                "{:<16}{:>10}{:>16}{:>12}{:>10}{:>10}{:>10}{:>10}",
                t.message.name(),
                t.count,
                t.bytes,
                format!("{:.1?}", t.total),
                format!("{:.1?}", t.mean()),
                format!("{:?}", t.quantile(0.5)),
                format!("{:?}", t.quantile(0.99)),
                format!("{:?}", t.quantile(1.0)),
            )?;
        }
        let sum: Duration = tallies.iter().map(|t| t.total).sum();
        let count: u64 = tallies.iter().map(|t| t.count).sum();
        let bytes: u64 = tallies.iter().map(|t| t.bytes).sum();
        let sum = format!("{sum:.1?}");
        writeln!(f, "{:<16}{count:>10}{bytes:>16}{sum:>12}", "all")
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
                stats.record(m, Duration::ZERO);
            }
        }
        for (i, &m) in Message::ALL.iter().enumerate() {
            assert_eq!(stats.get(m), i as u64 + 1, "{}", m.name());
        }
        let n = Message::ALL.len() as u64;
        assert_eq!(stats.total(), n * (n + 1) / 2);
    }

    #[test]
    fn the_table_has_a_line_for_each_kind_that_came_and_one_for_all() {
        let stats = Stats::default();
        stats.record(Message::Lookup, Duration::from_micros(3));
        stats.record(Message::Read, Duration::from_millis(2));
        stats.moved(Message::Read, 131_072);
        let table = stats.to_string();
        let words: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(words.len(), 4, "{table}");
        assert_eq!(words[1][..5], ["READ", "1", "131072", "2.0ms", "2.0ms"]);
        assert_eq!(words[2][..5], ["LOOKUP", "1", "0", "3.0µs", "3.0µs"]);
        assert_eq!(words[3], ["all", "2", "131072", "2.0ms"]);
    }

    #[test]
    fn times_are_counted_by_powers_of_two_microseconds() {
        let stats = Stats::default();
        let micros = Duration::from_micros;
        for took in [
            Duration::ZERO,
            micros(1),
            micros(3),
            micros(4),
            micros(1000),
        ] {
            stats.record(Message::Read, took);
        }
        stats.record(Message::Read, Duration::from_secs(100_000));
        stats.moved(Message::Read, 4096);
        let tallies = stats.tallies();
        assert_eq!(tallies.len(), 1);
        let t = &tallies[0];
        assert_eq!((t.message, t.count, t.bytes), (Message::Read, 6, 4096));
        assert_eq!(t.total, micros(1008) + Duration::from_secs(100_000));
        assert_eq!(
            t.histogram(),
            [
                (micros(1), 1),
                (micros(2), 1),
                (micros(4), 1),
                (micros(8), 1),
                (micros(1024), 1),
                (micros(1 << 23), 1)
            ]
        );
        assert_eq!(t.quantile(0.5), micros(4));
        assert_eq!(t.quantile(0.0), micros(1));
        assert_eq!(t.quantile(1.0), micros(1 << 23));
    }
}
