//! The images that tests run: a small one out of this machine's own tools, and Debian.

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::{repository, store::scratch};

const TOOLS: &[&str] = &[
    "sh",
    "cat",
    "ls",
    "echo",
    "id",
    "sleep",
    "hostname",
    "env",
    "true",
    "false",
    "mkdir",
    "rmdir",
    "rm",
    "mv",
    "cp",
    "touch",
    "stat",
    "chmod",
    "chown",
    "ln",
    "dd",
    "head",
    "tail",
    "wc",
    "sort",
    "tr",
    "readlink",
    "mknod",
    "mount",
    "umount",
    "grep",
    "sed",
    "uname",
    "nproc",
    "sync",
    "sha256sum",
    "find",
    "tty",
    "stty",
    "setsid",
    "pwd",
    "printf",
];

/// A tar archive (gzip) with this machine's shell, common tools and the libraries they need. Made
/// once for all tests.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn tools_image() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        // By day: the machine's tools may be upgraded while the scratch directory stays.
        let day = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs() / 86_400);
        let uid = nix::unistd::geteuid();
        let path = scratch().join(format!("pellicle-tools-{uid}-{day}.tar.gz"));
        if !path.is_file() {
            let part = scratch().join(format!("pellicle-tools-{}.part", std::process::id()));
            fs::write(&part, tools_archive()).expect("write");
            fs::set_permissions(&part, fs::Permissions::from_mode(0o644)).expect("chmod");
            fs::rename(&part, &path).expect("rename");
        }
        path
    })
    .clone()
}

fn tools_archive() -> Vec<u8> {
    let mut files: BTreeSet<PathBuf> = BTreeSet::new();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    for dir in [
        "bin", "usr", "usr/bin", "lib", "lib64", "etc", "tmp", "root", "proc", "sys", "dev", "var",
        "home", "home/app",
    ] {
        let mut header = header(if dir == "tmp" { 0o1777 } else { 0o755 }, 0);
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, dir, std::io::empty())
            .expect("memory");
    }
    for tool in TOOLS {
        let Some(program) = find(tool) else { continue };
        append(
            &mut tar,
            &format!("bin/{tool}"),
            &fs::read(&program).expect("a program"),
            0o755,
        );
        for library in libraries(&program) {
            if files.insert(library.clone()) {
                let name = library
                    .to_str()
                    .expect("a plain path")
                    .trim_start_matches('/');
                append(
                    &mut tar,
                    name,
                    &fs::read(&library).expect("a library"),
                    0o755,
                );
            }
        }
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n";
    append(&mut tar, "etc/passwd", passwd.as_bytes(), 0o644);
    append(
        &mut tar,
        "etc/group",
        b"root:x:0:\nextra:x:2000:app\napp:x:1000:\n",
        0o644,
    );
    append(&mut tar, "etc/base", b"from the image\n", 0o644);
    let mut gz = tar.into_inner().expect("memory");
    gz.flush().expect("memory");
    gz.finish().expect("memory")
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(1_700_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append(tar: &mut tar::Builder<impl std::io::Write>, name: &str, bytes: &[u8], mode: u32) {
    let mut header = header(mode, bytes.len() as u64);
    tar.append_data(&mut header, name, bytes).expect("memory");
}

fn find(tool: &str) -> Option<PathBuf> {
    ["/bin", "/usr/bin", "/sbin", "/usr/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(tool))
        .find(|path| path.is_file())
}

/// The shared libraries and the loader of `program`, as ldd(1) lists them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().expect("ldd");
    String::from_utf8_lossy(&listed.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// The layers of the full Debian image, readable by every user; `None` where no mirror answered.
///
/// # Panics
/// If `tools/image` fails.
#[must_use]
pub fn debian_layers() -> Option<[PathBuf; 3]> {
    static LAYERS: OnceLock<Option<[PathBuf; 3]>> = OnceLock::new();
    LAYERS
        .get_or_init(|| {
            let made = Command::new(repository().join("tools/image"))
                .arg("full")
                .stdin(Stdio::null())
                .stderr(Stdio::inherit())
                .output()
                .expect("tools/image");
            assert!(made.status.success(), "tools/image full failed");
            let dir = PathBuf::from(String::from_utf8(made.stdout).expect("a path").trim());
            let from = fs::read_to_string(dir.join("made-from")).expect("made-from");
            if !from.starts_with("debian") {
                return None;
            }
            Some(["layer-1.tar", "layer-2.tar.gz", "layer-3.tar"].map(|name| shared(&dir, name)))
        })
        .clone()
}

/// `dir/name` where every user can read it: in the scratch directory, if the repository may be in
/// somebody's home.
fn shared(dir: &Path, name: &str) -> PathBuf {
    let from = dir.join(name);
    if !nix::unistd::geteuid().is_root() && env::var_os("PELLICLE_TEST_SCRATCH").is_none() {
        return from;
    }
    let key = dir
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let to = scratch().join(format!("pellicle-{key}-{name}"));
    if !to.is_file() {
        let part = scratch().join(format!("pellicle-{}-{name}.part", std::process::id()));
        if fs::hard_link(&from, &part).is_err() {
            fs::copy(&from, &part).expect("copy of a layer");
        }
        fs::set_permissions(&part, fs::Permissions::from_mode(0o644)).expect("chmod");
        fs::rename(&part, &to).expect("rename");
    }
    to
}
