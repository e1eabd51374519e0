//! The file systems that are compared: ours, kernel overlayfs, a plain directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::setup::{Setup, succeed};

/// A way to see the image's merged tree.
pub(crate) enum Driver {
    /// `pellicle mount` of the imported image.
    Ours {
        /// The image's name.
        image: &'static str,
    },
    /// Kernel overlayfs over the unpacked layers.
    Overlay {
        /// Lowest first.
        lower: Vec<PathBuf>,
    },
    /// The merged tree on the host's file system.
    Plain {
        /// Where it is.
        dir: PathBuf,
    },
}

impl Driver {
    /// All that can be had: ours first, then the reference. With the reasons for what cannot.
    pub(crate) fn all(setup: &mut Setup) -> Result<(Vec<Driver>, Vec<String>)> {
        let image = if setup.path("store").is_dir() {
            "bench"
        } else {
            setup.import("store", false)?
        };
        let mut drivers = vec![Driver::Ours { image }];
        if nix::unistd::geteuid().is_root() {
            drivers.push(Driver::Overlay {
                lower: setup.lower_directories()?,
            });
            drivers.push(Driver::Plain {
                dir: setup.merged()?,
            });
            Ok((drivers, Vec::new()))
        } else {
            Ok((
                drivers,
                vec!["kernel overlayfs and the plain directory need root".to_owned()],
            ))
        }
    }

    /// As it is named in reports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Driver::Ours { .. } => "pellicle",
            Driver::Overlay { .. } => "kernel overlayfs",
            Driver::Plain { .. } => "plain directory",
        }
    }

    /// Makes the tree visible, anew: nothing is in the kernel's caches for this mount yet (a plain
    /// directory has no such moment).
    pub(crate) fn mount(&self, setup: &Setup) -> Result<Mounted> {
        let at = setup.directory("mnt", false)?;
        match self {
            Driver::Ours { image } => Mounted::ours(setup, "store", image, &at),
            Driver::Overlay { lower } => Mounted::overlay(lower, &at),
            Driver::Plain { dir } => Ok(Mounted {
                at: dir.clone(),
                how: How::Nothing,
            }),
        }
    }
}

enum How {
    Nothing,
    Kernel,
    Ours(std::process::Command),
}

/// A tree that can be seen at [`at`](Self::at) until it is unmounted or dropped.
pub(crate) struct Mounted {
    at: PathBuf,
    how: How,
}

impl Mounted {
    /// `pellicle mount IMAGE AT` from `store`.
    pub(crate) fn ours(setup: &Setup, store: &str, image: &str, at: &Path) -> Result<Self> {
        succeed(setup.pellicle(store).arg("mount").arg(image).arg(at))?;
        let mut umount = setup.pellicle(store);
        umount.arg("umount").arg(at);
        Ok(Self {
            at: at.to_path_buf(),
            how: How::Ours(umount),
        })
    }

    /// Kernel overlayfs, read-only, over `lower` (lowest first).
    pub(crate) fn overlay(lower: &[PathBuf], at: &Path) -> Result<Self> {
        let stack: Vec<String> = lower
            .iter()
            .rev()
            .map(|d| d.to_string_lossy().into_owned())
            .collect();
        let options = format!("lowerdir={}", stack.join(":"));
        mount(
            Some("overlay"),
            at,
            Some("overlay"),
            MsFlags::MS_RDONLY,
            Some(options.as_str()),
        )
        .with_context(|| format!("cannot mount overlay with {options}"))?;
        Ok(Self {
            at: at.to_path_buf(),
            how: How::Kernel,
        })
    }

    /// Where the tree is.
    pub(crate) fn at(&self) -> &Path {
        &self.at
    }

    /// Unmounts, and says if that fails.
    pub(crate) fn unmount(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.how, How::Nothing) {
            How::Nothing => Ok(()),
            How::Kernel => umount2(&self.at, MntFlags::empty())
                .with_context(|| format!("cannot unmount {}", self.at.display())),
            How::Ours(mut command) => succeed(&mut command),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mounted = !matches!(self.how, How::Nothing);
        if self.end().is_err() && mounted {
            let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        }
    }
}

/// The resident memory, in MiB, of the server of the mount at `at`.
pub(crate) fn server_memory(at: &Path) -> Result<f64> {
    let needle = at.as_os_str().as_encoded_bytes();
    for entry in fs::read_dir("/proc")?.flatten() {
        let numeric = entry
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|b| b.is_ascii_digit());
        let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // By the file it executes: the command line may begin with another name for it.
        let ours =
            fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.ends_with("pellicle"));
        if !numeric || !ours || !cmdline.windows(needle.len()).any(|w| w == needle) {
            continue;
        }
        let status = fs::read_to_string(entry.path().join("status"))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|n| n.parse::<f64>().ok())
            .context("no VmRSS")?;
        return Ok(kib / 1024.0);
    }
    anyhow::bail!("no pellicle process serves {}", at.display())
}
