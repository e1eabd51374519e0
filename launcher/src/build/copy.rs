//! COPY and ADD: what they take, and where it goes.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use pellicle_store::{FileKind, Hasher, Time};
use pellicle_union::Union;

use super::{
    BuildError,
    chmod::Chmod,
    place::{Looks, Placer},
    remote::Remote,
    source::{self, Source},
    unpack,
};
use crate::container::{passwd, root};

/// A COPY or ADD with its variables replaced.
#[derive(Debug)]
pub(super) struct Request {
    /// ADD: archives are unpacked.
    pub(super) add: bool,
    /// Paths in the source.
    pub(super) sources: Vec<String>,
    /// Files of the Containerfile itself: names and contents.
    pub(super) texts: Vec<(String, String)>,
    pub(super) to: String,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<String>,
    /// What a relative destination begins at.
    pub(super) workdir: String,
}

/// What is taken, and where it goes; nothing is read yet.
pub(super) struct Copying<'a> {
    source: &'a dyn Source,
    items: Vec<Item>,
    to: PathBuf,
    /// It is said to be a directory.
    into_directory: bool,
    request: &'a Request,
    remotes: &'a [Remote<'a>],
    chmod: Option<Chmod>,
}

#[derive(Debug)]
enum Item {
    File {
        path: PathBuf,
        name: OsString,
        is_dir: bool,
    },
    Text {
        name: String,
        text: String,
    },
}

impl<'a> Copying<'a> {
    /// Finds what `request` asks for.
    ///
    /// # Errors
    /// What is not there, leads out of `source` or makes no sense.
    pub(super) fn find(
        request: &'a Request,
        remotes: &'a [Remote<'a>],
        source: &'a dyn Source,
    ) -> Result<Self, BuildError> {
        let mut items = Vec::new();
        for text in &request.sources {
            find(source, text, &mut items)?;
        }
        items.extend(request.texts.iter().map(|(name, text)| Item::Text {
            name: name.clone(),
            text: text.clone(),
        }));
        let into_directory = items.len() + remotes.len() > 1
            || request.to.ends_with('/')
            || matches!(request.to.rsplit('/').next(), Some("." | ".."));
        let chmod = request.chmod.as_deref().map(Chmod::parse).transpose()?;
        if let Some(unnamed) = remotes
            .iter()
            .find(|r| into_directory && r.name().is_empty())
        {
            return Err(unnamed_file(unnamed));
        }
        Ok(Self {
            source,
            items,
            to: absolute(&request.workdir, &request.to),
            into_directory,
            request,
            remotes,
            chmod,
        })
    }

    /// Tells `into` everything that the result depends on beside the stage.
    ///
    /// # Errors
    /// What the source says.
    pub(super) fn fingerprint(&self, into: &mut Hasher) -> Result<(), BuildError> {
        let asked = format!(
            "{} {:?} {} {:?} {:?}\0",
            self.request.add, self.to, self.into_directory, self.request.chown, self.chmod
        );
        into.update(asked.as_bytes());
        for item in &self.items {
            match item {
                Item::File { path, name, is_dir } => {
                    if !is_dir {
                        into.update(name.as_bytes());
                        into.update(b"\0");
                    }
                    source::fingerprint(self.source, path, into)?;
                }
                Item::Text { name, text } => {
                    into.update(format!("{name}\0{}\0{text}", text.len()).as_bytes());
                }
            }
        }
        for remote in self.remotes {
            into.update(format!("\0address {}\0", remote.fingerprint()).as_bytes());
        }
        Ok(())
    }

    /// Writes all of it into `union`.
    ///
    /// # Errors
    /// What is in the way, and what source and tree say.
    pub(super) fn write(
        &self,
        union: &Union,
        cancel: &pellicle_store::import::Cancel,
    ) -> Result<(), BuildError> {
        let owner = match &self.request.chown {
            Some(text) => owner(union, text)?,
            None => (0, 0),
        };
        let mut placer = Placer::new(union, owner, self.chmod.clone(), cancel);
        let is_dir = self.into_directory
            || placer
                .find(&self.to)?
                .is_some_and(|a| a.kind == FileKind::Directory);
        for item in &self.items {
            match item {
                Item::File {
                    path, is_dir: true, ..
                } => self.directory(&mut placer, path, owner)?,
                Item::File { path, .. }
                    if self.request.add && unpack::is_archive(self.source, path)? =>
                {
                    let into = placer.directory(&self.to)?;
                    let chown = self.request.chown.is_some().then_some(owner);
                    unpack::unpack(&mut placer, self.source, path, into, &self.to, chown)?;
                }
                Item::File { path, name, .. } => {
                    let (dir, name) = self.target(&placer, is_dir, name.as_bytes())?;
                    if let Some(entry) = self.source.entry(path)? {
                        placer.one(self.source, path, &entry, dir, &name)?;
                    }
                }
                Item::Text { name, text } => {
                    let (dir, name) = self.target(&placer, is_dir, name.as_bytes())?;
                    let looks = Looks {
                        uid: owner.0,
                        gid: owner.1,
                        perm: placer.perm(0o644, false),
                        mtime: Time::now(),
                        xattrs: Vec::new(),
                    };
                    placer.file(dir, &name, &mut text.as_bytes(), &looks)?;
                }
            }
        }
        for remote in self.remotes {
            self.remote(&mut placer, is_dir, remote, owner)?;
        }
        placer.finish()
    }

    /// A file of a server: only root's to read, and never unpacked (Dockerfile reference, "ADD").
    fn remote(
        &self,
        placer: &mut Placer<'_>,
        is_dir: bool,
        remote: &Remote<'_>,
        owner: (u32, u32),
    ) -> Result<(), BuildError> {
        if is_dir && remote.name().is_empty() {
            return Err(unnamed_file(remote));
        }
        let (dir, name) = self.target(placer, is_dir, remote.name().as_bytes())?;
        let (mut file, mtime) = remote.open()?;
        let looks = Looks {
            uid: owner.0,
            gid: owner.1,
            perm: placer.perm(0o600, false),
            mtime,
            xattrs: Vec::new(),
        };
        placer.file(dir, &name, &mut file, &looks)?;
        Ok(())
    }

    /// What is in directory `path`, into the destination, which is like it if it is new.
    fn directory(
        &self,
        placer: &mut Placer<'_>,
        path: &Path,
        owner: (u32, u32),
    ) -> Result<(), BuildError> {
        let is_new = placer.find(&self.to)?.is_none();
        let into = match (is_new, self.to.parent(), self.to.file_name()) {
            (true, Some(parent), Some(name)) => {
                let entry = self.source.entry(path)?;
                let looks = entry.map(|entry| Looks {
                    uid: owner.0,
                    gid: owner.1,
                    perm: placer.perm(entry.perm, true),
                    mtime: entry.mtime,
                    xattrs: Vec::new(),
                });
                let above = placer.directory(parent)?;
                match looks {
                    Some(looks) => {
                        let plain = self.source.is_only_a_way(path);
                        placer.new_directory(above, name.as_bytes(), &looks, plain)?
                    }
                    None => placer.directory(&self.to)?,
                }
            }
            _ => placer.directory(&self.to)?,
        };
        placer.contents(self.source, path, into)
    }

    /// Where a file called `name` goes.
    fn target(
        &self,
        placer: &Placer<'_>,
        is_dir: bool,
        name: &[u8],
    ) -> Result<(pellicle_store::Ino, Vec<u8>), BuildError> {
        if !is_dir && let (Some(parent), Some(name)) = (self.to.parent(), self.to.file_name()) {
            return Ok((placer.directory(parent)?, name.as_bytes().to_vec()));
        }
        Ok((placer.directory(&self.to)?, name.to_vec()))
    }
}

fn find(source: &dyn Source, text: &str, items: &mut Vec<Item>) -> Result<(), BuildError> {
    let (pattern, left) = source::inside(text.as_ref());
    if left {
        return Err(BuildError::request(
            format!("{text} leads out of {}", source.name()),
            "only what is in it can be copied: give a directory further up as the context",
        ));
    }
    let missing = || {
        BuildError::request(
            format!("{text} is not in {}", source.name()),
            "check its name, and that no line of .dockerignore or .containerignore leaves it out",
        )
    };
    let found = source::matching(source, &pattern)?;
    if found.is_empty() {
        return Err(missing());
    }
    for path in found {
        let real = source::resolve(source, &path)?.ok_or_else(missing)?;
        let entry = source.entry(&real)?.ok_or_else(missing)?;
        items.push(Item::File {
            name: path.file_name().unwrap_or_default().to_owned(),
            path: real,
            is_dir: entry.kind == FileKind::Directory,
        });
    }
    Ok(())
}

/// `path`, from `workdir` if it is relative, without `.` and `..`.
pub(super) fn absolute(workdir: &str, path: &str) -> PathBuf {
    let whole = Path::new("/").join(workdir).join(path);
    let (clean, _) = source::inside(whole.as_os_str());
    Path::new("/").join(clean)
}

fn unnamed_file(remote: &Remote<'_>) -> BuildError {
    BuildError::request(
        format!("{} names no file", remote.address()),
        "give the destination with the file's name, and without a / at its end",
    )
}

/// The ids that `--chown` gives; a user without a group has a group of its own number, as docker
/// has it.
fn owner(union: &Union, text: &str) -> Result<(u32, u32), BuildError> {
    let passwd = root::read(union, b"/etc/passwd")?;
    let group = root::read(union, b"/etc/group")?;
    let identity = passwd::resolve(text, &passwd, &group).map_err(|e| {
        BuildError::request(
            format!("--chown={text}: {e}"),
            "give numbers, as --chown=1000:1000, or make the user in a RUN before",
        )
    })?;
    let has_group = text.split_once(':').is_some_and(|(_, g)| !g.is_empty());
    let gid = if has_group {
        identity.gid
    } else {
        identity.uid
    };
    Ok((identity.uid, gid))
}
