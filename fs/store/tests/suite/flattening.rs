//! The rules of the OCI image specification, layer.md, one test each.

use pellicle_store::{
    Body, Child, Digest, FileKind, Ino, Tree, TreeBuilder, TreeHeader, TreeKind, Whiteouts,
    flatten, tree::ContentRef,
};

use crate::common::{everything, header, inline, meta, mkdir, put, set, walk};

/// A layer from lines: `d path mode`, `f path content`, `l path target`, `h path existing`,
/// `w path` (whiteout), `o path` (opaque).
fn layer(lines: &[&str]) -> Tree {
    let mut t = TreeBuilder::new();
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        let (path, rest) = (words[1], words.get(2).copied().unwrap_or(""));
        match words[0] {
            "d" => {
                let dir = mkdir(&mut t, path);
                t.meta_mut(dir).perm = u16::from_str_radix(rest, 8).unwrap();
            }
            "f" => drop(put(&mut t, path, meta(0o644), inline(rest.as_bytes()))),
            "l" => drop(put(&mut t, path, meta(0o777), Body::Symlink(rest.into()))),
            "h" => {
                let (dir, name) = rest.rsplit_once('/').unwrap_or(("", rest));
                let dir = mkdir(&mut t, dir);
                let child = t.child(dir, name.as_bytes()).unwrap();
                set(&mut t, path, child);
            }
            "w" => set(&mut t, path, Child::Whiteout),
            "i" => {
                let dir = mkdir(&mut t, path);
                t.set_implied(dir, true);
            }
            "o" => {
                let dir = mkdir(&mut t, path);
                t.set_opaque(dir);
            }
            other => panic!("{other}"),
        }
    }
    Tree::from_bytes(t.finish(&header("layer")).unwrap()).unwrap()
}

fn image(layers: &[Tree]) -> Tree {
    finish(flatten(layers, Whiteouts::Apply).unwrap(), layers.len())
}

fn finish(tree: TreeBuilder, layers: usize) -> Tree {
    let header = TreeHeader {
        kind: TreeKind::Image,
        identity: Digest::of(b"image"),
        layers: (0..layers).map(|i| Digest::of(&[i as u8])).collect(),
    };
    let tree = Tree::from_bytes(tree.finish(&header).unwrap()).unwrap();
    tree.check().unwrap();
    tree
}

/// All paths of `layers` flattened: `path=content@layer`, directories `path/ mode@layer`.
fn flat(layers: &[&[&str]]) -> Vec<String> {
    let layers: Vec<_> = layers.iter().map(|l| layer(l)).collect();
    list(&image(&layers))
}

fn list(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    for (path, seen) in walk(tree).unwrap() {
        let path = String::from_utf8(path).unwrap();
        let path = path.trim_matches('/');
        let layer = seen.layer;
        let ino = seen.attr.ino;
        match seen.attr.kind {
            _ if path.is_empty() => {}
            FileKind::Directory => out.push(format!("{path}/ {:o}@{layer}", seen.attr.perm)),
            FileKind::Symlink => {
                let target = String::from_utf8_lossy(tree.readlink(ino).unwrap()).into_owned();
                out.push(format!("{path}->{target}@{layer}"));
            }
            _ => {
                let text = match tree.content(ino).unwrap() {
                    ContentRef::Inline(text) => String::from_utf8_lossy(text).into_owned(),
                    _ => String::new(),
                };
                out.push(format!("{path}={text}@{layer}"));
            }
        }
    }
    out
}

#[test]
fn additions_and_replacements_come_from_the_topmost_layer() {
    assert_eq!(
        flat(&[&["f a 1", "f b 1"], &["f b 2", "f c 2"]]),
        ["a=1@0", "b=2@1", "c=2@1"]
    );
}

#[test]
fn a_whiteout_hides_the_file_and_is_not_seen() {
    assert_eq!(flat(&[&["f a 1", "f b 1"], &["w a"]]), ["b=1@0"]);
}

#[test]
fn a_whiteout_hides_a_whole_directory() {
    assert_eq!(
        flat(&[&["f d/a 1", "f d/e/b 1", "f x 1"], &["w d"]]),
        ["x=1@0"]
    );
}

#[test]
fn a_whiteout_applies_only_to_lower_layers() {
    let mut t = TreeBuilder::new();
    put(&mut t, "d/a", meta(0o644), inline(b"new"));
    set(&mut t, "d/b", Child::Whiteout);
    let upper = Tree::from_bytes(t.finish(&header("u")).unwrap()).unwrap();
    let lower = layer(&["f d/a old", "f d/b old", "f d/c old"]);
    assert_eq!(
        list(&image(&[lower, upper])),
        ["d/ 755@1", "d/a=new@1", "d/c=old@0"]
    );
}

#[test]
fn a_whiteout_of_nothing_and_in_the_lowest_layer_has_no_effect() {
    assert_eq!(
        flat(&[&["f a 1", "w b", "w d/x"], &["w zzz"]]),
        ["a=1@0", "d/ 755@0"]
    );
}

#[test]
fn a_name_hidden_in_one_layer_can_come_back_in_a_higher_one() {
    let layers: [&[&str]; 3] = [&["f a 1"], &["w a"], &["f a 3"]];
    assert_eq!(flat(&layers), ["a=3@2"]);
}

#[test]
fn an_opaque_directory_hides_lower_children_but_not_its_own() {
    let layers: [&[&str]; 2] = [
        &["f d/a 1", "f d/b 1", "f d/e/c 1", "f x 1"],
        &["o d", "f d/b 2", "f d/e/n 2"],
    ];
    assert_eq!(
        flat(&layers),
        ["d/ 755@1", "d/b=2@1", "d/e/ 755@1", "d/e/n=2@1", "x=1@0"]
    );
}

#[test]
fn an_opaque_root_hides_everything_below() {
    assert_eq!(flat(&[&["f a 1", "f d/b 1"], &["o ", "f c 2"]]), ["c=2@1"]);
}

#[test]
fn a_directory_over_a_directory_merges_and_brings_its_metadata() {
    let layers: [&[&str]; 2] = [&["d d 700", "f d/a 1"], &["d d 1777", "f d/b 2"]];
    assert_eq!(flat(&layers), ["d/ 1777@1", "d/a=1@0", "d/b=2@1"]);
}

#[test]
fn a_directory_that_is_only_implied_keeps_the_metadata_below() {
    let layers: [&[&str]; 2] = [&["d tmp 1777"], &["i tmp", "f tmp/x 2"]];
    assert_eq!(flat(&layers), ["tmp/ 1777@0", "tmp/x=2@1"]);
    assert_eq!(
        flat(&[&["f a 1"], &["i tmp", "f tmp/x 2"]]),
        ["a=1@0", "tmp/ 755@1", "tmp/x=2@1"]
    );
}

#[test]
fn a_directory_over_a_file_and_a_file_over_a_directory_replace() {
    assert_eq!(flat(&[&["f a 1"], &["f a/b 2"]]), ["a/ 755@1", "a/b=2@1"]);
    assert_eq!(flat(&[&["f a/b 1"], &["f a 2"]]), ["a=2@1"]);
    assert_eq!(flat(&[&["f a/b 1"], &["l a /etc"]]), ["a->/etc@1"]);
    assert_eq!(
        flat(&[&["l a /etc"], &["f a/passwd 2"]]),
        ["a/ 755@1", "a/passwd=2@1"]
    );
}

#[test]
fn a_file_over_a_directory_and_then_a_directory_does_not_bring_the_old_children_back() {
    let layers: [&[&str]; 3] = [&["f a/old 1"], &["f a 2"], &["f a/new 3"]];
    assert_eq!(flat(&layers), ["a/ 755@2", "a/new=3@2"]);
}

#[test]
fn hard_links_of_a_layer_stay_one_inode_and_are_cut_by_replacement() {
    let lower = layer(&["f a 1", "h b a", "h d/c a"]);
    let upper = layer(&["f b 2"]);
    let tree = image(&[lower, upper]);
    let get = |path: &str| walk(&tree).unwrap()[format!("/{path}/").as_bytes()].clone();
    assert_eq!(get("a").attr.ino, get("d/c").attr.ino);
    assert_eq!(get("a").attr.nlink, 2);
    assert_ne!(get("a").attr.ino, get("b").attr.ino);
    assert_eq!(get("b").attr.nlink, 1);
}

#[test]
fn one_layer_shown_has_its_whiteouts_as_files_and_hides_nothing() {
    let one = layer(&["f a 1", "w gone", "o d", "f d/b 1", "w d/c"]);
    let tree = finish(flatten(&[one], Whiteouts::Show).unwrap(), 1);
    assert_eq!(
        list(&tree),
        [
            ".wh.gone=@0",
            "a=1@0",
            "d/ 755@0",
            "d/.wh..wh..opq=@0",
            "d/.wh.c=@0",
            "d/b=1@0"
        ]
    );
}

#[test]
fn flattening_one_layer_without_whiteouts_changes_nothing_else() {
    let mut all = everything();
    let root = all.root();
    for name in [&b"gone"[..], b"zone"] {
        all.remove_child(root, name);
    }
    let sub = mkdir(&mut all, "opaque/sub");
    all.remove_child(sub, b"under");
    let before = Tree::from_bytes(all.finish(&header("x")).unwrap()).unwrap();
    let after = image(std::slice::from_ref(&before));
    let strip = |tree: &Tree| {
        let mut seen = walk(tree).unwrap();
        for entry in seen
            .values_mut()
            .filter(|s| s.attr.kind == FileKind::Directory)
        {
            entry.what.clear();
        }
        seen
    };
    assert_eq!(strip(&before), strip(&after));
    assert!(!after.is_opaque(Ino::ROOT).unwrap());
}

#[test]
fn a_hundred_layers_remember_where_each_file_is_from() {
    let layers: Vec<_> = (0..100)
        .map(|i| layer(&[&format!("f d/only-{i:02} x"), "f d/all x"]))
        .collect();
    let tree = image(&layers);
    let seen = walk(&tree).unwrap();
    for i in 0..100 {
        assert_eq!(seen[format!("/d/only-{i:02}/").as_bytes()].layer, i);
    }
    assert_eq!(seen[&b"/d/all/"[..]].layer, 99);
}
