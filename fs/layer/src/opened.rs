//! Files that are kept open for reading, within a bound.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroUsize,
    sync::Arc,
};

use lru::LruCache;
use parking_lot::Mutex;

/// Parts of the table: as many as threads are likely to meet there.
const PARTS: usize = 16;

/// Never more open files than this, however many the host allows.
const OPEN_MAX: u64 = 4096;

/// The files used last. Split by key; no lock is held while a file is opened or read.
pub(crate) struct Opened<K: Hash + Eq> {
    parts: [Mutex<LruCache<K, Arc<File>>>; PARTS],
}

impl<K: Hash + Eq + Copy> Opened<K> {
    /// Keeps about `limit` files open at most (16 at least).
    pub(crate) fn new(limit: usize) -> Self {
        let part = NonZeroUsize::new(limit / PARTS).unwrap_or(NonZeroUsize::MIN);
        Self {
            parts: std::array::from_fn(|_| Mutex::new(LruCache::new(part))),
        }
    }

    fn part(&self, key: &K) -> Option<&Mutex<LruCache<K, Arc<File>>>> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.parts.get((hasher.finish() % PARTS as u64) as usize)
    }

    /// The file, if it is open.
    pub(crate) fn get(&self, key: &K) -> Option<Arc<File>> {
        self.part(key)?.lock().get(key).cloned()
    }

    /// Keeps `file` open.
    pub(crate) fn put(&self, key: K, file: &Arc<File>) {
        // Dropped after the lock: closing a file may take its time.
        let _old = self
            .part(&key)
            .and_then(|part| part.lock().push(key, Arc::clone(file)));
    }
}

/// How many files may be kept open: a quarter of what this process may have open at all.
pub(crate) fn open_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from((limit.unwrap_or(OPEN_MAX) / 4).min(OPEN_MAX)).unwrap_or(PARTS)
}
