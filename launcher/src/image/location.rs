//! Where an image is, as containers-transports(5) writes it: `docker://NAME`, `oci:DIR[:TAG]`,
//! `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`. A text without a transport is the name or id of
//! an image of the store, or a name at a registry.

use std::path::{Path, PathBuf};

/// A place of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A name or an id, without a transport (`docker://` is taken off).
    Name(String),
    /// A layout or an archive on this machine.
    File(FileLocation),
}

/// A layout or an archive, and which image of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLocation {
    /// What it is.
    pub kind: FileKind,
    /// Directory or file.
    pub path: PathBuf,
    /// Which image of it.
    pub pick: Pick,
}

/// What holds images outside of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// `oci:`, a layout as a directory.
    Oci,
    /// `oci-archive:`, a layout in a tar archive.
    OciArchive,
    /// `docker-archive:`, what `docker save` writes.
    DockerArchive,
}

/// Which of a source's images is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The only one there is.
    Only,
    /// The one of that tag or name.
    Named(String),
    /// That one in the source's list, from 0 (`@0`).
    At(usize),
}

/// Why a text is no place of an image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// A transport that others have and this program does not.
    #[error("the transport {transport}: is not supported")]
    Unsupported {
        /// Without its colon.
        transport: &'static str,
        /// How to get there.
        hint: &'static str,
    },
    /// A transport without the file that it needs.
    #[error("{text:?} names no file: {why}")]
    Incomplete {
        /// What was given.
        text: String,
        /// What is missing.
        why: &'static str,
    },
}

const KINDS: [(&str, FileKind); 3] = [
    ("oci:", FileKind::Oci),
    ("oci-archive:", FileKind::OciArchive),
    ("docker-archive:", FileKind::DockerArchive),
];

/// What skopeo and podman have besides, and the way from there.
const OTHERS: [(&str, &str); 5] = [
    (
        "containers-storage",
        "write it to a file with `podman save --format oci-archive -o FILE NAME`, and name that: oci-archive:FILE",
    ),
    (
        "docker-daemon",
        "`docker save -o FILE NAME` writes it to a file; name that: docker-archive:FILE",
    ),
    (
        "dir",
        "`skopeo copy dir:PATH oci:DIR:TAG` makes an OCI layout of it; name that: oci:DIR:TAG",
    ),
    (
        "ostree",
        "`skopeo copy ostree:NAME oci:DIR:TAG` makes an OCI layout of it",
    ),
    (
        "sif",
        "`skopeo copy sif:FILE oci:DIR:TAG` makes an OCI layout of it",
    ),
];

impl LocationError {
    /// The next step to suggest.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Unsupported { hint, .. } => (*hint).to_owned(),
            Self::Incomplete { .. } => {
                "write oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:NAME]"
                    .to_owned()
            }
        }
    }
}

impl FileKind {
    /// The transport's name, with its colon.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        KINDS
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(prefix, _)| prefix)
    }
}

impl Location {
    /// Reads `text`.
    ///
    /// # Errors
    /// A transport that is not supported, or one without a file.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Self::Name(name.to_owned()));
        }
        for (transport, hint) in OTHERS {
            if text
                .strip_prefix(transport)
                .is_some_and(|rest| rest.starts_with(':'))
            {
                return Err(LocationError::Unsupported { transport, hint });
            }
        }
        let file = KINDS
            .iter()
            .find_map(|(prefix, kind)| Some((*kind, text.strip_prefix(prefix)?)));
        match file {
            None => Ok(Self::Name(text.to_owned())),
            Some((kind, rest)) => {
                file_location(kind, rest)
                    .map(Self::File)
                    .map_err(|why| LocationError::Incomplete {
                        text: text.to_owned(),
                        why,
                    })
            }
        }
    }
}

/// `PATH[:REFERENCE]` or `PATH[:@INDEX]`. The first colon ends the path, as it does for skopeo, unless a
/// longer path is there.
fn file_location(kind: FileKind, text: &str) -> Result<FileLocation, &'static str> {
    let parts = || {
        text.match_indices(':')
            .filter_map(|(at, _)| Some((text.get(..at)?, text.get(at + 1..)?)))
    };
    let split = if Path::new(text).exists() {
        None
    } else {
        let longer = parts().find(|(path, _)| Path::new(path).exists());
        longer.or_else(|| parts().next())
    };
    let (path, reference) = split.unwrap_or((text, ""));
    if path.is_empty() {
        return Err("its path is empty");
    }
    let pick = match reference.strip_prefix('@') {
        Some(index) => Pick::At(
            index
                .parse()
                .map_err(|_| "what follows :@ must be a number")?,
        ),
        None if reference.is_empty() => Pick::Only,
        None => Pick::Named(reference.to_owned()),
    };
    Ok(FileLocation {
        kind,
        path: PathBuf::from(path),
        pick,
    })
}

impl std::fmt::Display for FileLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.kind.prefix(), self.path.display())?;
        match &self.pick {
            Pick::Only => Ok(()),
            Pick::Named(name) => write!(f, ":{name}"),
            Pick::At(index) => write!(f, ":@{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> FileLocation {
        match Location::parse(text) {
            Ok(Location::File(file)) => file,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_transport_says_what_to_read_and_which_image_of_it() {
        let f = file("oci:/x/y:1.0");
        assert_eq!((f.kind, f.path.to_str()), (FileKind::Oci, Some("/x/y")));
        assert_eq!(f.pick, Pick::Named("1.0".into()));
        assert_eq!(file("oci:dir").pick, Pick::Only);
        assert_eq!(file("oci:dir:").pick, Pick::Only);
        assert_eq!(file("oci-archive:f.tar:@2").pick, Pick::At(2));
        let f = file("docker-archive:f.tar:quay.io:443/a/b:c");
        assert_eq!(f.pick, Pick::Named("quay.io:443/a/b:c".into()));
        assert_eq!(f.to_string(), "docker-archive:f.tar:quay.io:443/a/b:c");
        for bad in ["oci:", "oci-archive::x", "docker-archive:f:@x"] {
            assert!(Location::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_with_colons_is_taken_whole_if_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a:b");
        std::fs::create_dir(&path).unwrap();
        let text = format!("oci:{}", path.display());
        assert_eq!(file(&text).path, path);
        let f = file(&format!("{text}:tag"));
        assert_eq!((f.path, f.pick), (path, Pick::Named("tag".into())));
    }

    #[test]
    fn other_texts_are_names_and_other_transports_are_explained() {
        assert_eq!(
            Location::parse("docker://a/b:c"),
            Ok(Location::Name("a/b:c".into()))
        );
        assert_eq!(
            Location::parse("debian:12"),
            Ok(Location::Name("debian:12".into()))
        );
        for (transport, _) in OTHERS {
            let e = Location::parse(&format!("{transport}:x")).unwrap_err();
            assert!(e.to_string().contains(transport) && !e.hint().is_empty());
        }
    }
}
