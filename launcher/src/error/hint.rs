//! The one table from errors to the next step that is suggested, and to exit codes.
//!
//! It is asked with the outermost error and walks the causes inwards; the first row that knows one
//! decides, so that a module's own error is more telling than the host's error under it.

use std::{error::Error, io};

use crate::{
    build::BuildError,
    container::ContainerError,
    image::{ImageError, LocationError, load::LoadError},
    registry::RegistryError,
};

/// The next step for `error`, if one is known.
pub(super) fn of(error: &(dyn Error + 'static)) -> Option<String> {
    chain(error).find_map(of_one)
}

/// The exit code that `error` demands, if it demands one (126 and 127 of `run` and `exec`).
pub(super) fn exit_code_of(error: &(dyn Error + 'static)) -> Option<u8> {
    chain(error).find_map(|e| e.downcast_ref::<ContainerError>()?.exit_code())
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn of_one(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(e) = error.downcast_ref::<ImageError>() {
        return of_image(e);
    }
    if let Some(e) = error.downcast_ref::<LocationError>() {
        return Some(e.hint());
    }
    if let Some(LoadError::Choice { .. }) = error.downcast_ref::<LoadError>() {
        return Some("name one behind a colon, by its tag (oci:DIR:TAG, docker-archive:FILE:NAME) or its place (oci:DIR:@0)".to_owned());
    }
    if let Some(e) = error.downcast_ref::<BuildError>() {
        return e.next();
    }
    if let Some(e) = error.downcast_ref::<ContainerError>() {
        return e.hint();
    }
    if let Some(e) = error.downcast_ref::<RegistryError>() {
        return match e {
            RegistryError::Image(e) => of_image(e),
            e => e.hint(),
        };
    }
    if let Some(e) = error.downcast_ref::<io::Error>() {
        return of_errno(errno_of(e)?).map(str::to_owned);
    }
    if let Some(e) = error.downcast_ref::<rustix::io::Errno>() {
        return of_errno(e.raw_os_error()).map(str::to_owned);
    }
    if let Some(e) = error.downcast_ref::<nix::errno::Errno>() {
        return of_errno(*e as i32).map(str::to_owned);
    }
    None
}

fn of_image(error: &ImageError) -> Option<String> {
    Some(match error {
        ImageError::BadReference { .. } => {
            "an image name is written NAME[:TAG][@DIGEST], such as debian:12 or quay.io/user/tool:1.0".to_owned()
        }
        ImageError::NotFound(_) => {
            "`pellicle images` lists what there is; `pellicle pull`, `pellicle load` and `pellicle import` add more".to_owned()
        }
        ImageError::Ambiguous { .. } => "give more digits; `pellicle images -q --no-trunc` has them all".to_owned(),
        ImageError::InUse { .. } => {
            "remove the container first (`pellicle rm`), or give -f: the container keeps what it needs".to_owned()
        }
        ImageError::SeveralNames { .. } => "remove one of the names, or all of them with -f".to_owned(),
        ImageError::Damaged { id, .. } => format!(
            "`pellicle store verify --repair` makes again what it can; else import the image again, or drop it with `pellicle rmi -f {}`",
            crate::image::short_id(id)
        ),
        ImageError::Index { path, .. } => format!(
            "`pellicle store verify --repair` makes it again of what can be read, and keeps {} as it is now",
            path.display()
        ),
        ImageError::Container { path, .. } => format!(
            "remove that container (`pellicle rm -f`), or its directory {}",
            path.parent().unwrap_or(path).display()
        ),
        ImageError::Io { .. } | ImageError::Store(_) => return None,
    })
}

/// The number of `error`, also where a library put a path of its own around it.
fn errno_of(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or(match error.kind() {
        io::ErrorKind::StorageFull => Some(libc::ENOSPC),
        io::ErrorKind::QuotaExceeded => Some(libc::EDQUOT),
        io::ErrorKind::ReadOnlyFilesystem => Some(libc::EROFS),
        _ => None,
    })
}

fn of_errno(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::ENOSPC => {
            "free some space (`pellicle store df` tells what the store holds, `pellicle store gc` drops what nothing uses), or put the store elsewhere with --root DIR"
        }
        libc::EDQUOT => {
            "your disk quota is used up: free some space, or put the store elsewhere with --root DIR"
        }
        libc::EACCES | libc::EPERM => {
            "check the owner and mode of that path; a store of your own goes where --root DIR or PELLICLE_ROOT says"
        }
        libc::EROFS => "that file system is read-only: put the store elsewhere with --root DIR",
        libc::EMFILE | libc::ENFILE => return of_limit(errno),
        _ => return None,
    })
}

/// The next step where a limit keeps the host from giving more files, processes or threads. Only for what
/// makes such things: elsewhere `EAGAIN` means something else.
pub(crate) fn of_limit(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EMFILE | libc::ENFILE => "too many open files: raise the limit with `ulimit -n`",
        libc::EAGAIN => {
            "no more processes and threads are to be had: raise the limit with `ulimit -u`, or that of the cgroup (--pids-limit)"
        }
        _ => return None,
    })
}
