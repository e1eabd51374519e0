//! Names of tar entries as paths inside a layer. They are only ever looked up in a tree being
//! built, never on the host.

use super::TarProblem;

/// Longest name of one file (Linux `NAME_MAX`).
const NAME_MAX: usize = 255;
/// Longest path (Linux `PATH_MAX`, which counts the final NUL).
pub(super) const PATH_MAX: usize = 4095;

/// Splits `path` into its components. It is relative to the root of the layer whatever it starts
/// with, as tar takes it; empty and `.` components mean nothing. `what` names the path in errors.
pub(super) fn components<'a>(
    path: &'a [u8],
    what: &'static str,
) -> Result<Vec<&'a [u8]>, TarProblem> {
    let bad = |why| Err(TarProblem::Path { what, why });
    if path.is_empty() {
        return bad("is empty");
    }
    if path.len() > PATH_MAX {
        return bad("has more than 4095 bytes");
    }
    if path.contains(&0) {
        return bad("has a zero byte in it");
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return bad("has `..` in it, which would lead out of the layer"),
            _ if part.len() > NAME_MAX => return bad("has a component of more than 255 bytes"),
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

/// What the last component of a name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// An entry of that name.
    Entry,
    /// Hides that name of the layers below (OCI image-spec layer.md, "Whiteouts").
    Whiteout(&'a [u8]),
    /// Hides all that the layers below have in the directory ("Opaque Whiteout").
    Opaque,
    /// Notes of aufs about itself.
    Ignored,
}

/// Reads the marks that OCI layers have in names.
pub(super) fn mark<'a>(parts: &[&'a [u8]]) -> Result<Mark<'a>, TarProblem> {
    let Some((last, parents)) = parts.split_last() else {
        return Ok(Mark::Entry);
    };
    let bad = |why| TarProblem::Path { what: "name", why };
    for parent in parents {
        if parent.starts_with(b".wh..wh.") {
            return Ok(Mark::Ignored);
        }
        if parent.starts_with(b".wh.") {
            return Err(bad("has a whiteout for a directory"));
        }
    }
    match last.strip_prefix(b".wh.") {
        None => Ok(Mark::Entry),
        Some(b".wh..opq") => Ok(Mark::Opaque),
        Some(b"" | b"." | b"..") => Err(bad("is a whiteout of nothing")),
        Some(hidden) if hidden.starts_with(b".wh.") => Ok(Mark::Ignored),
        Some(hidden) => Ok(Mark::Whiteout(hidden)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_root_and_never_leave_it() {
        let ok = |path: &[u8]| components(path, "name").unwrap().join(&b"|"[..]);
        assert_eq!(ok(b"./a//b/./c/"), b"a|b|c");
        assert_eq!(ok(b"/etc/passwd"), b"etc|passwd");
        assert_eq!(ok(b"./"), b"");
        assert_eq!(ok(b"/"), b"");
        assert_eq!(ok(b"..a/b..\xff"), b"..a|b..\xff");
        for bad in [
            &b""[..],
            b"..",
            b"../../etc/passwd",
            b"a/../../b",
            b"a/..",
            b"a\0b",
            &[b'a'; 256],
            &b"a/".repeat(3000),
        ] {
            assert!(components(bad, "name").is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn marks_of_oci_and_aufs_are_told_apart_from_names() {
        for (parts, want) in [
            (&[&b"a"[..], b"b"][..], Some(Mark::Entry)),
            (&[], Some(Mark::Entry)),
            (&[b"a", b".wh.b"], Some(Mark::Whiteout(b"b"))),
            (&[b".wh..wh..opq"], Some(Mark::Opaque)),
            (&[b".wh..wh.plnk"], Some(Mark::Ignored)),
            (&[b".wh..wh.plnk", b"1.2"], Some(Mark::Ignored)),
            (&[b".wh"], Some(Mark::Entry)),
            (&[b".wh."], None),
            (&[b".wh.."], None),
            (&[b".wh..."], None),
            (&[b".wh.a", b"b"], None),
        ] {
            assert_eq!(mark(parts).ok(), want, "{parts:?}");
        }
    }
}
