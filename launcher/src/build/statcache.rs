//! Digests of the context's files, so that a file that did not change is not read again.
//!
//! `builds/contexts/<digest of the context's path>` has, for each file, what `stat(2)` told of it and the
//! digest of its bytes. A file whose times are hardly older than the reading is not noted: it could
//! change once more without its times telling. Times of change (ctime) cannot be set by a program, so a
//! file that keeps all of what is compared keeps its bytes.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::Read as _,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use pellicle_store::{Digest, Time};

use super::cache;

/// Largest file of notes read.
const FILE_MAX: u64 = 256 << 20;
/// First line of the file: notes of another version are not read.
const VERSION: &str = "pellicle context 1";
/// A file that changed so few seconds ago is read again the next time.
const TOO_YOUNG: i64 = 2;
/// Smaller files are read as fast as they are looked up.
const SIZE_MIN: u64 = 16 << 10;

/// What is compared: size, inode, device, and times in nanoseconds.
type Looks = [u128; 5];

/// The notes of one context.
#[derive(Debug)]
pub(super) struct StatCache {
    file: PathBuf,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    before: BTreeMap<Vec<u8>, (Looks, Digest)>,
    now: BTreeMap<Vec<u8>, (Looks, Digest)>,
    changed: bool,
}

impl StatCache {
    /// The notes of the context at `path`, in the store at `root`; none if they cannot be read.
    pub(super) fn open(root: &Path, path: &Path) -> Self {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = Digest::of(real.as_os_str().as_bytes()).hex();
        let file = cache::dir(root).join("contexts").join(name);
        let notes = Notes {
            before: read(&file).unwrap_or_default(),
            ..Notes::default()
        };
        Self {
            file,
            notes: Mutex::new(notes),
        }
    }

    /// The digest of the file at `path`, if it is what it was.
    pub(super) fn find(&self, path: &Path, meta: &Metadata) -> Option<Digest> {
        let name = path.as_os_str().as_bytes();
        let mut notes = self.notes.lock();
        let (looks, digest) = *notes.now.get(name).or_else(|| notes.before.get(name))?;
        if looks != looks_of(meta)? {
            return None;
        }
        notes.now.insert(name.to_vec(), (looks, digest));
        Some(digest)
    }

    /// Notes the digest of the file at `path`, which had these looks before it was read.
    pub(super) fn note(&self, path: &Path, meta: &Metadata, digest: Digest) {
        let now = Time::now().sec;
        if meta.len() < SIZE_MIN || meta.ctime().max(meta.mtime()) + TOO_YOUNG > now {
            return;
        }
        if let Some(looks) = looks_of(meta) {
            let mut notes = self.notes.lock();
            notes.changed = true;
            let name = path.as_os_str().as_bytes().to_vec();
            notes.now.insert(name, (looks, digest));
        }
    }

    /// Keeps the notes for the next build; files that this one did not look at are left out.
    pub(super) fn save(&self) {
        let notes = self.notes.lock();
        if !notes.changed {
            return;
        }
        let mut text = format!("{VERSION}\n");
        for (name, (looks, digest)) in &notes.now {
            let looks: Vec<String> = looks.iter().map(u128::to_string).collect();
            text.push_str(&format!(
                "{} {} {}\n",
                hex::encode(name),
                looks.join(" "),
                digest.hex()
            ));
        }
        let saved = || -> std::io::Result<()> {
            let dir = self.file.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(dir)?;
            let new = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
            fs::write(new.path(), text)?;
            new.persist(&self.file)?;
            Ok(())
        };
        if let Err(error) = saved() {
            tracing::debug!(%error, "cannot note what the context looks like");
        }
    }
}

fn looks_of(meta: &Metadata) -> Option<Looks> {
    let time = |sec: i64, nsec: i64| {
        let sec = u128::try_from(sec).ok()?;
        Some(sec * 1_000_000_000 + u128::try_from(nsec).ok()?)
    };
    Some([
        meta.len().into(),
        meta.ino().into(),
        meta.dev().into(),
        time(meta.mtime(), meta.mtime_nsec())?,
        time(meta.ctime(), meta.ctime_nsec())?,
    ])
}

/// A file of ours; `None` if it is missing, torn or of another version.
fn read(file: &Path) -> Option<BTreeMap<Vec<u8>, (Looks, Digest)>> {
    let mut text = String::new();
    let file = File::open(file).ok()?;
    file.take(FILE_MAX).read_to_string(&mut text).ok()?;
    let mut lines = text.lines();
    if lines.next()? != VERSION {
        return None;
    }
    let mut notes = BTreeMap::new();
    for line in lines {
        let mut words = line.split(' ');
        let name = hex::decode(words.next()?).ok()?;
        let mut looks = Looks::default();
        for one in &mut looks {
            *one = words.next()?.parse().ok()?;
        }
        let digest = format!("sha256:{}", words.next()?).parse().ok()?;
        notes.insert(name, (looks, digest));
    }
    Some(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_did_not_change_is_known_and_any_other_is_not() {
        let root = tempfile::tempdir().unwrap();
        let context = tempfile::tempdir().unwrap();
        let path = context.path().join("f");
        fs::write(&path, vec![1; 20_000]).unwrap();
        let name = Path::new("f");
        let digest = Digest::of(b"whatever");
        let cache = || StatCache::open(root.path(), context.path());
        let first = cache();
        first.note(name, &fs::metadata(&path).unwrap(), digest);
        first.save();
        let meta = fs::metadata(&path).unwrap();
        assert!(cache().find(name, &meta).is_none(), "it is too young");
        std::thread::sleep(std::time::Duration::from_millis(3100));
        let second = cache();
        second.note(name, &meta, digest);
        second.save();
        assert_eq!(cache().find(name, &meta), Some(digest));
        // The same size and time of modification, but other bytes.
        let time = meta.modified().unwrap();
        fs::write(&path, vec![2; 20_000]).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(time)
            .unwrap();
        assert!(cache().find(name, &fs::metadata(&path).unwrap()).is_none());
        fs::write(&second.file, format!("{VERSION}\nzz")).unwrap();
        assert!(cache().find(name, &meta).is_none(), "torn");
    }
}
