//! What the fuzz targets and the maker of their seeds share.
//!
//! Arbitrary bytes rarely get past a checksum. So a target takes its input in one of two ways, told
//! by the first byte: as the file it is, or as a short form of one ([`forge_tree`], [`forge_log`],
//! [`forge_tar`]) in which everything that must be right to be looked at at all is put right.

mod log;
mod tar;
mod tour;
mod tree;

pub use self::{
    log::{Disguise, IDENTITY, forge_log, shorten_log},
    tar::{forge_tar, shorten_tar},
    tour::tour,
    tree::{forge_tree, shorten_tree},
};

/// A directory in memory, gone when dropped: runs leave nothing and wait for no disk.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a temporary directory")
}

/// Makes `bytes` the longest that a file of this process can be, so that no input fills the
/// machine's memory through a file there: what would be longer is EFBIG.
pub fn limit_files(bytes: u64) {
    let limit = rustix::process::Rlimit {
        current: Some(bytes),
        maximum: None,
    };
    // A handler, of whatever kind, keeps the signal from ending the process, and libFuzzer from
    // taking it for a finding.
    let unheard = std::sync::Arc::default();
    if signal_hook::flag::register(libc::SIGXFSZ, unheard).is_ok() {
        // Refused: the run is only less careful.
        let _ = rustix::process::setrlimit(rustix::process::Resource::Fsize, limit);
    }
}
