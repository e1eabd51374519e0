//! Which containers stand on which images.
//!
//! A container's `containers/<id>/state.json` has, among what only the runtime reads, the members
//! `image_id` (the image's id) and `diff_ids` (its layers, lowest first). The second keeps a
//! container's layers in the store even when its image is no longer listed.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use pellicle_store::Digest;
use serde::Deserialize;

use super::ImageError;

const CONFIG_MAX: u64 = 64 << 20;

/// What a container needs of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUse {
    /// The container's id: the name of its directory.
    pub container: String,
    /// The image it was made from.
    pub image: Digest,
    /// Its layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Members {
    image_id: String,
    diff_ids: Vec<String>,
}

/// What all containers of the store at `root` need.
///
/// # Errors
/// If one cannot be read: what it needs is not known then, and nothing may be removed.
pub fn container_uses(root: &Path) -> Result<Vec<ContainerUse>, ImageError> {
    let dir = root.join("containers");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(ImageError::io("list", &dir)(e)),
    };
    let mut uses = Vec::new();
    for entry in entries {
        let entry = entry.map_err(ImageError::io("list", &dir))?;
        let path = entry.path().join("state.json");
        // Without waiting for the other end of a FIFO.
        let open = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path);
        let file = match open {
            Ok(file) => file,
            // Being made or being removed; who makes one holds the store's lock meanwhile.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                continue;
            }
            Err(e) => return Err(ImageError::io("open", &path)(e)),
        };
        let mut text = Vec::new();
        file.take(CONFIG_MAX)
            .read_to_end(&mut text)
            .map_err(ImageError::io("read", &path))?;
        uses.push(
            parse(&text, entry.file_name().to_string_lossy().into_owned())
                .map_err(|detail| ImageError::Container { path, detail })?,
        );
    }
    uses.sort_by(|a, b| a.container.cmp(&b.container));
    Ok(uses)
}

fn parse(text: &[u8], container: String) -> Result<ContainerUse, String> {
    let members: Members = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let digest = |text: &String| text.parse::<Digest>().map_err(|e| e.to_string());
    Ok(ContainerUse {
        container,
        image: digest(&members.image_id)?,
        diff_ids: members
            .diff_ids
            .iter()
            .map(digest)
            .collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_name_their_image_and_layers_and_a_damaged_one_is_named() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(container_uses(root.path()).unwrap(), []);
        let dir = root.path().join("containers/abc");
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(container_uses(root.path()).unwrap(), [], "one being made");
        let (image, layer) = (Digest::of(b"i"), Digest::of(b"l"));
        let text = format!(r#"{{"image_id":"{image}","diff_ids":["{layer}"],"more":1}}"#);
        fs::write(dir.join("state.json"), text).unwrap();
        let uses = container_uses(root.path()).unwrap();
        assert_eq!(
            uses,
            [ContainerUse {
                container: "abc".into(),
                image,
                diff_ids: vec![layer]
            }]
        );
        fs::write(dir.join("state.json"), "{").unwrap();
        assert!(
            container_uses(root.path())
                .unwrap_err()
                .to_string()
                .contains("abc")
        );
    }
}
