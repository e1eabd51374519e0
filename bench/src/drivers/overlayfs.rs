//! Kernel overlayfs: the reference.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{Mounted, Place, lower_option};
use crate::setup::{Setup, Stack, Who, quiet, succeed};

/// What has to be said where `trusted.` attributes are not allowed.
fn marks(who: Who) -> &'static str {
    match who {
        Who::Root => "",
        Who::InNamespace | Who::User => ",userxattr",
    }
}

/// Tries it once.
pub(super) fn missing(setup: &Setup) -> Option<String> {
    let tried = || -> Result<()> {
        let place = Place::new(setup)?;
        let lower = setup.directory("nothing")?;
        over(setup, &[lower], place)?.unmount()
    };
    tried()
        .err()
        .map(|error| format!("this kernel mounts no overlayfs here: {error:#}"))
}

pub(super) fn mount(setup: &Setup, stack: &Stack) -> Result<Mounted> {
    over(setup, &stack.dirs, Place::new(setup)?)
}

fn over(setup: &Setup, dirs: &[PathBuf], place: Place) -> Result<Mounted> {
    let options = format!("{}{}", place.options(), marks(setup.who));
    call(dirs, &options, &place.at)?;
    Ok(Mounted::kernel(place.at.clone(), Some(place)))
}

/// `dirs`, lowest first, without a writable layer. It takes two at least.
pub(crate) fn read_only(setup: &mut Setup, dirs: &[PathBuf], at: &Path) -> Result<Mounted> {
    let nothing = setup.directory("nothing")?;
    let dirs: Vec<PathBuf> = std::iter::once(nothing)
        .chain(dirs.iter().cloned())
        .collect();
    call(&dirs, &format!("ro{}", marks(setup.who)), at)?;
    Ok(Mounted::kernel(at.to_path_buf(), None))
}

/// mount(8) in the directory that all lower ones are in, so that the names of many fit the page that
/// the kernel has for options.
fn call(dirs: &[PathBuf], options: &str, at: &Path) -> Result<()> {
    let common = dirs.first().and_then(|dir| dir.parent());
    let Some(common) = common else {
        bail!("overlayfs takes a lower directory");
    };
    let short = |dir: &PathBuf| {
        let name = dir.strip_prefix(common).ok();
        name.map_or_else(|| dir.clone(), Path::to_path_buf)
    };
    let short: Vec<PathBuf> = dirs.iter().map(short).collect();
    succeed(
        quiet("mount")
            .args(["-t", "overlay", "overlay", "-o"])
            .arg(format!("{},{options}", lower_option(&short)))
            .arg(at)
            .current_dir(common)
            // fsconfig(2) takes 256 bytes for a value.
            .env("LIBMOUNT_FORCE_MOUNT2", "always"),
    )
}
