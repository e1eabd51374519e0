//! A tar stream becomes a layer of the store.

use std::io::{Read, Write};

use sha2::{Digest as _, Sha256};

use super::{
    Cancel, ImportError, ImportOptions, ImportedLayer, Progress, contents::ToStore, pipeline::Pass,
};
use crate::{Digest, Store, StoreError};

/// Imports a layer from its tar stream: plain, gzip or zstd, told apart by its first bytes.
///
/// In one pass the source becomes a blob and its contents a tree. The tree is made visible when
/// all of both is there and both digests are as promised; the blob right after it.
///
/// # Errors
/// [`ImportError`]; then neither tree nor blob is left. Objects already written stay, named by
/// nothing, until the store is collected.
pub fn import_layer(
    store: &Store,
    source: impl Read + Send,
    options: &ImportOptions,
    progress: &dyn Progress,
) -> Result<ImportedLayer, ImportError> {
    // Collection must not take the objects before the tree that names them is there.
    let _lock = store.lock_shared()?;
    // Nor a repair those of its objects that it found there.
    let _adding = store.lock_adding()?;
    let name = options.source_name();
    let mut blob = store.blobs().writer()?;
    let mut contents = ToStore::new(store);
    let pass = Pass {
        name,
        cancel: &options.cancel,
        progress,
        show_marks: false,
    };
    let mut keep = |bytes: &[u8]| {
        let written = blob.write_all(bytes);
        Ok(written.map_err(StoreError::io("write a blob to", store.root()))?)
    };
    let passed = pass.run(source, &mut keep, &mut contents)?;
    let id = blob.digest();
    let diff_id = passed.diff_id.unwrap_or(id);
    promised(name, "blob", options.expect_blob, id)?;
    promised(name, "diff id", options.expect_diff_id, diff_id)?;
    options.cancel.check()?;

    let already_there = store.has_tree(&diff_id);
    if !already_there {
        store.publish_tree(&diff_id, passed.tree)?;
    }
    let blob_size = blob.len();
    // The blob's bytes are on disk already: what is left to do can hardly fail.
    blob.finish()?;
    Ok(ImportedLayer {
        diff_id,
        blob: id,
        blob_size,
        media_type: passed.format.media_type(),
        entries: passed.entries,
        content_bytes: contents.bytes(),
        already_there,
    })
}

/// Puts the contents of a layer into `store` once more, from the blob it was imported from, and with
/// `tree` its tree. What is there and not distrusted stays as it is. The caller holds the locks.
pub(crate) fn restore_layer(
    store: &Store,
    blob: &Digest,
    diff_id: &Digest,
    tree: bool,
    progress: &dyn Progress,
) -> Result<(), ImportError> {
    let name = format!("the blob {blob}");
    let source = store.blobs().open(blob)?;
    let mut contents = ToStore::new(store);
    let pass = Pass {
        name: &name,
        cancel: &Cancel::default(),
        progress,
        show_marks: false,
    };
    let mut hash = Sha256::new();
    let mut each = |bytes: &[u8]| {
        hash.update(bytes);
        Ok(())
    };
    let passed = pass.run(source, &mut each, &mut contents)?;
    let id = Digest(hash.finalize().into());
    promised(&name, "blob", Some(*blob), id)?;
    promised(
        &name,
        "diff id",
        Some(*diff_id),
        passed.diff_id.unwrap_or(id),
    )?;
    match tree {
        true => store.publish_tree(diff_id, passed.tree).map(drop)?,
        false => store.objects().0.sync()?,
    }
    Ok(())
}

fn promised(
    name: &str,
    what: &'static str,
    expected: Option<Digest>,
    actual: Digest,
) -> Result<(), ImportError> {
    match expected {
        Some(expected) if expected != actual => Err(ImportError::WrongDigest {
            name: name.to_owned(),
            what,
            expected,
            actual,
        }),
        _ => Ok(()),
    }
}
