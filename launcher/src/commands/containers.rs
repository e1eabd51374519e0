//! What the commands about containers share.

use std::process::ExitCode;

use crate::{
    CliError, Context,
    container::{ContainerError, reconcile, registry::Registry},
};

/// The containers of the store, after clearing up behind supervisors that died.
///
/// # Errors
/// As [`Context::root`].
pub(super) fn registry(cx: &Context) -> Result<Registry, CliError> {
    let registry = Registry::new(cx.root()?);
    for said in reconcile::reconcile(&registry) {
        cx.out.warn(said);
    }
    Ok(registry)
}

/// Does `what` for each of `names` and goes on after an error, as docker does; prints each name
/// that `what` succeeded for.
///
/// # Errors
/// The first one; the others are printed as they come.
pub(super) fn each(
    cx: &Context,
    names: &[String],
    mut what: impl FnMut(&str) -> Result<(), ContainerError>,
) -> Result<ExitCode, CliError> {
    let mut failed: Option<CliError> = None;
    for name in names {
        match what(name) {
            Ok(()) => cx.out.line(name)?,
            Err(e) => match &failed {
                None => failed = Some(e.into()),
                Some(_) => CliError::from(e).print(&cx.out),
            },
        }
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// A container's exit code as this process's.
pub(super) fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(125))
}
