//! `pellicle umount`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use crate::{CliError, Context, mount};

/// Unmount what `mount` mounted
///
/// Also takes away mounts whose server has died.
#[derive(Args, Debug)]
#[command(
    visible_alias = "unmount",
    after_help = "Examples:
  pellicle umount /mnt
  pellicle umount --lazy /mnt        even while something works in it
  pellicle umount --all"
)]
pub struct UmountArgs {
    /// Where it is mounted
    #[arg(required_unless_present = "all", value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Everything that `pellicle mount` mounted
    #[arg(short, long, conflicts_with = "dirs")]
    pub all: bool,
    /// Out of sight at once, gone when the last user has left
    #[arg(short, long)]
    pub lazy: bool,
}

/// Runs the command.
///
/// # Errors
/// The first that could not be unmounted; the others are.
pub fn run(cx: &Context, args: UmountArgs) -> Result<ExitCode, CliError> {
    let mounted = mount::list()?;
    let dirs: Vec<PathBuf> = if args.all {
        mounted.iter().rev().map(|m| m.dir.clone()).collect()
    } else {
        args.dirs.clone()
    };
    let mut failed: Option<CliError> = None;
    for dir in dirs {
        let result = find(&mounted, &dir).and_then(|dir| mount::unmount(&dir, args.lazy));
        if let Err(e) = result {
            match &failed {
                None => failed = Some(e),
                Some(_) => e.print(&cx.out),
            }
        }
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// The mount point that `dir` means. The directory itself is not touched: a mount whose server is
/// gone answers nothing but errors.
fn find(mounted: &[mount::Mounted], dir: &Path) -> Result<PathBuf, CliError> {
    let fail = |e| CliError::failed(format!("cannot find {}", dir.display())).because(e);
    let absolute = std::path::absolute(dir).map_err(fail)?;
    let real = match (
        absolute.parent().map(Path::canonicalize),
        absolute.file_name(),
    ) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => absolute.clone(),
    };
    // A symbolic link to the mount point, or `.`, needs the whole way.
    let whole = dir.canonicalize().ok();
    mounted
        .iter()
        .map(|m| &m.dir)
        .find(|d| **d == real || whole.as_ref() == Some(d))
        .cloned()
        .ok_or_else(|| {
            CliError::failed(format!(
                "nothing of Pellicle's is mounted on {}",
                dir.display()
            ))
            .with_hint("`pellicle mount` without arguments lists what is")
        })
}
