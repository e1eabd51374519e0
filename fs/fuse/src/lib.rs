//! Serves a [`Union`](pellicle_union::Union) to the Linux kernel over FUSE.
//!
//! This crate translates and decides nothing: what an operation means is the union's, who may do
//! it is the kernel's (`default_permissions`). What is decided here is only what the kernel may
//! keep, and for how long: everything, for ever, since nothing changes behind its back. The policy,
//! and which of the kernel's cached attributes go stale when, is in `fs/docs/TRANSPORT.md`.
//!
//! [`mount_here`] or [`mount_with_helper`] give a descriptor; [`serve`] answers on it until
//! somebody unmounts ([`unmount`]), which is when [`Server::join`] returns.

mod caller;
mod convert;
mod dev;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod helper;
mod init;
mod listing;
mod mount;
mod operations;
mod passthrough;
mod ring;
mod room;
mod server;
mod spin;
mod stats;
mod transport;
mod view;
mod watch;

pub use error::FuseError;
pub use mount::{MountOptions, mount_here, mount_with_helper, unmount};
pub use server::{Opens, SERVER_XATTR, ServeOptions, Server, serve};
pub use stats::{Message, Stats, Tally};
pub use transport::{Served, Transport};
pub use view::{IdMap, IdRange, View};
