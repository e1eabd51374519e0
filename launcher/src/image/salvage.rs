//! Making the list of images again when it is damaged.

use std::{collections::BTreeSet, fs, path::Path};

use pellicle_store::Digest;

use super::{ImageError, Images, MANIFEST_MAX, Record, document};

/// What became of a damaged list of images.
#[derive(Debug)]
pub struct Salvaged {
    /// Images that are listed as they were, as far as can be told.
    pub kept: usize,
    /// Images found in the store that nothing of the old list named: they have no names now.
    pub nameless: usize,
}

impl Images {
    /// Replaces a damaged list by one of what can still be read of it, and of every other image that
    /// is whole in the store. `keep` is given the old file first.
    ///
    /// # Errors
    /// What `keep` returns; the host's. The old list stays then.
    pub fn salvage(
        &self,
        keep: &mut dyn FnMut(&Path) -> Result<(), ImageError>,
    ) -> Result<Salvaged, ImageError> {
        let lock = self.index.lock()?;
        let path = self.index.file();
        let text = fs::read(&path).map_err(ImageError::io("read", &path))?;
        keep(&path)?;
        let mut seen = BTreeSet::new();
        let mut records: Vec<Record> = readable(&text)
            .into_iter()
            .filter(|r| self.id_of(&r.manifest) == Some(r.id) && seen.insert(r.manifest))
            .collect();
        let kept = records.len();
        let mut blobs = Vec::new();
        self.store().blobs().each(&mut |id| blobs.push(id))?;
        for manifest in blobs {
            if let Some(id) = self.id_of(&manifest).filter(|_| seen.insert(manifest)) {
                records.push(Record {
                    manifest,
                    id,
                    names: Vec::new(),
                    size: 0,
                });
            }
        }
        let nameless = records.len() - kept;
        lock.write(records)?;
        Ok(Salvaged { kept, nameless })
    }

    /// The image that blob `manifest` is the manifest of, if it is one and all of that is there.
    fn id_of(&self, manifest: &Digest) -> Option<Digest> {
        let size = self.store().blobs().size(manifest).ok()??;
        if size > MANIFEST_MAX {
            return None;
        }
        let id = self.manifest(manifest).ok()?;
        let id = id.config().digest().as_ref().parse::<Digest>().ok()?;
        let (_, diff_ids) = document::config(self.store(), &id).ok()?;
        diff_ids
            .iter()
            .all(|layer| self.store().has_tree(layer))
            .then_some(id)
    }
}

/// The records in `text` that are whole.
fn readable(text: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let Some(open) = rest.iter().position(|b| *b == b'{') else {
            break;
        };
        let from = rest.get(open..).unwrap_or_default();
        let mut stream = serde_json::Deserializer::from_slice(from).into_iter::<Record>();
        at += open
            + match stream.next() {
                Some(Ok(record)) => {
                    records.push(record);
                    stream.byte_offset()
                }
                _ => 1,
            };
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_records_are_found_in_a_torn_list() {
        let record = |n: u8| Record {
            manifest: Digest::of(&[n]),
            id: Digest::of(&[n, n]),
            names: vec![format!("docker.io/library/x:{n}")],
            size: 7,
        };
        let all = [record(1), record(2), record(3)];
        let text = serde_json::to_vec_pretty(&serde_json::json!({"version": 1, "images": all}));
        let text = text.unwrap();
        assert_eq!(readable(&text), all);
        let third = text.windows(3).rposition(|w| w == b"x:3").unwrap();
        assert_eq!(readable(&text[..third]), all[..2]);
        let mut hurt = text.clone();
        let second = text.windows(3).position(|w| w == b"x:2").unwrap();
        hurt[second + 3] = b'!';
        assert_eq!(readable(&hurt), [record(1), record(3)]);
        for junk in [&b""[..], b"{", b"{{{{", b"null", &[0; 100]] {
            assert_eq!(readable(junk), []);
        }
    }
}
