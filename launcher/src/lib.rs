//! The launcher: images, containers and the command line over Pellicle's file system.
//!
//! `cli` parses, `commands` has one file per subcommand, `error` alone turns errors into text.
//! Nothing is opened, made or asked of the host before a command needs it: `--help` and shell
//! completion must work on a machine where nothing else does, and a start must cost no more than
//! the program's own loading.

pub mod build;
pub mod cli;
pub mod commands;
pub mod container;
pub mod context;
pub mod error;
pub mod events;
pub mod image;
pub mod interrupt;
mod logging;
pub mod mount;
pub mod output;
pub mod registry;
pub mod template;
pub mod transport;

pub use cli::main;
pub use context::Context;
pub use error::{CliError, ErrorKind};
pub use output::Output;
