//! The lower trees that workloads stand on.

use std::{
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context as _, Result, anyhow};

use super::{Setup, generate, succeed, unpack};
use crate::drivers::overlayfs;

/// Which lower tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lower {
    /// The image of tools/image: Debian with python and a compiler.
    Image,
    /// An empty directory.
    Empty,
    /// [`generate::SMALL_FILES`] small files in one directory.
    SmallFiles,
    /// One file `large` of this many bytes that are not zeros.
    LargeFile(u64),
    /// 2,000 files, spread over this many layers.
    Depth(u32),
    /// One directory of this many entries.
    LargeDirectory(u32),
    /// A git repository with a work tree.
    Repository,
    /// A directory of the user's.
    Directory(PathBuf),
}

impl Lower {
    fn name(&self) -> String {
        match self {
            Lower::Image => "image".to_owned(),
            Lower::Empty => "empty".to_owned(),
            Lower::SmallFiles => "small".to_owned(),
            Lower::LargeFile(size) => format!("large-{size}"),
            Lower::Depth(layers) => format!("depth-{layers}"),
            Lower::LargeDirectory(entries) => format!("entries-{entries}"),
            Lower::Repository => "repository".to_owned(),
            Lower::Directory(path) => format!("own-{}", path.display()).replace('/', "-"),
        }
    }
}

/// Directories that lie upon one another, lowest first.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) name: String,
    pub(crate) dirs: Vec<PathBuf>,
    /// The same as layer archives, where it came as such: whiteouts in a directory are overlayfs's.
    pub(crate) tars: Vec<PathBuf>,
    /// All of them as one tree on the host's file system.
    pub(crate) merged: PathBuf,
}

impl Setup {
    /// The stack that `lower` names.
    pub(crate) fn stack(&mut self, lower: &Lower) -> Result<Rc<Stack>> {
        if let Some(stack) = self.stacks.get(lower) {
            return Ok(Rc::clone(stack));
        }
        let name = lower.name();
        self.say(format!("making the lower tree {name}"))?;
        let stack = Rc::new(self.make(lower, name)?);
        self.stacks.insert(lower.clone(), Rc::clone(&stack));
        Ok(stack)
    }

    /// Removes what is large and will not be needed again.
    pub(crate) fn forget(&mut self, lower: &Lower) -> Result<()> {
        let keep = matches!(lower, Lower::Image | Lower::Directory(_));
        if keep {
            return Ok(());
        }
        if let Some(stack) = self.stacks.remove(lower) {
            self.imported.remove(&stack.name);
            for place in [self.store_path(&stack.name), self.path(&stack.name)] {
                let _ = fs::remove_dir_all(place);
            }
        }
        Ok(())
    }

    fn make(&mut self, lower: &Lower, name: String) -> Result<Stack> {
        let dir = match lower {
            Lower::Image => return self.image_stack(name),
            Lower::Depth(layers) => return self.deep_stack(name, *layers),
            Lower::Directory(path) => path
                .canonicalize()
                .with_context(|| format!("no lower directory {}", path.display()))?,
            _ => self.directory(&name)?,
        };
        match lower {
            Lower::SmallFiles => generate::small_files(&dir)?,
            Lower::LargeFile(size) => generate::large_file(&dir.join("large"), *size)?,
            Lower::LargeDirectory(entries) => generate::large_directory(&dir, *entries)?,
            Lower::Repository => generate::repository(&dir)?,
            _ => {}
        }
        Ok(Stack {
            name,
            dirs: vec![dir.clone()],
            tars: Vec::new(),
            merged: dir,
        })
    }

    fn image_stack(&mut self, name: String) -> Result<Stack> {
        let tars = self.layer_files()?;
        let key = self
            .layers()?
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let base = self.cached(&format!("lower-{key}"))?;
        let mut dirs = Vec::new();
        for (n, tar) in tars.iter().enumerate() {
            self.say(format!("unpacking {}", tar.display()))?;
            dirs.push(unpack::layer(tar, &base.join(n.to_string()), self.who)?);
        }
        let merged = self.merge(&dirs, &base.join("merged"))?;
        Ok(Stack {
            name,
            dirs,
            tars,
            merged,
        })
    }

    fn deep_stack(&mut self, name: String, layers: u32) -> Result<Stack> {
        let base = self.directory(&name)?;
        let dirs = generate::depth(&base, layers)?;
        let merged = self.merge(&dirs, &base.join("merged"))?;
        Ok(Stack {
            name,
            dirs,
            tars: Vec::new(),
            merged,
        })
    }

    /// Copies what overlayfs shows of `dirs` to `to`, unless that is there.
    fn merge(&mut self, dirs: &[PathBuf], to: &Path) -> Result<PathBuf> {
        if !to.is_dir() {
            self.say("copying the merged tree")?;
            let part = to.with_extension("part");
            let _ = fs::remove_dir_all(&part);
            let at = self.directory("merge")?;
            let overlay = overlayfs::read_only(self, dirs, &at)?;
            succeed(super::quiet("cp").arg("-a").arg(&at).arg(&part))?;
            overlay.unmount()?;
            fs::rename(&part, to).with_context(|| anyhow!("cannot make {}", to.display()))?;
        }
        Ok(to.to_path_buf())
    }
}
