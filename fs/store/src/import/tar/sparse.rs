//! Sparse maps: which bytes of a file are data.

use super::number;
use crate::{import::TarProblem, tree::Extent};

/// The map of one sparse file, as the stream tells it: ascending and disjoint by construction.
#[derive(Clone, Debug, Default)]
pub(super) struct Map {
    extents: Vec<Extent>,
    /// Where the last region ended, empty ones included.
    end: u64,
    data: u64,
}

impl Map {
    /// Adds the next region. An empty one is a mark that writers put at the end of the file.
    pub(super) fn push(&mut self, offset: u64, len: u64) -> Result<(), TarProblem> {
        if offset < self.end {
            return Err(TarProblem::Sparse {
                detail: "its regions overlap or are not in order",
            });
        }
        self.end = offset
            .checked_add(len)
            .filter(|end| *end <= i64::MAX as u64)
            .ok_or(TarProblem::Sparse {
                detail: "a region ends past the largest file",
            })?;
        self.data += len;
        if len == 0 {
            return Ok(());
        }
        match self.extents.last_mut() {
            Some(last) if last.offset + last.len == offset => last.len += len,
            _ => self.extents.push(Extent { offset, len }),
        }
        Ok(())
    }

    /// The `GNU.sparse.map` of version 0.1: `offset,length,offset,length`.
    pub(super) fn from_pairs(text: &[u8]) -> Result<Self, TarProblem> {
        let mut map = Self::default();
        if text.is_empty() {
            return Ok(map);
        }
        let mut numbers = text.split(|b| *b == b',').map(number::decimal);
        while let Some(offset) = numbers.next() {
            let (Some(offset), Some(Some(len))) = (offset, numbers.next()) else {
                return Err(TarProblem::Sparse {
                    detail: "GNU.sparse.map is no list of pairs of numbers",
                });
            };
            map.push(offset, len)?;
        }
        Ok(map)
    }

    /// The extents of a file of `size` bytes that has `stored` bytes in the archive.
    pub(super) fn finish(self, size: u64, stored: u64) -> Result<Vec<Extent>, TarProblem> {
        let detail = if self.end > size {
            "a region ends past the end of the file"
        } else if self.data != stored {
            "its regions and the stored data differ in length"
        } else {
            return Ok(self.extents);
        };
        Err(TarProblem::Sparse { detail })
    }
}

/// Reads the map of version 1.0, which stands before the data: decimal numbers, one a line, first
/// how many regions there are.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    map: Map,
    digits: Vec<u8>,
    left: Option<u64>,
    offset: Option<u64>,
}

impl MapReader {
    /// Takes one block of the map; `true` when the map is complete (the rest of the block is
    /// padding).
    pub(super) fn block(&mut self, block: &[u8]) -> Result<bool, TarProblem> {
        for byte in block {
            match byte {
                b'\n' => {
                    self.number()?;
                    if self.left == Some(0) {
                        return Ok(true);
                    }
                }
                b'0'..=b'9' if self.digits.len() < 20 => self.digits.push(*byte),
                _ => return Err(Self::malformed()),
            }
        }
        Ok(false)
    }

    fn number(&mut self) -> Result<(), TarProblem> {
        let n = number::decimal(&self.digits).ok_or_else(Self::malformed)?;
        self.digits.clear();
        match (&mut self.left, self.offset.take()) {
            (left @ None, _) => *left = Some(n),
            (Some(_), None) => self.offset = Some(n),
            (Some(left), Some(offset)) => {
                self.map.push(offset, n)?;
                *left = left.saturating_sub(1);
            }
        }
        Ok(())
    }

    fn malformed() -> TarProblem {
        TarProblem::Sparse {
            detail: "the map before the data is no list of numbers",
        }
    }

    pub(super) fn into_map(self) -> Map {
        self.map
    }
}
