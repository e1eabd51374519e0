//! Makes the corpora from the golden files and from what the tests' builders build:
//! `cargo run --example seeds`, in `tests/fuzz`. The same files each time, but for the times and
//! salts in journals.

use std::{fs, io, path::Path, sync::Arc};

use pellicle_fuzz::{scratch, shorten_log, shorten_tar, shorten_tree};
use pellicle_layer::Lower as _;
use pellicle_union::{Caller, Ino, KillSetId, NewNode, Options, SetAttr, Union};
use pellicle_upper::{Journal, JournalLower, JournalOptions};

#[allow(dead_code, reason = "the store's tests use all of it")]
#[path = "../../../fs/store/tests/suite/common.rs"]
mod common;
#[allow(dead_code, reason = "the union's tests use all of it")]
#[path = "../../../fs/union/tests/support/lower.rs"]
mod lower;

const GOLDEN_TREE: &[u8] = include_bytes!("../../../fs/store/tests/golden/everything.tree");
const GOLDEN_LOG: &[u8] = include_bytes!("../../../fs/upper/src/journal/tests/journal-v1.golden");

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    trees(&corpus.join("tree"))?;
    logs(&corpus.join("journal"))?;
    tars(&corpus.join("import"))?;
    operations(&corpus.join("union"))?;
    requests(&corpus.join("ring"))?;
    command_lines(&corpus.join("options"))
}

fn put(dir: &Path, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join(name), parts.concat())
}

fn trees(dir: &Path) -> io::Result<()> {
    put(dir, "golden", &[&[0], GOLDEN_TREE])?;
    put(dir, "golden-short", &[&[1], &shorten_tree(GOLDEN_TREE)])?;
    let header = common::header("small");
    let mut tree = pellicle_store::TreeBuilder::new();
    common::put(
        &mut tree,
        "a/b",
        common::meta(0o644),
        common::inline(b"text"),
    );
    let file = tree.finish(&header).map_err(io::Error::other)?;
    put(dir, "small-short", &[&[1], &shorten_tree(&file)])
}

fn logs(dir: &Path) -> io::Result<()> {
    put(dir, "golden", &[&[0, 0], GOLDEN_LOG])?;
    put(dir, "golden-short", &[&[7, 1], &shorten_log(GOLDEN_LOG)])?;
    let written = shorten_log(&written_log()?);
    put(dir, "written-same-boot", &[&[7, 2], &written])?;
    put(dir, "written-crashed", &[&[1, 3], &written])?;
    put(dir, "written-changed", &[&[15, 0], &written])
}

/// A journal with every kind of record, over the tree that the target has.
fn written_log() -> io::Result<Vec<u8>> {
    let mut tree = lower::MemLower::new();
    let dir = tree.dir(Ino::ROOT, "a");
    let file = tree.file(dir, "b", b"a lower file");
    tree.symlink(dir, "c", "over/there");
    tree.file(Ino::ROOT, "b", &[1; 5000]);
    let tree = Arc::new(tree);
    let scratch = scratch();
    let of = JournalLower {
        identity: tree.identity(),
        inode_count: tree.inode_count(),
    };
    let options = JournalOptions {
        volatile: true,
        sync_interval: None,
        ..JournalOptions::default()
    };
    let journal =
        Journal::create(&scratch.path().join("upper"), of, options).map_err(io::Error::other)?;
    let (union, _) =
        Union::open(tree, Some(Box::new(journal)), Options::default()).map_err(io::Error::other)?;
    change(&union, dir, file).map_err(io::Error::other)?;
    drop(union);
    fs::read(scratch.path().join("upper/journal"))
}

fn change(union: &Union, dir: Ino, file: Ino) -> Result<(), pellicle_union::Error> {
    let who = Caller {
        uid: 5,
        gid: 6,
        umask: 0o022,
    };
    let made = union.make(Ino::ROOT, b"new", NewNode::Regular, 0o644, who)?;
    union.write(made.ino, 0, b"text", KillSetId::No)?;
    union.write(file, 2, b"copied up", KillSetId::No)?;
    union.set_xattr(file, b"user.x", b"value", false, false)?;
    union.remove_xattr(file, b"user.x")?;
    union.make(dir, b"l", NewNode::Symlink(b"to"), 0o777, who)?;
    union.make(dir, b"d", NewNode::Directory, 0o755, who)?;
    union.link(made.ino, dir, b"again")?;
    union.rename(Ino::ROOT, b"a", Ino::ROOT, b"moved", Default::default())?;
    let set = SetAttr {
        perm: Some(0o600),
        ..SetAttr::default()
    };
    union.set_attr(made.ino, set)?;
    union.unlink(Ino::ROOT, b"b")?;
    union.unlink(dir, b"c")
}

fn tars(dir: &Path) -> io::Result<()> {
    let tar = small_tar()?;
    put(dir, "plain", &[&[0], &tar])?;
    let short = shorten_tar(&tar);
    for (how, name) in [(1, "short"), (2, "short-gzip"), (3, "short-zstd")] {
        put(dir, name, &[&[how], &short])?;
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gzip, &tar)?;
    put(dir, "gzip", &[&[0], &gzip.finish()?])?;
    put(dir, "zstd", &[&[0], &zstd::encode_all(&*tar, 1)?])
}

/// Each kind of entry: long names, PAX records, links, devices, whiteouts.
fn small_tar() -> io::Result<Vec<u8>> {
    use tar::{Builder, EntryType, Header};

    let mut tar = Builder::new(Vec::new());
    let header = |kind, size| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o755);
        header.set_mtime(1_000);
        (header.set_uid(1), header.set_gid(2));
        header
    };
    tar.append_data(&mut header(EntryType::Directory, 0), "d/", io::empty())?;
    tar.append_pax_extensions([("SCHILY.xattr.user.x", &b"value"[..]), ("mtime", b"12.5")])?;
    tar.append_data(&mut header(EntryType::Regular, 4), "d/f", &b"text"[..])?;
    let long = "n".repeat(120);
    tar.append_data(&mut header(EntryType::Regular, 0), &long, io::empty())?;
    tar.append_link(&mut header(EntryType::Symlink, 0), "d/s", "../f")?;
    tar.append_link(&mut header(EntryType::Link, 0), "d/h", "d/f")?;
    let mut device = header(EntryType::Char, 0);
    device.set_device_major(1)?;
    device.set_device_minor(3)?;
    tar.append_data(&mut device, "null", io::empty())?;
    tar.append_data(&mut header(EntryType::Fifo, 0), "fifo", io::empty())?;
    tar.append_data(&mut header(EntryType::Regular, 0), "d/.wh.x", io::empty())?;
    tar.append_data(
        &mut header(EntryType::Regular, 0),
        "d/.wh..wh..opq",
        io::empty(),
    )?;
    tar.append_pax_extensions([
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"sparse"),
        ("GNU.sparse.realsize", b"8192"),
    ])?;
    let mut map = b"1\n4096\n4\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"data");
    let size = map.len() as u64;
    tar.append_data(
        &mut header(EntryType::Regular, size),
        "GNUSparseFile.0/sparse",
        &*map,
    )?;
    tar.into_inner()
}

fn operations(dir: &Path) -> io::Result<()> {
    // Any bytes are operations: long rows that differ, one for each pair of layers.
    for pair in 0..5u8 {
        let mut state = u32::from(pair) + 1;
        let mut row = vec![pair];
        for _ in 0..300 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            row.push((state >> 24) as u8);
        }
        put(dir, &format!("row-{pair}"), &[&row])?;
    }
    Ok(())
}

fn requests(dir: &Path) -> io::Result<()> {
    const LOOKUP: u8 = 1;
    let one = |opcode: u8, node: u8, operation: &[u8], payload: &[u8]| {
        let lengths = [operation.len() as u8, payload.len() as u8];
        // The last byte: the length does not lie.
        [&[opcode, node], &lengths[..], operation, payload, &[255]].concat()
    };
    let found = [
        one(LOOKUP, 1, &[], b"dir\0"),
        one(LOOKUP, 2, &[], b"file\0"),
    ];
    for opcode in 1..54u8 {
        let asked = one(opcode, 3, &[0; 40], b"name\0value\0");
        let again = one(opcode, 2, &[1; 40], b"file\0other\0");
        put(
            dir,
            &format!("opcode-{opcode:02}"),
            &[&found[0], &found[1], &asked, &again],
        )?;
    }
    Ok(())
}

fn command_lines(dir: &Path) -> io::Result<()> {
    let lines: [&[u8]; 7] = [
        b"-o\0lowerdir=/a:/b,upperdir=/u,workdir=/w\0/mnt",
        b"-f\0-d\0overlay\0/mnt\0-olowerdir=/a\\:b:/c\\,d,xino=off,volatile",
        b"-o\0lowerdir=/a,uidmapping=0:1000:1:1:100000:65536,gidmapping=0:10:1\0/m",
        b"-o\0lowerdir=/a,squash_to_uid=5,squash_to_gid=6,squash_to_root,static_nlink\0/m",
        b"-o\0lowerdir=\"/a,b\",context=\"x:y\",timeout=1.5,max_threads=4,clone_fd,fsname=x\0/m",
        b"-o\0lowerdir=/a\\072b,upper=journal,upperdir=/u,allow_other,noacl,fsync=0\0--\0/m",
        b"--version",
    ];
    for (at, line) in lines.iter().enumerate() {
        put(dir, &format!("line-{at}"), &[line])?;
    }
    Ok(())
}
