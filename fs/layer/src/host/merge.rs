//! Scanned directories into one tree, by overlayfs's rules.
//!
//! A name is what the top-most layer that speaks of it says. A directory goes on in the layers
//! below until one says opaque, has something else there, or has a whiteout; with a redirect it goes
//! on under another name of the same merged directory, or, if that begins with `/`, at that path
//! from the tops of the layers below. A file that is only metadata has its content looked for in the
//! same way.

use std::collections::{HashMap, HashSet, VecDeque};

use pellicle_store::{Body, Child, Content, Device, Digest, FileKind, Meta, NodeId, TreeBuilder};

use super::{
    files::{Files, HostFile},
    scan::{Dir, Entry, Key, Other, Scan},
};

/// A directory of one layer.
type Place = (u32, u32);

/// What merging gives.
pub(super) struct Merged {
    pub(super) tree: TreeBuilder,
    pub(super) files: Files,
    pub(super) identity: Digest,
}

struct Merger<'a> {
    /// Top-most first.
    layers: &'a [Scan],
    out: TreeBuilder,
    files: Files,
    /// What inodes of the host have become.
    links: HashMap<(u32, Key), NodeId>,
    todo: VecDeque<(Vec<Place>, NodeId)>,
    identity: Digest,
    said: Vec<u8>,
}

/// Where the next layer down has it.
enum Way {
    /// Under this name in the same merged directory.
    Name(Vec<u8>),
    /// At this path from the layer's top.
    Path(Vec<u8>),
}

/// What a layer has at some place.
enum Hit<'a> {
    Nothing,
    /// Nothing here, nor to be looked for further down.
    Stop,
    Whiteout,
    Dir(u32),
    Other(&'a Other),
}

/// What a name is, all layers considered.
enum Found<'a> {
    Nothing,
    Dir(Vec<Place>),
    /// Attributes of the first, content of the second.
    Other(u32, &'a Other, Option<(Place, Vec<u8>, &'a Other)>),
}

/// Merges `layers`, top-most first. `keep`: whiteouts and opaque marks stay, for layers below these.
pub(super) fn merge(layers: &[Scan], keep: bool) -> Merged {
    let mut merger = Merger {
        layers,
        out: TreeBuilder::new(),
        files: Files::default(),
        links: HashMap::new(),
        todo: VecDeque::new(),
        identity: Digest::of(b"pellicle host directories 1"),
        said: Vec::new(),
    };
    let mut tops = Vec::new();
    for (layer, scan) in (0_u32..).zip(layers) {
        tops.push((layer, 0));
        if scan.dir(0).is_some_and(|dir| dir.opaque) {
            break;
        }
    }
    let root = merger.out.root();
    merger.set_dir(root, &tops);
    merger.describe(b"", root, 0);
    merger.todo.push_back((tops, root));
    while let Some((places, node)) = merger.todo.pop_front() {
        merger.directory(&places, node, keep);
    }
    Merged {
        tree: merger.out,
        files: merger.files,
        identity: merger.identity,
    }
}

impl<'a> Merger<'a> {
    fn dir(&self, place: Place) -> Option<&'a Dir> {
        self.layers.get(place.0 as usize)?.dir(place.1)
    }

    fn layer_number(&self, layer: u32) -> u32 {
        // Lowest 0 outside, top-most 0 here.
        u32::try_from(self.layers.len())
            .unwrap_or(u32::MAX)
            .saturating_sub(layer + 1)
    }

    fn set_dir(&mut self, node: NodeId, places: &[Place]) {
        let Some(top) = places.first() else { return };
        let Some(dir) = self.dir(*top) else { return };
        *self.out.meta_mut(node) = dir.meta.clone();
        self.out.set_layer(node, self.layer_number(top.0));
        // A tree of host directories has no use of its own for "implied": it means closed here.
        self.out.set_implied(node, dir.closed);
    }

    fn directory(&mut self, places: &[Place], node: NodeId, keep: bool) {
        self.say(&(u64::from(node.index())).to_le_bytes());
        let mut seen: HashSet<&[u8]> = HashSet::new();
        let mut names: Vec<(&[u8], usize)> = Vec::new();
        for (at, place) in places.iter().enumerate() {
            let Some(dir) = self.dir(*place) else {
                continue;
            };
            for (name, _) in &dir.entries {
                // Names of one directory differ; only several can say a thing twice.
                if places.len() == 1 || seen.insert(name) {
                    names.push((name, at));
                }
            }
            if keep && dir.opaque {
                self.out.set_opaque(node);
            }
        }
        if places.len() > 1 {
            names.sort_unstable();
        }
        for (name, at) in names {
            match self.find(places, at, name) {
                Found::Nothing if keep => self.out.set_child(node, name, Child::Whiteout),
                Found::Nothing => {}
                Found::Dir(below) => {
                    let child = self.out.add_node(Meta::default(), Body::Directory);
                    self.set_dir(child, &below);
                    self.out.set_child(node, name, Child::Node(child));
                    self.describe(name, child, 0);
                    self.todo.push_back((below, child));
                }
                Found::Other(layer, other, data) => {
                    let child = self.other(places, at, name, (layer, other), data);
                    self.out.set_child(node, name, Child::Node(child));
                    self.describe(name, child, other.size);
                }
            }
        }
        let so_far = [&self.identity.0[..], &self.said].concat();
        self.identity = Digest::of(&so_far);
        self.said.clear();
    }

    /// What `name` of the directory at `places` is, the `at`-th of them being the first to have it.
    fn find(&self, places: &[Place], at: usize, name: &[u8]) -> Found<'a> {
        let mut way = Way::Name(name.to_vec());
        let mut dirs: Vec<Place> = Vec::new();
        let mut file: Option<(u32, &'a Other)> = None;
        let mut rest: Vec<Place> = places.get(at..).unwrap_or_default().to_vec();
        let mut next = 0;
        while let Some(place) = rest.get(next).copied() {
            next += 1;
            let mut last = false;
            let (parent, hit) = match &way {
                Way::Name(name) => (place.1, self.look(place, name)),
                Way::Path(path) => self.walk(place.0, &path.clone(), &mut way, &mut last),
            };
            let (layer, redirect) = match hit {
                Hit::Nothing if last => break,
                Hit::Nothing => continue,
                Hit::Stop | Hit::Whiteout => break,
                Hit::Dir(found) if file.is_none() => {
                    dirs.push((place.0, found));
                    let Some(dir) = self.dir((place.0, found)) else {
                        break;
                    };
                    if dir.opaque || dir.closed {
                        break;
                    }
                    (place.0, &dir.redirect)
                }
                Hit::Other(other) if dirs.is_empty() => {
                    let Some((layer, top)) = file else {
                        file = Some((place.0, other));
                        if !other.metacopy || other.kind != FileKind::Regular {
                            return Found::Other(place.0, other, None);
                        }
                        if let Some(redirect) = &other.redirect {
                            self.turn(&mut way, redirect, place.0, &mut rest, &mut next);
                        }
                        continue;
                    };
                    if other.kind != FileKind::Regular {
                        break;
                    }
                    if !other.metacopy {
                        let name = match &way {
                            Way::Name(name) => name.clone(),
                            Way::Path(path) => path
                                .rsplit(|b| *b == b'/')
                                .next()
                                .unwrap_or_default()
                                .to_vec(),
                        };
                        let data = ((place.0, parent), name, other);
                        return Found::Other(layer, top, Some(data));
                    }
                    (place.0, &other.redirect)
                }
                Hit::Dir(_) | Hit::Other(_) => break,
            };
            if last {
                break;
            }
            if let Some(redirect) = redirect {
                self.turn(&mut way, redirect, layer, &mut rest, &mut next);
            }
        }
        match file {
            // Metadata whose content is nowhere: as the file is in its layer.
            Some((layer, other)) => Found::Other(layer, other, None),
            None if dirs.is_empty() => Found::Nothing,
            None => Found::Dir(dirs),
        }
    }

    /// Goes on below `layer` where `redirect` says.
    fn turn(
        &self,
        way: &mut Way,
        redirect: &[u8],
        layer: u32,
        rest: &mut Vec<Place>,
        next: &mut usize,
    ) {
        if redirect.starts_with(b"/") {
            let layers = u32::try_from(self.layers.len()).unwrap_or(u32::MAX);
            *rest = (layer + 1..layers).map(|layer| (layer, 0)).collect();
            *next = 0;
            *way = Way::Path(redirect.to_vec());
            return;
        }
        match way {
            Way::Name(name) => *name = redirect.to_vec(),
            Way::Path(path) => {
                let keep = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
                path.truncate(keep);
                path.extend_from_slice(redirect);
            }
        }
    }

    fn look(&self, place: Place, name: &[u8]) -> Hit<'a> {
        let entry = self
            .layers
            .get(place.0 as usize)
            .and_then(|layer| layer.child(place.1, name));
        match entry {
            None => Hit::Nothing,
            Some(Entry::Whiteout) => Hit::Whiteout,
            Some(Entry::Dir(dir)) => Hit::Dir(*dir),
            Some(Entry::Other(other)) => Hit::Other(other),
        }
    }

    /// What `layer` has at `path`, with the directory it is in. A directory on the way that is
    /// redirected turns the way for the layers below; one that is opaque makes this layer the last.
    fn walk(&self, layer: u32, path: &[u8], way: &mut Way, last: &mut bool) -> (u32, Hit<'a>) {
        let names: Vec<&[u8]> = path
            .split(|b| *b == b'/')
            .filter(|name| !name.is_empty())
            .collect();
        let (mut at, mut turned): (u32, Option<Vec<u8>>) = (0, None);
        for (i, name) in names.iter().enumerate() {
            let is_last = i + 1 == names.len();
            if let Some(so_far) = &mut turned {
                so_far.push(b'/');
                so_far.extend_from_slice(name);
            }
            let hit = self.look((layer, at), name);
            if is_last {
                if let Some(path) = turned {
                    *way = Way::Path(path);
                }
                return (at, hit);
            }
            let Hit::Dir(dir) = hit else {
                return match hit {
                    Hit::Nothing => (at, Hit::Nothing),
                    _ => (at, Hit::Stop),
                };
            };
            if let Some(found) = self.dir((layer, dir)) {
                *last |= found.opaque;
                if let Some(redirect) = &found.redirect {
                    let mut path = match (redirect.starts_with(b"/"), turned.take()) {
                        (true, _) => Vec::new(),
                        (false, Some(so_far)) => {
                            let end = so_far.iter().rposition(|b| *b == b'/').unwrap_or(0);
                            let mut above = so_far.get(..end).unwrap_or_default().to_vec();
                            above.push(b'/');
                            above
                        }
                        (false, None) => {
                            let mut above = vec![b'/'];
                            for name in names.get(..i).unwrap_or_default() {
                                above.extend_from_slice(name);
                                above.push(b'/');
                            }
                            above
                        }
                    };
                    path.extend_from_slice(redirect);
                    turned = Some(path);
                }
            }
            at = dir;
        }
        (0, Hit::Dir(at))
    }

    /// The node of what is no directory; one for all names of an inode.
    fn other(
        &mut self,
        places: &[Place],
        at: usize,
        name: &[u8],
        (layer, other): (u32, &'a Other),
        data: Option<(Place, Vec<u8>, &'a Other)>,
    ) -> NodeId {
        if other.nlink > 1
            && let Some(node) = self.links.get(&(layer, other.key))
        {
            return *node;
        }
        let own = places.get(at).copied().unwrap_or((layer, 0));
        let (place, name, from) = match &data {
            Some((place, name, from)) => (*place, name.as_slice(), *from),
            None => (own, name, other),
        };
        let body = match other.kind {
            FileKind::Regular if from.size == 0 => Body::Regular {
                size: 0,
                content: Content::Empty,
            },
            FileKind::Regular => Body::Regular {
                size: from.size,
                content: Content::Span {
                    offset: self.file(place, name, from),
                },
            },
            FileKind::Symlink => Body::Symlink(other.target.to_vec()),
            FileKind::CharDevice => Body::CharDevice(other.rdev),
            FileKind::BlockDevice => Body::BlockDevice(other.rdev),
            FileKind::Fifo => Body::Fifo,
            FileKind::Socket | FileKind::Directory => Body::Socket,
        };
        let node = self.out.add_node(other.meta.clone(), body);
        self.out.set_layer(node, self.layer_number(layer));
        if other.nlink > 1 {
            self.links.insert((layer, other.key), node);
        }
        node
    }

    /// Where the content of `from` is, in numbers that a tree can hold.
    fn file(&mut self, (layer, dir): Place, name: &[u8], from: &Other) -> u64 {
        let scan = self.layers.get(layer as usize);
        let dir = self
            .files
            .dir(layer, dir, scan.map_or(&[][..], |scan| &scan.dirs));
        self.files.add(HostFile {
            dir,
            name: name.into(),
            key: from.key,
            blocks: from.blocks,
        })
    }

    fn say(&mut self, bytes: &[u8]) {
        self.said.extend_from_slice(bytes);
    }

    /// Puts what makes `name` what it is into the identity. Times of access and change are not
    /// part of it: reading, linking and copying elsewhere change them.
    fn describe(&mut self, name: &[u8], node: NodeId, size: u64) {
        let said = &mut self.said;
        let meta = self.out.meta(node);
        let body = self.out.body(node);
        let number = |said: &mut Vec<u8>, n: u64| said.extend_from_slice(&n.to_le_bytes());
        let text = |said: &mut Vec<u8>, text: &[u8]| {
            number(said, text.len() as u64);
            said.extend_from_slice(text);
        };
        text(said, name);
        number(said, node.index().into());
        number(
            said,
            (body.kind().mode_bits() | u32::from(meta.perm)).into(),
        );
        number(said, u64::from(meta.uid) << 32 | u64::from(meta.gid));
        number(said, size);
        said.extend_from_slice(&meta.mtime.sec.to_le_bytes());
        number(said, meta.mtime.nsec.into());
        match body {
            Body::Symlink(target) => text(said, target),
            Body::CharDevice(Device { major, minor })
            | Body::BlockDevice(Device { major, minor }) => {
                number(said, u64::from(*major) << 32 | u64::from(*minor));
            }
            Body::Directory | Body::Regular { .. } | Body::Fifo | Body::Socket => {}
        }
        number(said, meta.xattrs.len() as u64);
        for (name, value) in &meta.xattrs {
            text(said, name);
            text(said, value);
        }
    }
}
