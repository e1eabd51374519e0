//! Mixed content: copied from the lower tree where it was changed, and below everywhere else.
//!
//! What the data file holds outside of its ranges is no content: whatever an unfinished change left
//! there is never shown. So a range is said only of bytes every one of which was put there by the
//! change that says it, holes included ([`Union::copy_lower`] makes those anew too). Past the inode's
//! size the rules of [`crate::content`] hold, and a file that is cut off says that everything from
//! there on is its own, so that no byte of the lower tree comes back when it grows.
//!
//! A reader looks once where each byte lies. Ranges only come to be more and the lower tree never
//! changes, so what it then reads is what was there before or after any change that runs beside it.

use std::fs::File;

use pellicle_store::Ino;
use pellicle_upper::{Chunks, ContentSource};

use crate::{
    Union,
    allocate::{clear, seek_in},
    content::{Sink, host, read_full},
    error::Error,
    inode::{ContentLock, Inode},
    ranges::{Piece, Range, Ranges},
};

/// Holes are looked for in so many bytes and more.
const WORTH_A_HOLE: u64 = 4096;

/// What a change is to say of mixed content, besides what was said before.
pub(crate) struct Saying {
    chunks: Chunks,
    /// The data file has everything from here on.
    rest: Option<u64>,
    /// And this.
    claim: Option<Range>,
}

impl Saying {
    /// `rest` as above: where the lower content ends that a file is about to be made of.
    pub(crate) fn new(chunks: Chunks, rest: Option<u64>) -> Self {
        Self {
            chunks,
            rest,
            claim: None,
        }
    }

    fn ranges(&self) -> Vec<Range> {
        let rest = self.rest.map(|start| Range {
            start,
            end: u64::MAX,
        });
        rest.into_iter().chain(self.claim).collect()
    }

    /// Whether the change puts something in the place of bytes of the lower tree.
    pub(crate) fn claims(&self) -> bool {
        self.claim.is_some()
    }

    /// What was claimed behind `end` does not count: the change came so far only.
    pub(crate) fn shorten(&mut self, end: u64) {
        if let Some(claim) = &mut self.claim {
            claim.end = claim.end.min(end);
        }
        self.claim = self.claim.filter(|claim| claim.start < claim.end);
    }
}

impl Union {
    /// To be called before the bytes of `wanted` are changed in the data file: whatever else has to
    /// be there for them to count is copied. Nothing unless the content is mixed.
    pub(crate) fn claim(
        &self,
        lock: &ContentLock<'_>,
        sink: &mut Sink<'_>,
        wanted: Range,
    ) -> Result<(), Error> {
        let Some(saying) = &mut sink.mixed else {
            return Ok(());
        };
        let claim = with_ranges(lock, saying, |own| own.claim(wanted, saying.chunks));
        let Some(claim) = claim else { return Ok(()) };
        saying.claim = Some(claim);
        let (before, after) = (claim.start..wanted.start, wanted.end..claim.end);
        let around = self
            .copy_lower(lock.inode, before.start, before.end, &sink.file, None)
            .and_then(|()| self.copy_lower(lock.inode, after.start, after.end, &sink.file, None));
        match around {
            Ok(()) => (),
            // What is around is copied for the sake of fewer ranges only.
            Err(error) if matches!(error.errno(), libc::ENOSPC | libc::EDQUOT) => {
                saying.claim = Some(wanted);
            }
            Err(error) => {
                self.give_up(lock, sink);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Says that everything from `size` on is no lower content any more.
    pub(crate) fn claim_rest(lock: &ContentLock<'_>, sink: &mut Sink<'_>, size: u64) {
        let rest = Range {
            start: size,
            end: u64::MAX,
        };
        if let Some(saying) = &mut sink.mixed
            && !with_ranges(lock, saying, |own| own.covers(rest))
        {
            saying.rest = Some(size);
        }
    }

    /// Where the content is once the change counts that `sink` was changed for, and what is to be said
    /// of it.
    pub(crate) fn outcome(lock: &ContentLock<'_>, sink: &Sink<'_>) -> (ContentSource, Vec<Range>) {
        let Some(saying) = &sink.mixed else {
            return (ContentSource::Data, Vec::new());
        };
        let said = saying.ranges();
        let state = lock.inode.state.read();
        let whole = match &state.own {
            Some(own) => own.is_whole_with(&said),
            None => Ranges::default().is_whole_with(&said),
        };
        if whole {
            (ContentSource::Data, Vec::new())
        } else {
            (ContentSource::Mixed, said)
        }
    }

    /// Puts the bytes from `start` to `end` of the lower content into the data file `to`, whatever is
    /// there: holes as holes, and inside the kernel where there is a host file `from` to copy.
    pub(crate) fn copy_lower(
        &self,
        inode: &Inode,
        start: u64,
        end: u64,
        to: &File,
        from: Option<&File>,
    ) -> Result<(), Error> {
        let ino = inode.ino;
        if end.saturating_sub(start) < WORTH_A_HOLE {
            return self.copy_bytes(inode, start, to, start, end.saturating_sub(start), &mut 0);
        }
        let mut at = start;
        while at < end {
            let data = self.lower.seek(ino, at, true)?;
            let data = data.map_or(end, |data| data.clamp(at, end));
            clear(self.host(), to, at, data - at).map_err(host(ino, "clear"))?;
            if data == end {
                break;
            }
            let hole = self.lower.seek(ino, data, false)?.unwrap_or(end).min(end);
            if hole <= data {
                return Err(Error::damaged(format!(
                    "inode {ino} has a hole inside its data"
                )));
            }
            let mut done = data;
            if let Some(from) = from {
                done += self.copy_in_kernel(from, data, to, data, hole - data);
            }
            self.copy_bytes(inode, done, to, done, hole - done, &mut 0)?;
            at = hole;
        }
        Ok(())
    }

    /// Fills `buf` with the bytes of `pieces`, which lie end to end; gives how many.
    pub(crate) fn read_pieces(
        &self,
        ino: Ino,
        pieces: &[Piece],
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        let file = match pieces.iter().any(|piece| piece.own) {
            true => Some(self.upper()?.data(ino)?),
            false => None,
        };
        let mut done = 0usize;
        for piece in pieces {
            let length = usize::try_from(piece.end - piece.start).unwrap_or(usize::MAX);
            let to = done..done.saturating_add(length).min(buf.len());
            let Some(part) = buf.get_mut(to) else { break };
            let got = match &file {
                Some(file) if piece.own => {
                    read_full(file, part, piece.start).map_err(host(ino, "read"))?
                }
                _ => self.lower.read(ino, piece.start, part)?,
            };
            done += part.len();
            part.iter_mut().skip(got).for_each(|byte| *byte = 0);
        }
        Ok(done)
    }

    /// The first data or hole of mixed content between `offset` and `size`.
    pub(crate) fn seek_mixed(
        &self,
        inode: &Inode,
        offset: u64,
        size: u64,
        data: bool,
    ) -> Result<Option<u64>, Error> {
        let ino = inode.ino;
        let file = self.upper()?.data(ino)?;
        let mut at = offset;
        while at < size {
            // One at a time: there may be thousands, and the next is most often the last to ask for.
            let piece = match &inode.state.read().own {
                Some(own) => own.piece(at, size),
                // It has just become whole.
                None => Piece {
                    start: at,
                    end: size,
                    own: true,
                },
            };
            let found = if piece.own {
                seek_in(&file, at, data).map_err(host(ino, "seek"))?
            } else {
                self.lower.seek(ino, at, data)?
            };
            // Past the end of either file everything is hole.
            let found = found.or((!data).then_some(at));
            if let Some(found) = found.filter(|found| *found < piece.end) {
                return Ok(Some(found.max(at)));
            }
            at = piece.end;
        }
        Ok(None)
    }

    /// 512-byte blocks of what is still the lower tree's: no more than the lower file has.
    pub(crate) fn blocks_left(&self, inode: &Inode) -> Result<u64, Error> {
        let left = match &inode.state.read().own {
            Some(own) => own.left(),
            None => return Ok(0),
        };
        Ok(self.lower.attr(inode.ino)?.blocks.min(left.div_ceil(512)))
    }
}

/// What is in the data file of a locked inode once the change counts that `saying` belongs to.
fn with_ranges<T>(lock: &ContentLock<'_>, saying: &Saying, ask: impl FnOnce(&Ranges) -> T) -> T {
    match &lock.inode.state.read().own {
        Some(own) => ask(own),
        None => {
            let mut own = Ranges::default();
            saying.ranges().into_iter().for_each(|r| own.insert(r));
            ask(&own)
        }
    }
}
