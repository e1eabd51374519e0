//! OCI layouts (image-spec, image-layout.md), made without the help of any program that is measured.

use std::{
    fs,
    io::{Seek as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use pellicle_store::Digest;
use serde_json::{Value, json};

/// A layout in the making.
pub(crate) struct Layout {
    dir: PathBuf,
    manifests: Vec<Value>,
}

/// A layer of a layout, and what is said of it.
pub(crate) struct Packed {
    descriptor: Value,
    diff_id: String,
}

/// An image of a layout, as its manifest tells of it.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) manifest: Blob,
    pub(crate) config: Blob,
    /// Lowest first.
    pub(crate) layers: Vec<Blob>,
    /// Of the same layers.
    pub(crate) diff_ids: Vec<String>,
}

/// A blob by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) size: u64,
}

impl Layout {
    /// Whether a whole one is in `dir`.
    pub(crate) fn is_at(dir: &Path) -> bool {
        dir.join("index.json").is_file()
    }

    /// A new one in `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
        Ok(Self {
            dir: dir.to_owned(),
            manifests: Vec::new(),
        })
    }

    /// Puts a layer into it, compressed.
    pub(crate) fn pack(&self, tar: &[u8]) -> Result<Packed> {
        let packed = gzip(tar)?;
        Ok(Packed {
            descriptor: self.blob(&packed, "layer.v1.tar+gzip")?,
            diff_id: Digest::of(tar).to_string(),
        })
    }

    /// Puts the image of these layers into it, lowest first.
    pub(crate) fn tag(&mut self, tag: &str, layers: &[&Packed]) -> Result<()> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        // buildah builds on no image whose history does not tell of each layer.
        let history = vec![json!({ "created_by": "pellicle-bench" }); layers.len()];
        let config = json!({
            "architecture": architecture, "os": "linux", "history": history,
            "config": { "Cmd": ["/bin/sh"], "Env": ["PATH=/usr/bin:/bin"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.blob(&serde_json::to_vec(&config)?, "config.v1+json")?;
        let layers: Vec<&Value> = layers.iter().map(|layer| &layer.descriptor).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        });
        let mut manifest = self.blob(&serde_json::to_vec(&manifest)?, "manifest.v1+json")?;
        if let Some(object) = manifest.as_object_mut() {
            let name = json!({ "org.opencontainers.image.ref.name": tag });
            object.insert("annotations".to_owned(), name);
        }
        self.manifests.push(manifest);
        Ok(())
    }

    /// Makes it one that can be read.
    pub(crate) fn finish(self) -> Result<()> {
        let index = json!({ "schemaVersion": 2, "manifests": self.manifests });
        fs::write(
            self.dir.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        // The last: who finds it finds a whole layout.
        crate::model::write_whole(&self.dir.join("index.json"), &index.to_string())
    }

    fn blob(&self, bytes: &[u8], media: &str) -> Result<Value> {
        let digest = Digest::of(bytes);
        let path = self.dir.join("blobs/sha256").join(digest.hex());
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(json!({
            "mediaType": format!("application/vnd.oci.image.{media}"),
            "digest": digest.to_string(),
            "size": bytes.len(),
        }))
    }

    /// What the image `tag` of the layout in `dir` consists of.
    pub(crate) fn describe(dir: &Path, tag: &str) -> Result<Described> {
        let read = |path: &Path| -> Result<Value> {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Ok(serde_json::from_str(&text)?)
        };
        let document = |blob: &Blob| {
            let hex = blob.digest.trim_start_matches("sha256:");
            read(&dir.join("blobs/sha256").join(hex))
        };
        let index = read(&dir.join("index.json"))?;
        let name = "/annotations/org.opencontainers.image.ref.name";
        let found = list(&index, "/manifests")?
            .iter()
            .find(|one| one.pointer(name).and_then(Value::as_str) == Some(tag))
            .with_context(|| format!("no image {tag} in {}", dir.display()))?;
        let manifest = descriptor(found)?;
        let text = document(&manifest)?;
        let config = descriptor(text.get("config").unwrap_or(&Value::Null))?;
        let layers = list(&text, "/layers")?;
        let layers = layers.iter().map(descriptor).collect::<Result<_>>()?;
        let told = document(&config)?;
        let diff_ids = list(&told, "/rootfs/diff_ids")?;
        let diff_ids = diff_ids
            .iter()
            .filter_map(|id| id.as_str().map(str::to_owned));
        Ok(Described {
            manifest,
            config,
            layers,
            diff_ids: diff_ids.collect(),
        })
    }
}

fn list<'a>(value: &'a Value, at: &str) -> Result<&'a Vec<Value>> {
    let found = value.pointer(at).and_then(Value::as_array);
    found.with_context(|| format!("a document of an OCI layout has no {at}"))
}

fn descriptor(value: &Value) -> Result<Blob> {
    let digest = value.get("digest").and_then(Value::as_str);
    let size = value.get("size").and_then(Value::as_u64);
    Ok(Blob {
        digest: digest.context("a descriptor has no digest")?.to_owned(),
        size: size.context("a descriptor has no size")?,
    })
}

fn gzip(input: &[u8]) -> Result<Vec<u8>> {
    let mut file = tempfile::tempfile()?;
    file.write_all(input)?;
    file.rewind()?;
    let out = Command::new("gzip")
        .args(["-6", "-n", "-c"])
        .stdin(file)
        .output()
        .context("cannot run gzip")?;
    ensure!(out.status.success(), "gzip failed");
    Ok(out.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_read_as_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let mut layout = Layout::create(dir.path()).unwrap();
        let (a, b) = (layout.pack(b"one").unwrap(), layout.pack(b"two").unwrap());
        layout.tag("x", &[&a]).unwrap();
        layout.tag("y", &[&a, &b]).unwrap();
        assert!(!Layout::is_at(dir.path()));
        layout.finish().unwrap();
        assert!(Layout::is_at(dir.path()));
        let x = Layout::describe(dir.path(), "x").unwrap();
        let y = Layout::describe(dir.path(), "y").unwrap();
        assert_eq!(y.layers.first(), x.layers.first());
        assert_eq!((x.layers.len(), y.layers.len()), (1, 2));
        assert_eq!(
            y.diff_ids.last(),
            Some(&Digest::of(b"two").to_string()),
            "{y:?}"
        );
        for blob in y.layers.iter().chain([&y.manifest, &y.config]) {
            let hex = blob.digest.trim_start_matches("sha256:");
            let path = dir.path().join("blobs/sha256").join(hex);
            assert_eq!(fs::metadata(path).unwrap().len(), blob.size);
        }
        let none = Layout::describe(dir.path(), "z").unwrap_err();
        assert!(none.to_string().contains('z'), "{none}");
    }
}
