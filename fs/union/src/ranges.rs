//! Which bytes of a mixed file are in its data file; the rest is the lower tree's.
//!
//! Ranges are of bytes, not of blocks, and only ever come to be more. They never touch, so their
//! number is that of the pieces a file is in. A change that touches a range adds none, so it needs
//! no copy, however small it is; one that stands alone is rounded out to a chunk, by copying what
//! is around it ([`Ranges::claim`]). Chunks grow with the number of ranges, which so stays below the
//! root of the size, up to a TiB: 32,768 for a GiB, whatever is done to it. 20,000 changes of 4 KiB all over
//! such a file (78 MiB) copy 118 MiB; with chunks that grow from 256 ranges on it would be 554 MiB.

use std::collections::BTreeMap;

use pellicle_upper::Chunks;

/// A file in so many ranges has chunks of their first size; in twice as many, of twice that size.
const FEW: usize = 2048;
/// The largest chunk, bytes.
const LARGEST: u64 = 1 << 20;

/// Some bytes of a file: from the first to before the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Bytes that lie in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// In the data file.
    pub(crate) own: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    /// Ends by starts.
    ranges: BTreeMap<u64, u64>,
    /// Bytes of all of them.
    bytes: u64,
}

impl Ranges {
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = Range> + '_ {
        let ranges = self.ranges.iter();
        ranges.map(|(start, end)| Range {
            start: *start,
            end: *end,
        })
    }

    /// Bytes that are the lower tree's.
    pub(crate) fn left(&self) -> u64 {
        u64::MAX - self.bytes
    }

    pub(crate) fn insert(&mut self, new: Range) {
        let Range { mut start, mut end } = new;
        if start >= end {
            return;
        }
        while let Some(there) = self.last_from(end).filter(|there| there.end >= start) {
            self.ranges.remove(&there.start);
            self.bytes -= there.end - there.start;
            start = start.min(there.start);
            end = end.max(there.end);
        }
        self.ranges.insert(start, end);
        self.bytes += end - start;
    }

    /// The last range that begins at `at` or before.
    fn last_from(&self, at: u64) -> Option<Range> {
        let (start, end) = self.ranges.range(..=at).next_back()?;
        Some(Range {
            start: *start,
            end: *end,
        })
    }

    /// Where the first range begins that does so at `at` or behind.
    fn next_start(&self, at: u64) -> Option<u64> {
        self.ranges.range(at..).next().map(|(start, _)| *start)
    }

    pub(crate) fn covers(&self, range: Range) -> bool {
        self.last_from(range.start)
            .is_some_and(|there| there.end >= range.end)
    }

    /// Whether nothing is the lower tree's any more once `more` is said.
    pub(crate) fn is_whole_with(&self, more: &[Range]) -> bool {
        let mut added = Self::default();
        more.iter().for_each(|range| added.insert(*range));
        let mut at = 0;
        for range in self.each() {
            let gap = Range {
                start: at,
                end: range.start,
            };
            if gap.start < gap.end && !added.covers(gap) {
                return false;
            }
            at = range.end;
        }
        at == u64::MAX
            || added.covers(Range {
                start: at,
                end: u64::MAX,
            })
    }

    /// What is to be said of a change of the bytes `wanted`; `None` if all of them are in the data
    /// file. What it has beyond them is to be copied from the lower tree first.
    pub(crate) fn claim(&self, wanted: Range, chunks: Chunks) -> Option<Range> {
        let Range { start, end } = wanted;
        if start >= end || self.covers(wanted) {
            return None;
        }
        if self.last_from(end).is_some_and(|range| range.end >= start) {
            return Some(wanted);
        }
        let size = self.chunk(chunks);
        let floor = self.last_from(start).map_or(0, |range| range.end);
        let ceiling = self.next_start(end).unwrap_or(u64::MAX);
        Some(Range {
            start: (start / size * size).max(floor),
            end: end
                .checked_next_multiple_of(size)
                .unwrap_or(end)
                .min(ceiling),
        })
    }

    fn chunk(&self, chunks: Chunks) -> u64 {
        let mut size = chunks.size.max(1);
        let mut many = self.ranges.len() / FEW;
        while many > 1 && size < LARGEST {
            size *= 2;
            many /= 2;
        }
        size
    }

    /// The bytes from `start` on that lie in one place, as far as `end`.
    pub(crate) fn piece(&self, start: u64, end: u64) -> Piece {
        let inside = self.last_from(start).filter(|range| range.end > start);
        let (until, own) = match inside {
            Some(range) => (range.end, true),
            None => (self.next_start(start).unwrap_or(u64::MAX), false),
        };
        Piece {
            start,
            end: until.min(end),
            own,
        }
    }

    /// The bytes from `start` to `end`, by where they lie.
    pub(crate) fn pieces(&self, start: u64, end: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = start;
        while at < end {
            let piece = self.piece(at, end);
            at = piece.end;
            pieces.push(piece);
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKS: Chunks = Chunks { whole: 0, size: 8 };

    fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    fn of(ranges: &[(u64, u64)]) -> Ranges {
        let mut all = Ranges::default();
        ranges.iter().for_each(|(s, e)| all.insert(range(*s, *e)));
        all
    }

    fn listed(ranges: &Ranges) -> Vec<(u64, u64)> {
        ranges.each().map(|r| (r.start, r.end)).collect()
    }

    #[test]
    fn what_touches_becomes_one() {
        let mut ranges = of(&[(10, 20), (30, 40), (50, 60)]);
        ranges.insert(range(20, 30));
        assert_eq!(listed(&ranges), [(10, 40), (50, 60)]);
        ranges.insert(range(5, 55));
        assert_eq!(listed(&ranges), [(5, 60)]);
        ranges.insert(range(7, 9));
        ranges.insert(range(9, 9));
        assert_eq!(listed(&ranges), [(5, 60)]);
        assert_eq!(ranges.left(), u64::MAX - 55);
        ranges.insert(range(0, u64::MAX));
        assert_eq!((listed(&ranges), ranges.left()), (vec![(0, u64::MAX)], 0));
    }

    #[test]
    fn only_a_change_that_stands_alone_is_rounded_out() {
        let ranges = of(&[(20, 27), (100, u64::MAX)]);
        let claim = |start, end| {
            let claim = ranges.claim(range(start, end), CHUNKS);
            claim.map(|r| (r.start, r.end))
        };
        assert_eq!(claim(50, 51), Some((48, 56)));
        assert_eq!(claim(48, 56), Some((48, 56)));
        assert_eq!(claim(28, 29), Some((27, 32)), "up to what is there");
        assert_eq!(claim(98, 99), Some((96, 100)));
        assert_eq!(claim(27, 29), Some((27, 29)), "going on");
        assert_eq!(claim(15, 20), Some((15, 20)), "going backwards");
        assert_eq!(claim(15, 30), Some((15, 30)), "over it");
        assert_eq!(claim(21, 26), None);
        assert_eq!(claim(200, 300), None);
        assert_eq!(claim(50, 50), None);
    }

    #[test]
    fn pieces_lie_end_to_end() {
        let ranges = of(&[(20, 30), (40, u64::MAX)]);
        let pieces: Vec<_> = ranges
            .pieces(10, 50)
            .into_iter()
            .map(|p| (p.start, p.end, p.own))
            .collect();
        let want = [
            (10, 20, false),
            (20, 30, true),
            (30, 40, false),
            (40, 50, true),
        ];
        assert_eq!(pieces, want);
        assert_eq!(ranges.pieces(25, 26).len(), 1);
        assert!(ranges.pieces(25, 25).is_empty());
    }

    #[test]
    fn a_file_is_whole_once_no_gap_is_left() {
        let ranges = of(&[(20, 30), (40, u64::MAX)]);
        let whole = |more: &[(u64, u64)]| {
            let more: Vec<_> = more.iter().map(|(s, e)| range(*s, *e)).collect();
            ranges.is_whole_with(&more)
        };
        assert!(!whole(&[]));
        assert!(!whole(&[(0, 20)]));
        assert!(!whole(&[(0, 20), (30, 39)]));
        assert!(whole(&[(30, 35), (35, 40), (0, 20)]));
        assert!(whole(&[(0, 40)]));
        assert!(!Ranges::default().is_whole_with(&[range(5, u64::MAX)]));
        assert!(Ranges::default().is_whole_with(&[range(5, u64::MAX), range(0, 5)]));
    }

    #[test]
    fn scattered_changes_of_a_large_file_leave_few_ranges() {
        let chunks = Chunks::default();
        let mut ranges = of(&[(1 << 30, u64::MAX)]);
        let (mut dice, mut copied, mut most) = (88_172_645_463_325_252u64, 0, 0);
        for _ in 0..400_000 {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let start = (dice >> 20) % (1 << 18) * 4096;
            let wanted = range(start, start + 4096);
            if let Some(claim) = ranges.claim(wanted, chunks) {
                copied += claim.end - claim.start;
                ranges.insert(claim);
            }
            most = most.max(ranges.len());
        }
        assert!(most <= 32_768, "{most} ranges");
        assert!(copied <= 1 << 30);
    }
}
