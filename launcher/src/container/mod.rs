//! Containers: namespaces, the supervisor, and the state of each in the store.
//!
//! There is no daemon. The process that starts a container is its *supervisor* ([`supervise`]) for
//! as long as it runs: it serves the root file system, passes signals on, keeps the log and records
//! the end. Every other command works on files ([`registry`], [`state`]) and on the processes
//! themselves. In order:
//!
//! 1. The supervisor, still single-threaded, forks a process into a new user namespace and has its
//!    id maps begun ([`begin`], [`idmap`]).
//! 2. While they are written, [`spec`] makes a runtime specification of the image's configuration and
//!    the [`request`], which the process is told.
//! 3. [`registry`] makes the container's directory and holds its lock, the
//!    image's tree and the journal are opened ([`root`]), and what is missing to mount on is made;
//!    the process (`init`) makes its other namespaces and the filters ([`seccomp`]).
//! 4. Once the maps are there it mounts the union with `/dev/fuse` opened in its own user namespace and
//!    hands the descriptor to the supervisor, which serves it; then it makes the other mounts
//!    (`mounts`), pivots, asks for the program's first pages (`prefetch`), changes user, drops
//!    capabilities ([`caps`]), installs the filters and executes the command.
//! 5. The supervisor attends to it until it ends.
//!
//! If the supervisor is killed, the kernel kills the container's first process (its death signal)
//! and with it all others; its lock is free then, and the next command notices and records it
//! ([`reconcile`]). A command that clears its death signal by changing its user outlives the
//! supervisor until then, with a root file system that no longer answers.

mod attend;
pub mod background;
pub mod begin;
pub mod caps;
pub mod cgroup;
mod channel;
mod cpus;
mod environ;
mod error;
pub mod health;
pub mod idmap;
mod init;
pub mod join;
pub mod log;
pub mod mount_points;
mod mounts;
pub mod names;
pub mod passwd;
pub mod pause;
mod prefetch;
pub mod process;
mod pump;
mod reaper;
pub mod reconcile;
pub mod registry;
pub mod request;
pub mod root;
pub mod seccomp;
pub mod signals;
mod spare;
pub mod spec;
pub mod state;
mod step;
mod streams;
pub mod supervise;
mod terminal;

pub use error::ContainerError;
