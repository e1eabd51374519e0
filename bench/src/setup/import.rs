//! Lower trees in a store, for our native driver, and images for containers.

use std::{
    fs::File,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context as _, Result, anyhow};
use pellicle_store::{
    Digest, Store,
    import::{Compression, ImportOptions, import_directory, import_layer},
};

use super::{IMAGE, Setup, Stack, succeed};

/// A stack in a store.
#[derive(Debug)]
pub(crate) struct Imported {
    pub(crate) store: PathBuf,
    /// Of its layers, lowest first.
    pub(crate) diff_ids: Vec<Digest>,
}

impl Setup {
    /// `stack` in a store of its own, flattened.
    pub(crate) fn imported(&mut self, stack: &Stack) -> Result<Rc<Imported>> {
        if let Some(imported) = self.imported.get(&stack.name) {
            return Ok(Rc::clone(imported));
        }
        self.say(format!("importing the lower tree {}", stack.name))?;
        let path = self.store_path(&stack.name);
        std::fs::create_dir_all(&path)?;
        let store = Store::open(&path)?;
        let mut diff_ids = Vec::new();
        for tar in &stack.tars {
            let file = File::open(tar).with_context(|| format!("no {}", tar.display()))?;
            let options = ImportOptions {
                name: tar.display().to_string(),
                ..ImportOptions::default()
            };
            diff_ids.push(import_layer(&store, file, &options, &())?.diff_id);
        }
        let dirs = if stack.tars.is_empty() {
            stack.dirs.as_slice()
        } else {
            &[]
        };
        for dir in dirs {
            let options = ImportOptions {
                compression: Compression::Zstd,
                ..ImportOptions::default()
            };
            diff_ids.push(import_directory(&store, dir, &options, &())?.diff_id);
        }
        store.image_tree(&diff_ids)?;
        let imported = Rc::new(Imported {
            store: path,
            diff_ids,
        });
        self.imported
            .insert(stack.name.clone(), Rc::clone(&imported));
        Ok(imported)
    }

    /// Where the store of the stack `name` is.
    pub(super) fn store_path(&self, name: &str) -> PathBuf {
        self.path(&format!("store-{name}"))
    }

    /// Imports the image into `store` with the command that users have, as root or as the ordinary
    /// user, unless it is there; gives its name.
    pub(crate) fn import(&mut self, store: &str, as_user: bool) -> Result<&'static str> {
        if self.path(store).is_dir() {
            return Ok(IMAGE);
        }
        let files = self.layer_files()?;
        let (first, rest) = files.split_first().ok_or_else(|| anyhow!("no layers"))?;
        if as_user {
            self.users_directory(store)?;
        } else {
            self.directory(store)?;
        }
        self.say("importing the image")?;
        let mut command = self.pellicle(store);
        command.arg("import").arg(first).arg(IMAGE);
        for layer in rest {
            command.arg("--layer").arg(layer as &Path);
        }
        if as_user {
            self.as_user(&mut command)?;
        }
        succeed(&mut command)?;
        Ok(IMAGE)
    }
}
