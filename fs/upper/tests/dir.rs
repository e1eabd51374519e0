//! What a dir upper refuses, and that nothing is changed then. For root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{fs, path::PathBuf, sync::Arc};

use pellicle_layer::{HostOptions, HostStack};
use pellicle_upper::{DirOptions, DirUpper, UpperError};

struct Dirs(tempfile::TempDir);

impl Dirs {
    fn new() -> Self {
        // Not in /tmp: where that is a tmpfs it may lack user attributes.
        let dirs = Self(tempfile::tempdir_in("/var/tmp").unwrap());
        for name in ["lower", "upper", "work", "other"] {
            fs::create_dir(dirs.at(name)).unwrap();
        }
        dirs
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self, upper: &str, work: &str) -> Result<DirUpper, UpperError> {
        let lower = HostStack::open(&[self.at("lower")], &HostOptions::default()).unwrap();
        let options = DirOptions::default();
        DirUpper::open(&self.at(upper), &self.at(work), Arc::new(lower), &options)
    }

    fn names(&self, name: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.at(name)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

#[test]
fn a_second_mount_is_refused_and_told_who_has_the_first() {
    let dirs = Dirs::new();
    let first = dirs.open("upper", "work").unwrap();
    for (upper, work) in [("upper", "work"), ("upper", "other"), ("other", "work")] {
        match dirs.open(upper, work).unwrap_err() {
            UpperError::InUse { holder, .. } => assert_eq!(holder, Some(std::process::id())),
            other => panic!("{other}"),
        }
    }
    drop(first);
    dirs.open("upper", "work").unwrap();
}

#[test]
fn directories_inside_each_other_are_refused() {
    let dirs = Dirs::new();
    fs::create_dir(dirs.at("upper/in")).unwrap();
    for (upper, work) in [("upper", "upper/in"), ("upper/in", "upper")] {
        let error = dirs.open(upper, work).unwrap_err();
        assert!(matches!(error, UpperError::Unsuitable { .. }), "{error}");
    }
    assert!(dirs.names("upper/in").is_empty(), "nothing was changed");
}

#[test]
fn a_workdir_on_another_file_system_is_refused() {
    let dirs = Dirs::new();
    let lower = HostStack::open(&[dirs.at("lower")], &HostOptions::default()).unwrap();
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = DirOptions::default();
    let error = DirUpper::open(&dirs.at("upper"), other.path(), Arc::new(lower), &options);
    let error = error.unwrap_err();
    assert!(matches!(error, UpperError::Unsuitable { .. }), "{error}");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
}

#[test]
fn a_volatile_mount_that_did_not_end_well_is_refused() {
    let dirs = Dirs::new();
    fs::create_dir_all(dirs.at("work/work/incompat/volatile")).unwrap();
    let error = dirs.open("upper", "work").unwrap_err();
    assert!(error.to_string().contains("incompat"), "{error}");
    assert!(dirs.at("work/work/incompat/volatile").exists());
}

#[test]
fn what_an_earlier_mount_left_in_the_work_directory_is_removed() {
    let dirs = Dirs::new();
    fs::create_dir_all(dirs.at("work/work/#9/deep")).unwrap();
    fs::write(dirs.at("work/work/#9/deep/f"), "left").unwrap();
    fs::write(dirs.at("work/work/#8.data"), "left").unwrap();
    drop(dirs.open("upper", "work").unwrap());
    assert!(dirs.names("work/work").is_empty());
}
