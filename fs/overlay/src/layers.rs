//! Opens the layers of a mount, and makes one tree of them.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use pellicle_layer::{HostOptions, HostStack, Lower};
use pellicle_union::{Options, Union};
use pellicle_upper::{
    DirOptions, DirUpper, Journal, JournalLower, JournalOptions, Upper, UpperError,
    dir::{Owners, Privilege},
};

use crate::{
    check::{Checked, CheckedUpper},
    error::OverlayError,
    request::{Request, StatIn, UpperKind},
};

/// How long an upper may still be held by the server of a mount that is gone. Unmounting returns
/// before that server has closed its files, and podman mounts again at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// Opens the tree that `request` asks for.
///
/// # Errors
/// What a layer has against being opened; nothing was changed then.
pub(crate) fn open(request: &Request, checked: &Checked) -> Result<Union, OverlayError> {
    let lower = open_lower(request, checked)?;
    let upper = match &checked.upper {
        Some(upper) => open_upper(request, upper, &lower)?,
        None => None,
    };
    let options = Options {
        read_only: request.mount.read_only,
    };
    let (union, recovery) = Union::open(lower, upper, options)?;
    tracing::info!(?recovery, "opened the layers");
    Ok(union)
}

/// The upper directory of a read-only mount is one more lower layer.
fn open_lower(request: &Request, checked: &Checked) -> Result<Arc<dyn Lower>, OverlayError> {
    let on_top = checked
        .upper
        .iter()
        .filter(|upper| request.mount.read_only && upper.kind == UpperKind::Directory)
        .map(|upper| upper.dir.clone());
    let directories: Vec<_> = on_top.chain(checked.lower.iter().cloned()).collect();
    let stack = HostStack::open(&directories, &HostOptions::default())?;
    Ok(Arc::new(stack))
}

fn open_upper(
    request: &Request,
    upper: &CheckedUpper,
    lower: &Arc<dyn Lower>,
) -> Result<Option<Box<dyn Upper>>, OverlayError> {
    let of = JournalLower {
        identity: lower.identity(),
        inode_count: lower.inode_count(),
    };
    match upper.kind {
        UpperKind::Journal if request.mount.read_only => {
            if !upper.has_journal {
                return Ok(None);
            }
            Ok(Some(Box::new(Journal::open_read_only(&upper.dir, of)?)))
        }
        UpperKind::Journal => {
            let open = || open_journal(&upper.dir, upper.has_journal, of, request.fsync);
            Ok(Some(Box::new(patiently(open)?)))
        }
        UpperKind::Directory if request.mount.read_only => Ok(None),
        UpperKind::Directory => {
            let work = upper.work.as_deref().unwrap_or(&upper.dir);
            let options = DirOptions {
                privilege: if request.user_marks {
                    Privilege::User
                } else {
                    Privilege::Auto
                },
                owners: match request.stat_in {
                    StatIn::Inode => Owners::Auto,
                    StatIn::Attribute => Owners::OverrideStat,
                },
                // Neither fuse-overlayfs nor podman's own reading of layers follows any.
                redirects: Some(false),
                volatile: !request.fsync,
            };
            let open = || DirUpper::open(&upper.dir, work, Arc::clone(lower), &options);
            Ok(Some(Box::new(patiently(open)?)))
        }
    }
}

fn open_journal(
    dir: &Path,
    exists: bool,
    of: JournalLower,
    fsync: bool,
) -> Result<Journal, UpperError> {
    let usual = JournalOptions::default();
    let options = JournalOptions {
        volatile: !fsync,
        sync_interval: usual.sync_interval.filter(|_| fsync),
        ..usual
    };
    if exists {
        Journal::open(dir, of, options)
    } else {
        Journal::create(dir, of, options)
    }
}

/// Tries again for as long as the upper is in use, up to [`PATIENCE`].
fn patiently<T>(mut open: impl FnMut() -> Result<T, UpperError>) -> Result<T, UpperError> {
    let begun = Instant::now();
    loop {
        match open() {
            Err(UpperError::InUse { .. }) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}
