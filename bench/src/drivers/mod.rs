//! The file systems that are compared, by the names they have on the command line.
//!
//! | name | what |
//! |---|---|
//! | `plain` | the merged tree on the host's file system |
//! | `overlayfs` | the kernel's; in a user namespace with `userxattr` |
//! | `fuse-overlayfs-VERSION` | each version that is found or named |
//! | `pellicle-TRANSPORT[-OPENS][-ro]` | the native one: a store's tree under a journal |
//! | `overlay-UPPER-TRANSPORT` | `pellicle-overlay` over host directories |

mod choose;
mod dropin;
mod fuse_overlayfs;
mod mounted;
mod native;
pub(crate) mod overlayfs;
mod plain;
pub(crate) mod ring;
pub(crate) mod serve;

use std::path::PathBuf;

use anyhow::Result;

pub(crate) use choose::{all, choose, defaults};
pub(crate) use mounted::{Mounted, Place, messages, unmount_all_under};

use crate::setup::{Setup, Stack};

/// Which way a server of ours takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    /// io_uring
    Ring,
    /// /dev/fuse
    Dev,
}

impl Transport {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Transport::Ring => "ring",
            Transport::Dev => "dev",
        }
    }
}

/// What opening a file means to a server of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Opens {
    /// No message
    Silent,
    /// Two messages
    Answered,
    /// The kernel gets the host's file
    Passthrough,
}

/// How `pellicle-overlay` keeps changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upper {
    Journal,
    Dir,
}

/// A way to lay a writable layer over a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Overlayfs,
    FuseOverlayfs(PathBuf),
    Native {
        transport: Transport,
        opens: Opens,
        read_only: bool,
    },
    DropIn {
        upper: Upper,
        transport: Transport,
    },
}

/// One of them, with its name in reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Driver {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

impl Driver {
    fn named(kind: Kind, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind,
        }
    }

    /// Whether it is Pellicle.
    pub(crate) fn ours(&self) -> bool {
        matches!(self.kind, Kind::Native { .. } | Kind::DropIn { .. })
    }

    /// Whether nothing can be changed in it.
    pub(crate) fn read_only(&self) -> bool {
        matches!(
            self.kind,
            Kind::Native {
                read_only: true,
                ..
            }
        )
    }

    /// Whether it needs FUSE over io_uring.
    pub(crate) fn wants_ring(&self) -> bool {
        matches!(
            self.kind,
            Kind::Native {
                transport: Transport::Ring,
                ..
            } | Kind::DropIn {
                transport: Transport::Ring,
                ..
            }
        )
    }

    /// Why it cannot be had here, if so.
    pub(crate) fn missing(&self, setup: &Setup) -> Option<String> {
        if self.wants_ring() && !ring::is_on() {
            return Some(ring::HOW.to_owned());
        }
        match &self.kind {
            Kind::Overlayfs => overlayfs::missing(setup),
            Kind::Native {
                opens: Opens::Passthrough,
                ..
            } if setup.who != crate::setup::Who::Root => {
                Some("passthrough needs root of the machine".to_owned())
            }
            _ => None,
        }
    }

    /// Lays it over `stack`, anew: nothing is in the kernel's caches for this mount yet (a plain
    /// directory has no such moment). What `changes` says is whether the workload changes files
    /// that the stack has.
    pub(crate) fn mount(&self, setup: &mut Setup, stack: &Stack, changes: bool) -> Result<Mounted> {
        match &self.kind {
            Kind::Plain => plain::mount(setup, stack, changes),
            Kind::Overlayfs => overlayfs::mount(setup, stack),
            Kind::FuseOverlayfs(program) => fuse_overlayfs::mount(setup, stack, program),
            Kind::Native {
                transport,
                opens,
                read_only,
            } => native::mount(setup, stack, *transport, *opens, *read_only),
            Kind::DropIn { upper, transport } => dropin::mount(setup, stack, *upper, *transport),
        }
    }
}

/// `lowerdir=` as overlayfs and those like it take it: the highest first.
fn lower_option(dirs: &[PathBuf]) -> String {
    let dirs: Vec<String> = dirs
        .iter()
        .rev()
        .map(|dir| dir.to_string_lossy().into_owned())
        .collect();
    format!("lowerdir={}", dirs.join(":"))
}
