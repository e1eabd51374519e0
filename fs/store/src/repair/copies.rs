//! Restoring a content from another copy of the same bytes.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use super::{Outcome, Repair, name_of};
use crate::{
    Damage, Digest, StoreError,
    pool::{Pool, Writer},
    quarantine::earlier,
};

impl Repair<'_> {
    /// Restores what there is an intact copy of.
    pub(super) fn use_copies(&mut self) -> Result<(), StoreError> {
        for at in 0..self.items.len() {
            let Some(item) = self.items.get(at).filter(|i| i.outcome.is_none()) else {
                continue;
            };
            if item.damage.what == "tree" {
                continue;
            }
            let from = self.copy_of(&item.damage)?;
            if let (Some(path), Some(item)) = (from, self.items.get_mut(at)) {
                let from = format!("the copy {}", path.display());
                item.outcome = Some(Outcome::Restored(from));
            }
        }
        Ok(())
    }

    /// Puts the content of `damage` there anew, if a copy has it; which one.
    fn copy_of(&self, damage: &Damage) -> Result<Option<PathBuf>, StoreError> {
        let pool = self.pool(damage.what);
        let other = match damage.what {
            "blob" => self.store.objects().path(&damage.id),
            _ => self.store.blobs().path(&damage.id),
        };
        let mut copies = vec![other];
        let name = name_of(damage);
        copies.extend(earlier(self.store.root(), &name));
        for path in copies {
            let Some(writer) = read_as(&path, damage.id, pool, self.progress) else {
                continue;
            };
            writer.finish()?;
            return Ok(Some(path));
        }
        Ok(None)
    }
}

/// The content of `path`, ready to be published, if it is `id`.
fn read_as(path: &Path, id: Digest, pool: &Pool, progress: &dyn Fn(u64)) -> Option<Writer> {
    let mut file = path.is_file().then(|| File::open(path).ok()).flatten()?;
    let mut writer = pool.writer();
    let mut piece = vec![0; 256 << 10];
    loop {
        let n = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        progress(n as u64);
        // A full disk: then this copy is of no use.
        writer.write_all(piece.get(..n)?).ok()?;
    }
    (writer.digest() == id).then_some(writer)
}
