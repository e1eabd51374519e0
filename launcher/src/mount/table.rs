//! Our mounts, as the kernel lists them (proc_pid_mountinfo(5)).

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

use super::SOURCE_PREFIX;
use crate::CliError;

/// A mount of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// What is mounted, without our prefix.
    pub source: String,
    /// Where.
    pub dir: PathBuf,
}

/// The mounts of ours in this mount namespace, oldest first.
///
/// # Errors
/// If `/proc` is not there.
pub fn list() -> Result<Vec<Mounted>, CliError> {
    let text = std::fs::read("/proc/self/mountinfo").map_err(|e| {
        CliError::failed("cannot list the mounts from /proc/self/mountinfo").because(e)
    })?;
    Ok(parse_mountinfo(&text))
}

/// Picks our mounts out of a mountinfo file.
#[must_use]
pub fn parse_mountinfo(text: &[u8]) -> Vec<Mounted> {
    text.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: the mount point
/// is the fifth field, type and source follow the lone dash.
fn parse_line(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|b| *b == b' ');
    let dir = unescape(fields.nth(4)?);
    let mut fields = fields.skip_while(|f| *f != b"-");
    let kind = fields.nth(1)?;
    let source = String::from_utf8(unescape(fields.next()?)).ok()?;
    (kind == b"fuse" || kind.starts_with(b"fuse.")).then_some(())?;
    Some(Mounted {
        source: source.strip_prefix(SOURCE_PREFIX)?.to_owned(),
        dir: PathBuf::from(OsString::from_vec(dir)),
    })
}

/// Space, tab, newline and backslash are written `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let octal = more
            .get(..3)
            .filter(|d| *first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        let value = octal.and_then(|d| u8::from_str_radix(str::from_utf8(d).ok()?, 8).ok());
        match value {
            Some(value) => {
                out.push(value);
                rest = more.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_mounts_are_listed_with_their_real_paths() {
        let text = b"22 1 0:20 / /proc rw - proc proc rw\n\
            36 35 0:50 / /mnt/a\\040b ro,nosuid shared:1 - fuse.pellicle pellicle:debian:12 ro\n\
            37 35 0:51 / /mnt/sshfs rw - fuse.sshfs host:/x rw\n\
            38 35 0:52 / /m ro - fuse pellicle:3f2a ro\n\n broken";
        let found = parse_mountinfo(text);
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0],
            Mounted {
                source: "debian:12".into(),
                dir: "/mnt/a b".into()
            }
        );
        assert_eq!(found[1].dir, PathBuf::from("/m"));
    }
}
