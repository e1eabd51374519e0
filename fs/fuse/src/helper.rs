//! `fusermount3`, the setuid program that mounts FUSE file systems for ordinary users.
//!
//! It is told one end of a socket pair by `_FUSE_COMMFD` and sends the `/dev/fuse` descriptor over
//! it with one byte of data (libfuse, `lib/mount.c` and `util/fusermount.c`). That end is handed
//! over as its standard input, so no descriptor of ours is ever inheritable.

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};

use crate::{FuseError, MountOptions};

const PROGRAM: &str = "fusermount3";

/// Whether `fusermount3` would take `allow_other` from this user.
pub(crate) fn others_allowed() -> bool {
    rustix::process::geteuid().is_root()
        || std::fs::read("/etc/fuse.conf").is_ok_and(|text| allows_others(&text))
}

/// The rule of `util/fusermount.c`: a line of that word alone, spaces around it aside.
fn allows_others(conf: &[u8]) -> bool {
    conf.split(|&b| b == b'\n')
        .any(|line| line.trim_ascii() == b"user_allow_other")
}

/// Mounts on `dir` and takes the descriptor over.
pub(crate) fn mount(dir: &Path, options: &MountOptions) -> Result<OwnedFd, FuseError> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| FuseError::Helper { source: e.into() })?;
    let child = Command::new(PROGRAM)
        .arg("-o")
        .arg(option_text(options))
        .arg("--")
        .arg(dir)
        .env("_FUSE_COMMFD", "0")
        // Its errors are recognised by their words nowhere, but people read them: keep them English.
        .env("LC_ALL", "C")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot_run)?;
    let received = receive_descriptor(&ours);
    let done = child.wait_with_output().map_err(cannot_run)?;
    match received {
        Ok(Some(fd)) if done.status.success() => Ok(fd),
        Err(e) if done.status.success() => Err(FuseError::Helper { source: e.into() }),
        _ => Err(refused("mount", dir, &done.stderr)),
    }
}

/// Unmounts `dir`.
pub(crate) fn unmount(dir: &Path, lazy: bool) -> Result<(), FuseError> {
    let done = Command::new(PROGRAM)
        .arg("-u")
        .args(lazy.then_some("-z"))
        .arg("--")
        .arg(dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(cannot_run)?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    if said.contains("Device or resource busy") {
        return Err(FuseError::Busy {
            path: dir.to_owned(),
        });
    }
    if said.contains("not found in /etc/mtab") || said.contains("Invalid argument") {
        return Err(FuseError::NotMounted {
            path: dir.to_owned(),
        });
    }
    Err(refused("unmount", dir, &done.stderr))
}

fn option_text(options: &MountOptions) -> String {
    let mut text = String::from("rw,default_permissions");
    for (word, _) in options.flags() {
        text.push(',');
        text.push_str(word);
    }
    if options.allow_other {
        text.push_str(",allow_other");
    }
    for (key, value) in [("subtype", &options.subtype), ("fsname", &options.fs_name)] {
        text.push(',');
        text.push_str(key);
        text.push('=');
        for c in value.chars() {
            // The helper splits at commas and takes a backslash off (libfuse, `get_string_opt`).
            if matches!(c, ',' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
    }
    text
}

/// The descriptor that comes over `socket`; `None` if the other end closed without sending one.
fn receive_descriptor(socket: &OwnedFd) -> rustix::io::Result<Option<OwnedFd>> {
    let mut byte = [0u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    Ok(control.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}

fn cannot_run(source: std::io::Error) -> FuseError {
    if source.kind() == std::io::ErrorKind::NotFound {
        FuseError::NoHelper
    } else {
        FuseError::Helper { source }
    }
}

fn refused(doing: &'static str, dir: &Path, stderr: &[u8]) -> FuseError {
    let said = String::from_utf8_lossy(stderr);
    let said = said.trim();
    FuseError::HelperRefused {
        doing,
        path: dir.to_owned(),
        said: if said.is_empty() {
            "it gave no reason".to_owned()
        } else {
            said.to_owned()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commented_or_longer_line_does_not_allow_others() {
        assert!(allows_others(b"# x\n  user_allow_other \nmount_max = 3\n"));
        assert!(!allows_others(b"#user_allow_other\nuser_allow_other_not\n"));
    }

    #[test]
    fn separators_in_the_source_name_cannot_add_options() {
        let options = MountOptions {
            fs_name: r"a,allow_other\".into(),
            ..Default::default()
        };
        assert!(option_text(&options).ends_with(r"fsname=a\,allow_other\\"));
    }
}
