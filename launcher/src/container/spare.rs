//! Directories of containers that are gone, for those to come.
//!
//! A short container makes and removes three directories and little else. On a file system that tells the disk
//! of each block it frees, and waits for it, that can take longer than all the rest of its life.

use std::{fs, path::Path, path::PathBuf};

use pellicle_upper::Journal;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::registry::UPPER;

/// How many are kept: as many as begin at the same time, at most.
const MOST: usize = 4;

fn places(containers: &Path) -> impl Iterator<Item = PathBuf> {
    (0..MOST).map(move |n| containers.join(format!(".spare-{n}")))
}

/// Makes `new` of one that was kept in `containers`; whether there was one. It has an empty upper's
/// directories in it: whatever else has the name of one goes.
pub(super) fn take(containers: &Path, new: &Path) -> bool {
    places(containers).any(|place| {
        let taken = fs::rename(place, new).is_ok();
        if taken && !is_spare(new) {
            discard(new);
            return false;
        }
        taken
    })
}

/// Whether `dir` and an upper's directories in it are directories, not links out of the store.
fn is_spare(dir: &Path) -> bool {
    let upper = dir.join(UPPER);
    is_directory(dir)
        && is_directory(&upper)
        && is_directory(&Journal::data_dir(&upper))
        && fs::read_dir(dir).is_ok_and(|entries| entries.count() == 1)
        && fs::read_dir(upper).is_ok_and(|entries| entries.count() == 1)
}

/// Whether there is a directory, and no link to one.
pub(super) fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// Removes whatever has that name, following no link.
pub(super) fn discard(path: &Path) {
    let _ = if is_directory(path) {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
}

/// Empties the container directory `gone` and keeps it in `containers`; whether it did. If not, it is to be
/// removed with what is left in it.
pub(super) fn keep(containers: &Path, gone: &Path) -> bool {
    let Some(place) = places(containers).find(|place| !place.exists()) else {
        return false;
    };
    empty(gone).is_some() && renameat_with(CWD, gone, CWD, place, RenameFlags::NOREPLACE).is_ok()
}

/// `None` if there is more in it than a short container leaves.
fn empty(gone: &Path) -> Option<()> {
    let upper = gone.join(UPPER);
    let own = [gone, &upper, &Journal::data_dir(&upper)];
    if !own.into_iter().all(is_directory) {
        return None;
    }
    let cleared = Journal::clear_out(&upper).ok()?;
    for entry in fs::read_dir(gone).ok()?.take_while(|_| cleared) {
        let entry = entry.ok()?;
        if entry.file_name() != UPPER {
            fs::remove_file(entry.path()).ok()?;
        }
    }
    cleared.then_some(())
}

#[cfg(test)]
mod tests {
    use pellicle_upper::{JournalLower, JournalOptions};

    use super::*;

    const LOWER: JournalLower = JournalLower {
        identity: [1; 32],
        inode_count: 1,
    };

    fn used(dir: &Path) -> Journal {
        fs::create_dir(dir).expect("make");
        fs::write(dir.join("lock"), "0").expect("write");
        let options = JournalOptions {
            volatile: true,
            ..JournalOptions::default()
        };
        Journal::create(&dir.join(UPPER), LOWER, options).expect("journal")
    }

    #[test]
    fn what_was_kept_is_taken_once_and_has_an_uppers_directories_alone() {
        let top = tempfile::tempdir().expect("dir");
        let (gone, new) = (top.path().join(".gone-1"), top.path().join(".new-2"));
        drop(used(&gone));
        assert!(!take(top.path(), &new));
        assert!(keep(top.path(), &gone));
        assert!(!gone.exists());
        assert!(take(top.path(), &new));
        assert!(!take(top.path(), &new));
        let names = |dir: &Path| -> Vec<_> {
            let entries = fs::read_dir(dir).expect("list");
            entries.map(|e| e.expect("entry").file_name()).collect()
        };
        assert_eq!(names(&new), [UPPER]);
        assert_eq!(names(&new.join(UPPER)), ["data"]);
        Journal::create(&new.join(UPPER), LOWER, JournalOptions::default()).expect("journal");
    }

    #[test]
    fn one_with_content_or_with_directories_of_its_own_is_not_kept() {
        let top = tempfile::tempdir().expect("dir");
        let gone = top.path().join(".gone-1");
        drop(used(&gone));
        let data = gone.join(UPPER).join("data");
        fs::write(data.join(format!("{:016x}", 12)), "x").expect("write");
        assert!(!keep(top.path(), &gone));
        assert!(gone.join(UPPER).join("journal").exists(), "nothing changed");
        fs::remove_dir_all(&gone).expect("remove");
        drop(used(&gone));
        fs::create_dir(gone.join("more")).expect("make");
        assert!(!keep(top.path(), &gone));
    }

    #[test]
    fn what_has_the_name_of_one_goes_and_no_link_is_followed() {
        use std::os::unix::fs::symlink;

        let top = tempfile::tempdir().expect("dir");
        let outside = top.path().join("outside");
        fs::create_dir_all(outside.join(UPPER).join("data")).expect("make");
        fs::write(outside.join("keep"), "x").expect("write");
        let (place, new) = (top.path().join(".spare-0"), top.path().join(".new-1"));
        let makes: [(&str, &dyn Fn()); 5] = [
            ("a file", &|| fs::write(&place, "x").expect("write")),
            ("a link", &|| symlink(&outside, &place).expect("link")),
            ("a link to nothing", &|| {
                symlink("no", &place).expect("link")
            }),
            ("a link in it", &|| {
                fs::create_dir(&place).expect("make");
                symlink(outside.join(UPPER), place.join(UPPER)).expect("link");
            }),
            ("more in it", &|| {
                fs::create_dir_all(place.join(UPPER).join("data")).expect("make");
                fs::write(place.join("lock"), "x").expect("write");
            }),
        ];
        for (what, make) in makes {
            make();
            assert!(!take(top.path(), &new), "{what}");
            assert!(fs::symlink_metadata(&new).is_err(), "{what} is left");
            assert!(fs::symlink_metadata(&place).is_err(), "{what} is left");
        }
        let gone = top.path().join(".gone-1");
        symlink(&outside, &gone).expect("link");
        assert!(!keep(top.path(), &gone));
        discard(&gone);
        fs::create_dir(&gone).expect("make");
        symlink(outside.join(UPPER), gone.join(UPPER)).expect("link");
        assert!(!keep(top.path(), &gone));
        discard(&gone);
        assert!(outside.join("keep").exists());
        assert!(outside.join(UPPER).join("data").is_dir());
    }

    #[test]
    fn a_few_are_kept_and_no_more() {
        let top = tempfile::tempdir().expect("dir");
        for n in 0..=MOST {
            let gone = top.path().join(format!(".gone-{n}"));
            drop(used(&gone));
            assert_eq!(keep(top.path(), &gone), n < MOST);
        }
    }
}
