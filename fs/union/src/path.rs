//! From inodes back to paths. Directories know where they are; other inodes have to be looked for.

use std::ops::ControlFlow;

use pellicle_store::{FileKind, Ino};

use crate::Union;

/// Most directories that are looked through for the name of an inode that is none.
const SEARCH_MAX: usize = 100_000;

impl Union {
    /// The path of the first name found for `ino`, for messages; costs a search of the tree for
    /// what is no directory, and gives up on very large trees.
    #[must_use]
    pub fn path_of(&self, ino: Ino) -> Option<Vec<u8>> {
        if self.kind(ino).ok()? == FileKind::Directory {
            return self.path_of_dir(ino);
        }
        let mut todo = vec![Ino::ROOT];
        for _ in 0..SEARCH_MAX {
            let dir = todo.pop()?;
            let mut found = None;
            let listed = self.list(dir, 0, &mut |entry| {
                if entry.ino == ino {
                    found = Some(entry.name.to_vec());
                    return ControlFlow::Break(());
                }
                if entry.kind == FileKind::Directory {
                    todo.push(entry.ino);
                }
                ControlFlow::Continue(())
            });
            if let (Ok(()), Some(name)) = (listed, found) {
                return Some(join(&self.path_of_dir(dir)?, &name));
            }
        }
        None
    }

    fn path_of_dir(&self, dir: Ino) -> Option<Vec<u8>> {
        let mut names = Vec::new();
        let mut at = dir;
        while at != Ino::ROOT {
            // A log with directories in a circle must not keep us here.
            if names.len() as u64 > self.ino_end() {
                return None;
            }
            let parent = self.parent(at).ok()?;
            names.push(self.name_in(parent, at)?);
            at = parent;
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path = join(&path, name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Some(path)
    }

    fn name_in(&self, dir: Ino, ino: Ino) -> Option<Vec<u8>> {
        let mut found = None;
        self.list(dir, 0, &mut |entry| {
            if entry.ino == ino {
                found = Some(entry.name.to_vec());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
        .ok()?;
        found
    }
}

/// `dir` and `name` with one slash between; the root is `/` or nothing.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.strip_suffix(b"/").unwrap_or(dir).to_vec();
    path.push(b'/');
    path.extend_from_slice(name);
    path
}
