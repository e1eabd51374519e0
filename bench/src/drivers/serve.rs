//! The process behind the native driver: `pellicle-bench __serve`.
//!
//! What `pellicle run` does for a container's root, with the choices that it makes by itself given
//! as options.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result};
use clap::Args;
use pellicle_fuse::{MountOptions, ServeOptions, mount_here, serve};
use pellicle_layer::{Lower, TreeLower};
use pellicle_store::{Digest, Store};
use pellicle_union::{Options, Union};
use pellicle_upper::{Journal, JournalLower, JournalOptions, Upper};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Opens, Transport};

/// The subcommand.
pub(super) const WORD: &str = "__serve";

/// Serve a mount (for this program itself)
#[derive(Args)]
pub(crate) struct ServeArgs {
    #[arg(long)]
    store: PathBuf,
    /// A diff id; the lowest comes first
    #[arg(long)]
    layer: Vec<Digest>,
    /// Where changes are kept; read-only without
    #[arg(long)]
    upper: Option<PathBuf>,
    #[arg(long)]
    transport: Transport,
    #[arg(long)]
    opens: Opens,
    at: PathBuf,
}

/// Mounts, and serves until somebody unmounts.
pub(crate) fn run(args: &ServeArgs) -> Result<ExitCode> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the number of open files")?;
    rustix::process::umask(rustix::fs::Mode::empty());

    let store = Store::open(&args.store)?;
    let lower: Arc<dyn Lower> = Arc::new(TreeLower::new(store.image_tree(&args.layer)?, &store));
    let upper = match &args.upper {
        None => None,
        Some(dir) => {
            let of = JournalLower {
                identity: lower.identity(),
                inode_count: lower.inode_count(),
            };
            let journal = Journal::create(dir, of, JournalOptions::default())?;
            Some(Box::new(journal) as Box<dyn Upper>)
        }
    };
    let read_only = upper.is_none();
    let (union, _) = Union::open(lower, upper, Options { read_only })?;
    let mount = MountOptions {
        fs_name: "pellicle-bench".to_owned(),
        read_only,
        allow_other: true,
        ..MountOptions::default()
    };
    let options = ServeOptions {
        transport: match args.transport {
            Transport::Ring => pellicle_fuse::Transport::Ring,
            Transport::Dev => pellicle_fuse::Transport::Dev,
        },
        opens: match args.opens {
            Opens::Silent => pellicle_fuse::Opens::Silent,
            Opens::Answered => pellicle_fuse::Opens::Answered,
            Opens::Passthrough => pellicle_fuse::Opens::Passthrough,
        },
        tells: true,
        ..ServeOptions::default()
    };
    let fd = mount_here(&args.at, &mount)?;
    serve(fd, Arc::new(union), options)?.join()?;
    Ok(ExitCode::SUCCESS)
}
