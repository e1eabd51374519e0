//! Numbers the nodes of a [`TreeBuilder`], and checks that it can be a tree file.

use super::{
    Body, Child, Content, Extent, Meta, NodeId, TreeBuilder, TreeError,
    format::{MAX_COUNT, TARGET_MAX, XATTR_MAX, name_fault},
    write::{extents_of, inline_of, limit},
};
use crate::Time;

/// The numbers of the nodes that names lead to.
pub(super) struct Numbers {
    /// The nodes in the order of their numbers.
    pub(super) order: Vec<NodeId>,
    /// Per node of the builder, whether or not a name leads to it.
    of: Vec<Number>,
}

#[derive(Clone, Copy, Default)]
struct Number {
    /// 0: no name leads to it.
    ino: u32,
    nlink: u32,
    /// Inode number of a directory's parent.
    parent: u32,
}

impl Numbers {
    fn get(&self, id: NodeId) -> Number {
        self.of.get(id.0 as usize).copied().unwrap_or_default()
    }

    pub(super) fn ino(&self, id: NodeId) -> u32 {
        self.get(id).ino
    }

    pub(super) fn nlink(&self, id: NodeId) -> u32 {
        self.get(id).nlink
    }

    pub(super) fn parent(&self, id: NodeId) -> u32 {
        self.get(id).parent
    }

    /// Numbers `id` if it has no number yet; whether it had none.
    fn visit(&mut self, id: NodeId, is_dir: bool, parent: u32) -> bool {
        let next = self.order.len() as u32 + 1;
        let Some(number) = self.of.get_mut(id.0 as usize) else {
            return false;
        };
        let new = number.ino == 0;
        if new {
            *number = Number {
                ino: next,
                nlink: if is_dir { 2 } else { 0 },
                parent,
            };
            self.order.push(id);
        }
        new
    }

    fn add_link(&mut self, id: NodeId) {
        if let Some(number) = self.of.get_mut(id.0 as usize) {
            number.nlink = number.nlink.saturating_add(1);
        }
    }
}

/// Numbers the nodes breadth first, and brings each node's extended attributes in order.
pub(super) fn number(tree: &mut TreeBuilder) -> Result<Numbers, TreeError> {
    limit(tree.nodes.len(), "inodes")?;
    sort_xattrs(tree);
    let mut numbers = Numbers {
        order: Vec::with_capacity(tree.nodes.len()),
        of: vec![Number::default(); tree.nodes.len()],
    };
    check_node(tree, tree.root(), b"/")?;
    numbers.visit(tree.root(), true, 1);
    let (mut at, mut names, mut extents) = (0, 0, 0);
    while let Some(dir) = numbers.order.get(at).copied() {
        at += 1;
        if let Body::Regular { content, .. } = tree.body(dir) {
            extents += extents_of(content).len();
        }
        let parent = numbers.ino(dir);
        for (name, child) in tree.children(dir) {
            names += 1;
            if let Some(fault) = name_fault(name) {
                return Err(unstorable(name, fault));
            }
            let Child::Node(id) = child else { continue };
            let is_dir = *tree.body(id) == Body::Directory;
            if numbers.visit(id, is_dir, parent) {
                check_node(tree, id, name)?;
            } else if is_dir || id.0 as usize >= tree.nodes.len() {
                return Err(unstorable(name, "a directory cannot have two names"));
            }
            numbers.add_link(if is_dir { dir } else { id });
        }
    }
    limit(names, "names")?;
    limit(extents, "extents")?;
    Ok(numbers)
}

fn sort_xattrs(tree: &mut TreeBuilder) {
    for node in &mut tree.nodes {
        node.meta.xattrs.sort_unstable();
    }
}

fn unstorable(name: &[u8], detail: &str) -> TreeError {
    TreeError::Unstorable {
        name: name.to_vec(),
        detail: detail.into(),
    }
}

fn check_node(tree: &TreeBuilder, id: NodeId, name: &[u8]) -> Result<(), TreeError> {
    let node = tree.node(id);
    let fault = meta_fault(&node.meta).or_else(|| match &node.body {
        Body::Symlink(target) => target_fault(target),
        Body::Regular { size, content } => content_fault(*size, content),
        _ => None,
    });
    fault.map_or(Ok(()), |fault| Err(unstorable(name, fault)))
}

fn meta_fault(meta: &Meta) -> Option<&'static str> {
    if meta.perm > 0o7777 {
        return Some("its permissions are not within 0..=07777");
    }
    let bad = |t: &Time| t.nsec >= 1_000_000_000;
    if [&meta.atime, &meta.mtime, &meta.ctime].into_iter().any(bad) {
        return Some("a time has more nanoseconds than a second");
    }
    if meta
        .xattrs
        .windows(2)
        .any(|w| matches!(w, [a, b] if a.0 == b.0))
    {
        return Some("an extended attribute is there twice");
    }
    meta.xattrs.iter().find_map(|(n, v)| xattr_fault(n, v))
}

pub(super) fn xattr_fault(name: &[u8], value: &[u8]) -> Option<&'static str> {
    if name.is_empty() || name.len() > 255 || name.contains(&0) {
        Some("the name of an extended attribute is 1 to 255 bytes without NUL")
    } else if value.len() > XATTR_MAX {
        Some("the value of an extended attribute cannot be longer than 65536 bytes")
    } else {
        None
    }
}

pub(super) fn target_fault(target: &[u8]) -> Option<&'static str> {
    if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
        Some("the target of a symbolic link is 1 to 4095 bytes without NUL")
    } else {
        None
    }
}

fn content_fault(size: u64, content: &Content) -> Option<&'static str> {
    if i64::try_from(size).is_err() {
        return Some("a file cannot be larger than 2^63 - 1 bytes");
    }
    let inline = inline_of(content).len() as u64;
    match content {
        Content::Empty | Content::Object(_) => None,
        Content::Inline(_) if inline == size => None,
        Content::Inline(_) => Some("its content is not as long as its size says"),
        Content::Span { offset } => span_fault(*offset, size),
        Content::Sparse { data, .. } => match packed_len(extents_of(content), size) {
            None => Some(EXTENTS_FAULT),
            Some(len) if matches!(data, super::Packed::Inline(_)) && len != inline => {
                Some("its data is not as long as its extents say")
            }
            Some(_) => None,
        },
        Content::SparseSpan { offset, .. } => match packed_len(extents_of(content), size) {
            None => Some(EXTENTS_FAULT),
            Some(len) => span_fault(*offset, len),
        },
    }
}

const EXTENTS_FAULT: &str = "its extents are not ascending, disjoint and inside the file";

fn span_fault(offset: u64, len: u64) -> Option<&'static str> {
    match offset.checked_add(len).map(i64::try_from) {
        Some(Ok(_)) => None,
        _ => Some("its content lies past 2^63 bytes in the archive"),
    }
}

/// Bytes in all of `extents`; `None` if they are not ascending, disjoint, and inside `size` bytes.
fn packed_len(extents: &[Extent], size: u64) -> Option<u64> {
    if extents.len() as u64 > MAX_COUNT {
        return None;
    }
    let (mut end, mut sum) = (0, 0);
    for e in extents {
        if e.len == 0 || e.offset < end {
            return None;
        }
        end = e.offset.checked_add(e.len).filter(|end| *end <= size)?;
        sum += e.len;
    }
    Some(sum)
}
