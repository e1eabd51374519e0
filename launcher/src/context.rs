//! What a command works with: the store, its images, and where to print.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use pellicle_store::{Digest, Store};

use crate::{
    cli::Global,
    error::CliError,
    image::{Images, container_uses},
    output::Output,
};

/// Where a command finds everything. The store is opened when first asked for, so that commands
/// which need none work where none can be made.
pub struct Context {
    /// Where to print.
    pub out: Output,
    global: Global,
    root: OnceLock<PathBuf>,
    store: OnceLock<Store>,
}

impl Context {
    /// A context for the given global options; touches nothing on the host.
    #[must_use]
    pub fn new(global: Global, out: Output) -> Self {
        Self {
            out,
            global,
            root: OnceLock::new(),
            store: OnceLock::new(),
        }
    }

    /// The store's directory, absolute, which may not exist yet: `--root`, else `PELLICLE_ROOT`,
    /// else `/var/lib/pellicle` for root, else `$XDG_DATA_HOME/pellicle`, else
    /// `~/.local/share/pellicle`.
    ///
    /// # Errors
    /// If none of these is known, or the current directory is needed and gone.
    pub fn root(&self) -> Result<&Path, CliError> {
        if let Some(root) = self.root.get() {
            return Ok(root);
        }
        let root = self.find_root()?;
        Ok(self.root.get_or_init(|| root))
    }

    /// The store, opened (and made) when first asked for.
    ///
    /// # Errors
    /// As [`Context::root`]; or the store cannot be made or opened there.
    pub fn store(&self) -> Result<&Store, CliError> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let root = self.root()?;
        let store = Store::open(root).map_err(|e| {
            CliError::from(e).context(format!("cannot open the store {}", root.display()))
        })?;
        Ok(self.store.get_or_init(|| store))
    }

    /// The images of the store.
    ///
    /// # Errors
    /// As [`Context::store`].
    pub fn images(&self) -> Result<Images, CliError> {
        Ok(Images::new(self.store()?.clone()))
    }

    /// The layers of each container's image, which collection must leave.
    ///
    /// # Errors
    /// As [`Context::store`]; or a container's configuration cannot be read.
    pub fn container_stacks(&self) -> Result<Vec<Vec<Digest>>, CliError> {
        let uses = container_uses(self.store()?.root())?;
        Ok(uses.into_iter().map(|u| u.diff_ids).collect())
    }

    /// The value of `--log-level` or `PELLICLE_LOG`, to be handed to helper processes.
    #[must_use]
    pub fn log_level(&self) -> Option<&str> {
        self.global.log_level.as_deref()
    }

    fn find_root(&self) -> Result<PathBuf, CliError> {
        if let Some(root) = &self.global.root {
            if root.as_os_str().is_empty() {
                return Err(CliError::usage("--root (or PELLICLE_ROOT) is empty"));
            }
            return std::path::absolute(root).map_err(|e| {
                CliError::failed(format!("cannot make {} an absolute path", root.display()))
                    .because(e)
            });
        }
        if rustix::process::geteuid().is_root() && system_store_is_ours() {
            return Ok(PathBuf::from(SYSTEM_ROOT));
        }
        absolute_env("XDG_DATA_HOME")
            .or_else(|| absolute_env("HOME").map(|home| home.join(".local/share")))
            .map(|data| data.join("pellicle"))
            .ok_or_else(|| {
                CliError::failed(
                    "do not know where the store is: neither XDG_DATA_HOME nor HOME is set",
                )
                .with_hint("give the directory with --root DIR or PELLICLE_ROOT=DIR")
            })
    }
}

const SYSTEM_ROOT: &str = "/var/lib/pellicle";

/// Root of a user namespace (`unshare -r`, a rootless container) is not root of the host: there the
/// system-wide store counts only if it can be written.
fn system_store_is_ours() -> bool {
    use rustix::fs::{Access, access};

    let whole_host = std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    whole_host
        || access(SYSTEM_ROOT, Access::WRITE_OK).is_ok()
        || (!Path::new(SYSTEM_ROOT).exists() && access("/var/lib", Access::WRITE_OK).is_ok())
}

/// A directory from the environment; a relative one is ignored, as the XDG base directory
/// specification demands.
fn absolute_env(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_root_is_made_absolute_and_an_empty_one_refused() {
        let with = |root: &str| {
            let global = Global {
                root: Some(root.into()),
                log_level: None,
            };
            let cx = Context::new(global, Output::detect());
            cx.root().map(Path::to_owned)
        };
        assert_eq!(with("/a/b").unwrap(), Path::new("/a/b"));
        assert!(with("rel").unwrap().is_absolute());
        assert!(with("").is_err());
    }
}
