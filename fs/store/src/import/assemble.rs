//! From members to a tree: where each entry goes, and what it replaces.
//!
//! Entries count in their order: the last of a name wins, a directory over a directory changes only
//! its metadata, anything else replaces with all that is below. Marks (whiteouts, opaque) count for
//! the layers below only and may stand before or after what the layer itself has there (OCI
//! image-spec layer.md). A component that is a symbolic link is not followed: which file it leads
//! to depends on layers that are not known here.

use super::{
    ImportError, TarProblem,
    paths::{self, Mark},
    tar::{Bytes, Member, MemberKind, TarReader},
};
use crate::{
    FileKind,
    tree::{Body, Child, Content, Extent, Meta, NodeId, TreeBuilder},
};

/// Takes the stored bytes of files out of the stream and says where they are kept.
pub(super) trait Contents<B> {
    /// Keeps the stored bytes of the current member of `from`: the whole content, or that of
    /// `extents`. `tree` is what was built so far.
    fn keep(
        &mut self,
        from: &mut TarReader<B>,
        extents: Option<Vec<Extent>>,
        tree: &TreeBuilder,
    ) -> Result<Content, ImportError>;
}

/// A tree that grows member by member.
pub(super) struct Assembler {
    tree: TreeBuilder,
    /// Take marks for what they are in a tar: empty files.
    show_marks: bool,
    /// Members taken so far.
    entries: u64,
}

impl Assembler {
    /// An empty tree. With `show_marks`, whiteouts and opaque marks are files like any other.
    pub(super) fn new(show_marks: bool) -> Self {
        let mut tree = TreeBuilder::new();
        tree.set_implied(tree.root(), true);
        Self {
            tree,
            show_marks,
            entries: 0,
        }
    }

    /// Members taken so far.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// The tree.
    pub(super) fn finish(self) -> TreeBuilder {
        self.tree
    }

    /// Puts `member`, the current one of `from`, into the tree.
    pub(super) fn add<B: Bytes>(
        &mut self,
        from: &mut TarReader<B>,
        member: Member,
        contents: &mut impl Contents<B>,
    ) -> Result<(), ImportError> {
        self.entries += 1;
        let name = &member.name;
        let at = |problem| from.error(problem);
        let parts = paths::components(name, "name").map_err(at)?;
        let mark = match self.show_marks {
            true => Mark::Entry,
            false => paths::mark(&parts).map_err(at)?,
        };
        let Some((last, parents)) = parts.split_last() else {
            return self.root(member.kind, member.meta).map_err(at);
        };
        if mark == Mark::Ignored {
            return Ok(());
        }
        let dir = self.directory(parents).map_err(at)?;
        match mark {
            Mark::Ignored => Ok(()),
            Mark::Opaque => {
                self.tree.set_opaque(dir);
                Ok(())
            }
            Mark::Whiteout(hidden) => {
                self.whiteout(dir, hidden);
                Ok(())
            }
            Mark::Entry => {
                let path = Place { dir, name: last };
                self.entry(from, &path, member.kind, member.meta, contents)
            }
        }
    }

    fn root(&mut self, kind: MemberKind, meta: Meta) -> Result<(), TarProblem> {
        if !matches!(kind, MemberKind::Directory) {
            return Err(TarProblem::Path {
                what: "name",
                why: "is that of the root, which is a directory",
            });
        }
        let root = self.tree.root();
        self.describe(root, meta);
        Ok(())
    }

    /// Gives a directory its own metadata.
    fn describe(&mut self, dir: NodeId, meta: Meta) {
        *self.tree.meta_mut(dir) = meta;
        self.tree.set_implied(dir, false);
    }

    /// The directory at `parts`; what is missing of it is implied.
    fn directory(&mut self, parts: &[&[u8]]) -> Result<NodeId, TarProblem> {
        let mut dir = self.tree.root();
        for (depth, part) in parts.iter().enumerate() {
            let child = self.tree.child(dir, part);
            dir = match child {
                Some(Child::Node(node)) => {
                    let kind = self.tree.kind(node);
                    if kind != FileKind::Directory {
                        return Err(TarProblem::ParentNotDirectory {
                            parent: parts.get(..=depth).unwrap_or_default().join(&b'/'),
                            kind: kind_name(kind),
                        });
                    }
                    node
                }
                Some(Child::Whiteout) | None => {
                    let meta = Meta {
                        perm: 0o755,
                        ..Meta::default()
                    };
                    let place = Place { dir, name: part };
                    let made = self.new_directory(&place, meta);
                    self.tree.set_implied(made, true);
                    made
                }
            };
        }
        Ok(dir)
    }

    /// A new directory in place of whatever was there; opaque if something was, since that hid what
    /// the layers below have.
    fn new_directory(&mut self, place: &Place<'_>, meta: Meta) -> NodeId {
        let made = self.tree.add_node(meta, Body::Directory);
        if self.tree.child(place.dir, place.name).is_some() {
            self.tree.set_opaque(made);
        }
        self.tree
            .set_child(place.dir, place.name, Child::Node(made));
        made
    }

    /// A whiteout never hides what its own layer has: over a directory it hides what the layers
    /// below have in it, over a file (which hides them anyway) it says nothing.
    fn whiteout(&mut self, dir: NodeId, hidden: &[u8]) {
        match self.tree.child(dir, hidden) {
            Some(Child::Node(node)) if self.tree.kind(node) == FileKind::Directory => {
                self.tree.set_opaque(node);
            }
            Some(_) => {}
            None => self.tree.set_child(dir, hidden, Child::Whiteout),
        }
    }

    fn entry<B: Bytes>(
        &mut self,
        from: &mut TarReader<B>,
        place: &Place<'_>,
        kind: MemberKind,
        meta: Meta,
        contents: &mut impl Contents<B>,
    ) -> Result<(), ImportError> {
        let body = match kind {
            MemberKind::Directory => {
                match self.tree.child(place.dir, place.name) {
                    Some(Child::Node(old)) if self.tree.kind(old) == FileKind::Directory => {
                        self.describe(old, meta);
                    }
                    _ => {
                        self.new_directory(place, meta);
                    }
                }
                return Ok(());
            }
            MemberKind::HardLink(target) => {
                let node = self.link_target(&target).map_err(|p| from.error(p))?;
                self.tree
                    .set_child(place.dir, place.name, Child::Node(node));
                return Ok(());
            }
            MemberKind::Regular { size, extents } => Body::Regular {
                size,
                content: contents.keep(from, whole(size, extents), &self.tree)?,
            },
            MemberKind::Symlink(target) => {
                Body::Symlink(symlink(target).map_err(|p| from.error(p))?)
            }
            MemberKind::CharDevice(device) => Body::CharDevice(device),
            MemberKind::BlockDevice(device) => Body::BlockDevice(device),
            MemberKind::Fifo => Body::Fifo,
        };
        let node = self.tree.add_node(meta, body);
        self.tree
            .set_child(place.dir, place.name, Child::Node(node));
        Ok(())
    }

    /// The inode that a hard link leads to: it must be in this layer, before the link, and reached
    /// through directories only.
    fn link_target(&self, target: &[u8]) -> Result<NodeId, TarProblem> {
        let nothing = || TarProblem::LinkToNothing {
            target: target.to_vec(),
        };
        let mut node = self.tree.root();
        for part in paths::components(target, "link target")? {
            node = match self.tree.child(node, part) {
                Some(Child::Node(node)) => node,
                Some(Child::Whiteout) | None => return Err(nothing()),
            };
        }
        if self.tree.kind(node) == FileKind::Directory {
            return Err(TarProblem::LinkToDirectory {
                target: target.to_vec(),
            });
        }
        Ok(node)
    }
}

/// A name in a directory.
struct Place<'a> {
    dir: NodeId,
    name: &'a [u8],
}

/// A map that says all is data says nothing.
fn whole(size: u64, extents: Option<Vec<Extent>>) -> Option<Vec<Extent>> {
    extents.filter(|extents| {
        **extents
            != [Extent {
                offset: 0,
                len: size,
            }]
    })
}

/// Checks what only `readlink(2)` will ever look at.
fn symlink(target: Vec<u8>) -> Result<Vec<u8>, TarProblem> {
    let why = if target.is_empty() {
        "is empty"
    } else if target.len() > paths::PATH_MAX {
        "has more than 4095 bytes"
    } else if target.contains(&0) {
        "has a zero byte in it"
    } else {
        return Ok(target);
    };
    Err(TarProblem::Path {
        what: "link target",
        why,
    })
}

fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symbolic link",
        FileKind::CharDevice | FileKind::BlockDevice => "device",
        FileKind::Fifo => "FIFO",
        FileKind::Socket => "socket",
    }
}
