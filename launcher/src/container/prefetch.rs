//! Asking for a program's first pages before it is executed.
//!
//! A page that is touched for the first time costs a message to the supervisor, and a dynamically
//! linked program touches some twenty stretches of itself, its loader and the C library before its
//! first line, each waited for, after a look-up of each name that leads to them. Asked for ahead by a
//! thread of its own, they come while the process gets its mounts, user, capabilities and filters.
//! `execve` ends the thread, wherever it is.
//!
//! Only a hint: whatever is not as expected here is left to `execve`, which says what is wrong.

use std::{
    fs::{self, File},
    num::NonZeroU64,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use rustix::fs::{Advice, Mode, OFlags, fadvise};

use super::cpus;

/// What is asked for of one file at most, bytes: glibc's whole C library. Of a larger file most is not
/// needed at first.
const BYTES_MAX: u64 = 2 << 20;

/// Bytes asked for at once: of more, the kernel takes no notice (`force_page_cache_ra`).
const PIECE: u64 = 128 << 10;

/// What the thread needs, bytes, with a page of a program and paths of 4096 bytes on it.
const STACK: usize = 128 << 10;

/// Begins to ask for the pages of the first program of `candidates` that is there. `None` where there
/// is no thread to be had.
pub(super) fn begin(candidates: Vec<PathBuf>) -> Option<JoinHandle<()>> {
    let thread = thread::Builder::new().stack_size(STACK);
    let ask = move || {
        // Where the process that is to execute it is busy with other things, nothing would come ahead.
        cpus::step_aside();
        program(candidates.iter().map(PathBuf::as_path));
    };
    thread.spawn(ask).ok()
}

/// Asks for the pages of the first program of `candidates` that is there, of its loader, and of the
/// C library beside that.
fn program<'a>(candidates: impl IntoIterator<Item = &'a Path>) {
    let Some(program) = candidates.into_iter().find_map(ask_for) else {
        return;
    };
    let Some(loader) = loader(&program) else {
        return;
    };
    let _ = ask_for(&loader);
    // What glibc's loader looks for before the first library (ld.so(8)).
    let _ = fs::symlink_metadata("/etc/ld.so.preload");
    let _ = ask_for(Path::new("/etc/ld.so.cache"));
    // By its own path: what a program names is usually a link to it.
    if let Ok(real) = fs::canonicalize(&loader)
        && let Some(dir) = real.parent()
    {
        let _ = ask_for(&dir.join("libc.so.6"));
    }
}

fn ask_for(path: &Path) -> Option<File> {
    // Whatever lies there: a FIFO would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let meta = file.metadata().ok().filter(fs::Metadata::is_file)?;
    let mut at = 0;
    while at < meta.len().min(BYTES_MAX) {
        let _ = fadvise(&file, at, NonZeroU64::new(PIECE), Advice::WillNeed);
        at = at.saturating_add(PIECE);
    }
    Some(file)
}

/// The loader that a 64-bit ELF file of this machine's byte order names (elf(5), `PT_INTERP`).
fn loader(file: &File) -> Option<PathBuf> {
    const PT_INTERP: u32 = 3;
    const SEGMENT: usize = 56;

    let mut start = [0; 4096];
    let got = file.read_at(&mut start, 0).ok()?;
    let start = start.get(..got)?;
    if !start.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let segments = usize::try_from(u64_at(start, 32)?).ok()?;
    let count = u16::from_ne_bytes(bytes_at(start, 56)?);
    for n in 0..usize::from(count) {
        let at = segments.checked_add(n.checked_mul(SEGMENT)?)?;
        if u32::from_ne_bytes(bytes_at(start, at)?) == PT_INTERP {
            let from = usize::try_from(u64_at(start, at.checked_add(8)?)?).ok()?;
            let size = usize::try_from(u64_at(start, at.checked_add(32)?)?).ok()?;
            let name = start.get(from..from.checked_add(size)?)?;
            let name = name.strip_suffix(b"\0").unwrap_or(name);
            return Some(PathBuf::from(std::str::from_utf8(name).ok()?));
        }
    }
    None
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_ne_bytes)
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_of_a_program_is_found_and_of_a_script_there_is_none() {
        let program = File::open(std::env::current_exe().expect("path")).expect("open");
        let found = loader(&program).expect("a loader");
        assert!(found.is_file(), "{}", found.display());
        assert_eq!(loader(&File::open("/etc/passwd").expect("open")), None);
    }

    #[test]
    fn hostile_headers_have_no_loader() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("elf");
        for (segments, count) in [(u64::MAX, 1), (64, u16::MAX), (u64::MAX - 8, 2)] {
            let mut bytes = vec![0_u8; 200];
            bytes[..5].copy_from_slice(b"\x7fELF\x02");
            bytes[32..40].copy_from_slice(&segments.to_ne_bytes());
            bytes[56..58].copy_from_slice(&count.to_ne_bytes());
            bytes[64..68].copy_from_slice(&3_u32.to_ne_bytes());
            bytes[72..80].copy_from_slice(&u64::MAX.to_ne_bytes());
            bytes[96..104].copy_from_slice(&u64::MAX.to_ne_bytes());
            fs::write(&path, &bytes).expect("write");
            assert_eq!(loader(&File::open(&path).expect("open")), None);
        }
    }
}
