//! Manifests of images in OCI's form and in docker's (schema 2), and one made of the other.
//!
//! Both name the same blobs, the configuration among them, so that the image's id stays and no blob is made
//! anew; what differs is what things are called, and that docker's form has no annotations.

use serde_json::{Map, Value};

use super::media_type::{self, CONFIGS, MANIFESTS};

/// What a manifest is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestFormat {
    /// OCI image-spec, manifest.md.
    Oci,
    /// Docker's "Image Manifest Version 2, Schema 2".
    V2s2,
}

/// What layers are called, in OCI's manifests and in docker's.
const LAYERS: [(&str, &str); 4] = [
    (
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
    ),
    (
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ),
];
/// The same of zstd, which docker's form does not have, and which some write in it nevertheless.
const ZSTD: (&str, &str) = (
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
);
/// What docker's form has of a manifest, and of a descriptor in it.
const MEMBERS: [&str; 4] = ["schemaVersion", "mediaType", "config", "layers"];
const DESCRIPTOR: [&str; 4] = ["mediaType", "size", "digest", "urls"];

impl ManifestFormat {
    /// The manifest `text` in this form; as it is, to the byte, if it has it.
    ///
    /// # Errors
    /// Why it cannot have it.
    pub fn convert(self, text: &[u8]) -> Result<Vec<u8>, String> {
        let [from, to] = match self {
            Self::Oci => [1, 0],
            Self::V2s2 => [0, 1],
        };
        let (wanted, other) = (media(&MANIFESTS, to), media(&MANIFESTS, from));
        let kind = media_type::of(text).unwrap_or_default();
        if kind == wanted {
            return Ok(text.to_vec());
        }
        if kind != other {
            return Err(format!("a manifest of the type {kind:?} has no such form"));
        }
        let mut manifest: Map<String, Value> =
            serde_json::from_slice(text).map_err(|e| e.to_string())?;
        manifest.insert("mediaType".to_owned(), wanted.into());
        let config = manifest.get_mut("config").and_then(Value::as_object_mut);
        let config = config.ok_or("it has no configuration")?;
        if kind_of(config) != media(&CONFIGS, from) {
            return Err("it is no image: its configuration is of another type".to_owned());
        }
        config.insert("mediaType".to_owned(), media(&CONFIGS, to).into());
        self.tidy(config, &DESCRIPTOR);
        let layers = manifest.get_mut("layers").and_then(Value::as_array_mut);
        for layer in layers.ok_or("it has no layers")? {
            let layer = layer.as_object_mut().ok_or("a layer is no descriptor")?;
            let called = self.layer(kind_of(layer))?;
            layer.insert("mediaType".to_owned(), called.into());
            self.tidy(layer, &DESCRIPTOR);
        }
        self.tidy(&mut manifest, &MEMBERS);
        serde_json::to_vec(&manifest).map_err(|e| e.to_string())
    }

    fn layer(self, kind: &str) -> Result<&'static str, String> {
        let found = LAYERS.iter().find_map(|(oci, docker)| match self {
            Self::Oci => (kind == *docker).then_some(*oci),
            Self::V2s2 => (kind == *oci).then_some(*docker),
        });
        match (found, self) {
            (Some(called), _) => Ok(called),
            (None, Self::Oci) if kind == ZSTD.1 => Ok(ZSTD.0),
            (None, Self::V2s2) if kind == ZSTD.0 => {
                Err("it has layers of zstd, which docker's manifests do not know".to_owned())
            }
            (None, _) => Err(format!("a layer is of the unknown type {kind:?}")),
        }
    }

    /// Takes off what docker's form does not have.
    fn tidy(self, members: &mut Map<String, Value>, known: &[&str]) {
        if self == Self::V2s2 {
            members.retain(|name, _| known.contains(&name.as_str()));
        }
    }
}

fn media(types: &[&'static str; 2], at: usize) -> &'static str {
    types.get(at).copied().unwrap_or_default()
}

fn kind_of(descriptor: &Map<String, Value>) -> &str {
    let kind = descriptor.get("mediaType").and_then(Value::as_str);
    kind.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(layer: &str) -> Vec<u8> {
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFESTS[0],
            "config": {"mediaType": CONFIGS[0], "digest": "sha256:c", "size": 1},
            "layers": [{"mediaType": layer, "digest": "sha256:l", "size": 2, "annotations": {"a": "b"}}],
            "annotations": {"x": "y"},
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn a_manifest_goes_to_docker_s_form_and_back_with_the_same_blobs() {
        let oci = manifest(LAYERS[1].0);
        let docker = ManifestFormat::V2s2.convert(&oci).unwrap();
        let told: Value = serde_json::from_slice(&docker).unwrap();
        assert_eq!(
            told,
            json!({
                "schemaVersion": 2,
                "mediaType": MANIFESTS[1],
                "config": {"mediaType": CONFIGS[1], "digest": "sha256:c", "size": 1},
                "layers": [{"mediaType": LAYERS[1].1, "digest": "sha256:l", "size": 2}],
            })
        );
        let back = ManifestFormat::Oci.convert(&docker).unwrap();
        let told: Value = serde_json::from_slice(&back).unwrap();
        assert_eq!(told["mediaType"], MANIFESTS[0]);
        assert_eq!(told["config"]["mediaType"], CONFIGS[0]);
        assert_eq!(told["layers"][0]["mediaType"], LAYERS[1].0);
    }

    #[test]
    fn what_has_the_form_stays_as_it_is_and_what_cannot_is_refused() {
        let mut oci = manifest(ZSTD.0);
        oci.push(b'\n');
        assert_eq!(ManifestFormat::Oci.convert(&oci).unwrap(), oci);
        let refused = ManifestFormat::V2s2.convert(&oci).unwrap_err();
        assert!(refused.contains("zstd"), "{refused}");
        assert!(ManifestFormat::V2s2.convert(&manifest("x/y")).is_err());
        for bad in ["", "{}", "[]", r#"{"manifests":[]}"#, r#"{"layers":[]}"#] {
            assert!(
                ManifestFormat::V2s2.convert(bad.as_bytes()).is_err(),
                "{bad}"
            );
        }
    }
}
