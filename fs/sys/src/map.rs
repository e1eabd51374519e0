//! Read-only mappings of files that do not change.

use std::{fs::File, io, ops::Deref};

/// A whole file, mapped read-only; pages come in when they are touched.
#[derive(Debug)]
pub struct Map(memmap2::Mmap);

impl Map {
    /// Maps `file` as long as it is now.
    ///
    /// Only for files that are never written again once they have their name, as those of a store:
    /// they are made under another name, put in place by a rename, and from then on only unlinked,
    /// which leaves a mapping whole. What remains: someone who may write to the store can cut off
    /// a mapped file, and touching it past its end then kills this process with SIGBUS (as with
    /// any program or library they may write to); changed bytes only give wrong bytes, which
    /// whoever reads must expect anyway.
    ///
    /// # Errors
    /// The host's.
    pub fn of(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is private and read-only, and the file is one that is not written
        // any more (see above). Its readers take the bytes for untrusted: they hold no reference
        // of a type for which some bytes are invalid.
        unsafe { memmap2::Mmap::map(file) }.map(Self)
    }

    /// Takes the pages out of this process's memory. They stay in the host's page cache, and come
    /// back when they are touched.
    ///
    /// # Errors
    /// The host's; nothing has changed then.
    pub fn release(&self) -> io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        // SAFETY: the mapping is of a file and is never written to, so a page that is dropped
        // comes back from the file with the same bytes, for whoever holds a slice of it too.
        unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) }
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_mapping_shows_the_file_and_outlives_its_name() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"content").unwrap();
        let map = Map::of(file.as_file()).unwrap();
        file.close().unwrap();
        assert_eq!(&*map, b"content");
        map.release().unwrap();
        assert_eq!(&*map, b"content");
    }

    #[test]
    fn an_empty_file_maps_to_no_bytes() {
        let map = Map::of(&tempfile::tempfile().unwrap()).unwrap();
        assert!(map.is_empty());
        map.release().unwrap();
    }
}
