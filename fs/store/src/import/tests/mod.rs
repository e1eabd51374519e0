//! Properties of the import, from hand-made streams.

mod bad_input;
mod directories;
mod entries;
mod in_place;
mod mutations;
mod sparse;
mod stored;
mod streams;
mod tarball;

use std::{collections::BTreeMap, fmt::Write as _, io::Read};

use super::{
    Cancel, ImportError,
    assemble::Contents,
    chunks::ChunkReader,
    pipeline::{Pass, Passed},
    tar::TarReader,
};
use crate::tree::{Body, Child, Content, Extent, NodeId, Packed, TreeBuilder};

/// Keeps all contents in the tree.
struct InTree;

impl Contents<ChunkReader> for InTree {
    fn keep(
        &mut self,
        from: &mut TarReader<ChunkReader>,
        extents: Option<Vec<Extent>>,
        _: &TreeBuilder,
    ) -> Result<Content, ImportError> {
        let mut data = Vec::new();
        loop {
            let bytes = from.content()?;
            if bytes.is_empty() {
                break;
            }
            data.extend_from_slice(bytes);
            let n = bytes.len();
            from.consume(n);
        }
        Ok(match extents {
            None => Content::Inline(data),
            Some(extents) => Content::Sparse {
                extents,
                data: Packed::Inline(data),
            },
        })
    }
}

fn run(source: impl Read + Send) -> Result<Passed, ImportError> {
    let pass = Pass {
        name: "t.tar",
        cancel: &Cancel::default(),
        progress: &(),
        show_marks: false,
    };
    pass.run(source, &mut |_| Ok(()), &mut InTree)
}

fn parse(stream: &[u8]) -> Result<TreeBuilder, ImportError> {
    Ok(run(stream)?.tree)
}

/// What a stream becomes, a line per name.
fn shown(stream: &[u8]) -> BTreeMap<String, String> {
    match parse(stream) {
        Ok(tree) => show(&tree),
        Err(e) => panic!("{}", chain(&e)),
    }
}

fn show(tree: &TreeBuilder) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    walk(tree, tree.root(), "", &mut lines);
    lines
}

fn walk(tree: &TreeBuilder, dir: NodeId, path: &str, lines: &mut BTreeMap<String, String>) {
    lines.insert(format!("{path}/"), describe(tree, dir));
    for (name, child) in tree.children(dir) {
        let path = format!("{path}/{}", name.escape_ascii());
        match child {
            Child::Whiteout => drop(lines.insert(path, "whiteout".into())),
            Child::Node(n) if *tree.body(n) == Body::Directory => walk(tree, n, &path, lines),
            Child::Node(n) => drop(lines.insert(path, describe(tree, n))),
        }
    }
}

fn describe(tree: &TreeBuilder, n: NodeId) -> String {
    let meta = tree.meta(n);
    let mut line = format!("{:o} {}:{}", meta.perm, meta.uid, meta.gid);
    match tree.body(n) {
        Body::Directory => {
            if tree.is_implied(n) {
                line = "implied".into();
            }
            if tree.is_opaque(n) {
                line += " opaque";
            }
        }
        Body::Regular { size, content } => match content {
            Content::Inline(bytes) => write!(line, " file {}", bytes.escape_ascii()).unwrap(),
            Content::Sparse {
                extents,
                data: Packed::Inline(bytes),
            } => {
                write!(line, " sparse {size}").unwrap();
                for e in extents {
                    write!(line, " {}+{}", e.offset, e.len).unwrap();
                }
                write!(line, " {}", bytes.escape_ascii()).unwrap();
            }
            other => write!(line, " {other:?}").unwrap(),
        },
        Body::Symlink(target) => write!(line, " -> {}", target.escape_ascii()).unwrap(),
        Body::CharDevice(d) => write!(line, " char {},{}", d.major, d.minor).unwrap(),
        Body::BlockDevice(d) => write!(line, " block {},{}", d.major, d.minor).unwrap(),
        other => write!(line, " {other:?}").unwrap(),
    }
    line
}

/// An error with its causes, as the command line prints it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        write!(text, ": {e}").unwrap();
        cause = e.source();
    }
    text
}

/// The message that a stream is refused with.
fn refusal(stream: &[u8]) -> String {
    match parse(stream) {
        Ok(tree) => panic!("accepted: {:?}", show(&tree)),
        Err(e) => chain(&e),
    }
}
