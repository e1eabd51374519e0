//! Opening: what the host can do, who holds the directories, and what an earlier mount left.

use std::{
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use lru::LruCache;
use parking_lot::Mutex;
use pellicle_layer::{Lower, host::marks::OVERRIDE_STAT};
use rustix::{
    fs::{AtFlags, FlockOperation, Gid, OFlags, RenameFlags, StatVfsMountFlags, Uid},
    io::Errno,
};

use super::{
    DirUpper, OPEN_MAX,
    host::{At, Rights, error, open_dir},
    names::LowerNames,
    state::State,
};
use crate::UpperError;

/// Where kernel overlayfs would look for marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Privilege {
    /// `trusted.overlay.` where this process may write it, else `user.overlay.`.
    #[default]
    Auto,
    /// `trusted.overlay.`: a mount without `userxattr`.
    Trusted,
    /// `user.overlay.`: a mount with `userxattr`.
    User,
}

/// Where owners, modes and devices are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// As the upper directory has it; in a new one, with the host where this process may give
    /// files away.
    #[default]
    Auto,
    /// The host files have them.
    Host,
    /// In `user.containers.override_stat`.
    OverrideStat,
}

/// How a dir upper is opened.
#[derive(Clone, Debug, Default)]
pub struct DirOptions {
    /// Where marks go.
    pub privilege: Privilege,
    /// Where owners go.
    pub owners: Owners,
    /// Whether a lower directory may be moved by a redirect. `None`: with [`Privilege::Trusted`],
    /// as the kernel follows none that an unprivileged user could have written.
    pub redirects: Option<bool>,
    /// Flush nothing: a crash of the host may lose anything.
    pub volatile: bool,
}

/// Held for as long as it lives; released however the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _upper: OwnedFd,
    _work: OwnedFd,
}

fn unsuitable(path: &Path, detail: impl Into<String>) -> UpperError {
    UpperError::Unsuitable {
        path: path.to_owned(),
        detail: detail.into(),
    }
}

fn take(path: &Path) -> Result<OwnedFd, UpperError> {
    let dir = open_dir(path)?;
    match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(dir),
        Err(Errno::WOULDBLOCK) => Err(UpperError::InUse {
            path: path.to_owned(),
            holder: holder(&dir),
        }),
        Err(e) => Err(error("lock", path.to_owned(), e)),
    }
}

/// Who has `dir` locked, as proc(5) tells in `/proc/locks`.
fn holder(dir: &OwnedFd) -> Option<u32> {
    let stat = rustix::fs::fstat(dir).ok()?;
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let wanted = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "FLOCK")?;
        let found = words.get(at + 4)? == &wanted;
        found.then(|| words.get(at + 3)?.parse().ok()).flatten()
    })
}

const OVERLAYFS: i64 = 0x794c_7630;
const FUSE: i64 = 0x6573_5546;

fn check_file_system(path: &Path, dir: &OwnedFd) -> Result<(), UpperError> {
    let stat = rustix::fs::fstatfs(dir).map_err(|e| error("stat", path.to_owned(), e))?;
    #[allow(
        clippy::unnecessary_cast,
        reason = "the type is another one on other machines"
    )]
    match stat.f_type as i64 {
        OVERLAYFS => {
            return Err(unsuitable(
                path,
                "it is on an overlay file system, which keeps no whiteouts; choose another one",
            ));
        }
        FUSE => {
            return Err(unsuitable(
                path,
                "it is on a FUSE file system, which does not keep all that is needed; choose another one",
            ));
        }
        _ => {}
    }
    let vfs = rustix::fs::fstatvfs(dir).map_err(|e| error("stat", path.to_owned(), e))?;
    if vfs.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(error("write to", path.to_owned(), Errno::ROFS));
    }
    Ok(())
}

fn check_apart(upper: &Path, work: &Path) -> Result<(), UpperError> {
    let full = |path: &Path| {
        path.canonicalize().map_err(|source| UpperError::Io {
            doing: "find",
            path: path.to_owned(),
            source,
        })
    };
    let (full_upper, full_work) = (full(upper)?, full(work)?);
    if full_upper.starts_with(&full_work) || full_work.starts_with(&full_upper) {
        return Err(unsuitable(
            work,
            format!(
                "workdir and upperdir ({}) must be apart, neither inside the other",
                upper.display()
            ),
        ));
    }
    Ok(())
}

impl DirUpper {
    /// Opens `upper` with work directory `work` over `lower`.
    ///
    /// What an earlier mount left unfinished in the work directory is removed. Nothing is changed
    /// where this fails.
    ///
    /// # Errors
    /// [`UpperError::InUse`] names who has one of the directories; [`UpperError::Unsuitable`] and
    /// [`UpperError::Io`] say what the host cannot do.
    pub fn open(
        upper: &Path,
        work: &Path,
        lower: Arc<dyn Lower>,
        options: &DirOptions,
    ) -> Result<Self, UpperError> {
        let upper_lock = take(upper)?;
        check_apart(upper, work)?;
        let work_lock = take(work)?;
        check_file_system(upper, &upper_lock)?;
        check_file_system(work, &work_lock)?;
        let dev = |fd: &OwnedFd, path: &Path| {
            let stat = rustix::fs::fstat(fd);
            stat.map(|stat| stat.st_dev)
                .map_err(|e| error("stat", path.to_owned(), e))
        };
        if dev(&upper_lock, upper)? != dev(&work_lock, work)? {
            return Err(unsuitable(
                work,
                format!(
                    "workdir must be on the file system of upperdir, {}",
                    upper.display()
                ),
            ));
        }
        let root = Arc::new(open_dir(upper)?);
        let in_work = work.join("work");
        let in_work_at = At::new(&Arc::new(open_dir(work)?), b"work");
        if in_work.join("incompat").exists() {
            return Err(unsuitable(
                work,
                "it was used by a volatile mount that did not end well, so upperdir may have holes; remove workdir and upperdir, or only workdir/work/incompat to take the risk",
            ));
        }
        match in_work_at.open(OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => in_work_at.mkdir()?,
            Err(e) => return Err(error("open", in_work, e)),
            Ok(_) => in_work_at.empty()?,
        }
        let work_fd = Arc::new(open_dir(&in_work)?);
        let rights = probe(upper, &root, &work_fd, options)?;
        let mut tag = [0; 8];
        for (to, from) in tag.iter_mut().zip(lower.identity()) {
            *to = from;
        }
        Ok(Self {
            lower,
            lower_names: LowerNames::default(),
            path: upper.to_owned(),
            root,
            work: work_fd,
            rights,
            redirects: options.redirects.unwrap_or(rights.trusted),
            volatile: options.volatile,
            tag,
            state: Mutex::new(State {
                inodes: std::collections::HashMap::new(),
                staged: std::collections::HashMap::new(),
                gone: std::collections::HashSet::new(),
                dirs: LruCache::new(OPEN_MAX),
                files: LruCache::new(OPEN_MAX),
                dirty: std::collections::HashSet::new(),
                capabilities: std::collections::HashMap::new(),
                reserved: 0,
                temporaries: 0,
            }),
            poisoned: AtomicBool::new(false),
            _lock: Lock {
                _upper: upper_lock,
                _work: work_lock,
            },
        })
    }

    /// The upper directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Tries out on a file in the work directory what the format needs.
fn probe(
    upper: &Path,
    root: &Arc<OwnedFd>,
    work: &Arc<OwnedFd>,
    options: &DirOptions,
) -> Result<Rights, UpperError> {
    let (file, moved) = (At::new(work, b"#probe"), At::new(work, b"#moved"));
    let done = probe_with(upper, root, (&file, &moved), options);
    let _ = file.unlink();
    let _ = moved.unlink();
    done
}

fn probe_with(
    upper: &Path,
    root: &Arc<OwnedFd>,
    (file, moved): (&At, &At),
    options: &DirOptions,
) -> Result<Rights, UpperError> {
    drop(file.create()?);
    let may = |name: &[u8]| match file.set_xattr(name, b"y") {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(error("set an attribute in", upper.to_owned(), e)),
    };
    let trusted = match options.privilege {
        Privilege::User => false,
        Privilege::Auto | Privilege::Trusted => may(b"trusted.overlay.opaque")?,
    };
    if !trusted && options.privilege == Privilege::Trusted {
        return Err(unsuitable(
            upper,
            "this process may not write trusted.overlay attributes there; mount with userxattr",
        ));
    }
    if !trusted && !may(b"user.overlay.opaque")? {
        return Err(unsuitable(
            upper,
            "its file system keeps no extended attributes, which whiteouts and opaque marks need; choose another one",
        ));
    }
    file.rename_to(moved, RenameFlags::WHITEOUT)
        .and_then(|()| moved.rename_to(file, RenameFlags::EXCHANGE))
        .map_err(|e| {
            unsuitable(
                upper,
                format!("its file system makes no whiteouts: {e}; choose another one"),
            )
        })?;
    // The file has its name back, and the other name is the whiteout.
    let top = At::new(root, b".");
    let has_override = top.get_xattr(OVERRIDE_STAT).is_some();
    let owners = match options.owners {
        Owners::Host => true,
        Owners::OverrideStat => false,
        Owners::Auto => !has_override && may_give_away(file),
    };
    if !owners && !has_override {
        top.put_top_override()?;
    }
    Ok(Rights { trusted, owners })
}

fn may_give_away(file: &At) -> bool {
    let (uid, gid) = (Some(Uid::from_raw(1)), Some(Gid::from_raw(1)));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(&file.dir, &*file.name, uid, gid, flags).is_ok()
}
