//! Signatures and the like, carried along with images.

use std::sync::Arc;

use pellicle_tests::{TestStore, Who, archive::Archive};
use serde_json::{Value, json};

use crate::{
    json as parse,
    script::{Answer, Asked, Made, Script, descriptor, digest, ok, status},
    server::Registry,
};

/// An artifact that refers to `subject`.
struct Artifact {
    blob: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Artifact {
    fn of(subject: &[u8], blob: &[u8]) -> Self {
        let config = b"{}".to_vec();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "artifactType": "application/vnd.test.sbom",
            "config": descriptor("application/vnd.oci.empty.v1+json", &config),
            "layers": [descriptor("application/spdx+json", blob)],
            "subject": descriptor(kind, subject),
        });
        Self {
            blob: blob.to_vec(),
            config,
            manifest: manifest.to_string().into_bytes(),
        }
    }

    fn listed(&self) -> Value {
        let mut listed = descriptor("application/vnd.oci.image.manifest.v1+json", &self.manifest);
        listed["artifactType"] = "application/vnd.test.sbom".into();
        listed["annotations"] = json!({"made": "by a test"});
        listed
    }

    fn answer(&self, asked: &Asked) -> Option<Answer> {
        let all = [&self.blob, &self.config, &self.manifest];
        let found = all.into_iter().find(|b| asked.path.ends_with(&digest(b)))?;
        Some(ok(found.clone()))
    }
}

/// A registry with an image, what refers to it, and what refers to that. Its referrers name what `listed`
/// gives.
fn registry(image: &Made, artifacts: [Artifact; 2], subjects: [Vec<u8>; 2]) -> Script {
    let image = image.clone();
    let artifacts = Arc::new(artifacts);
    let lists: Vec<(String, Vec<u8>)> = subjects
        .iter()
        .zip(artifacts.iter())
        .map(|(subject, artifact)| {
            let index = json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [artifact.listed()],
            });
            (
                format!("/referrers/{}", digest(subject)),
                index.to_string().into_bytes(),
            )
        })
        .collect();
    Script::start(move |asked| {
        if asked.path.contains("/referrers/") {
            let list = lists
                .iter()
                .find(|(path, _)| asked.path.ends_with(path.as_str()));
            return Some(match list {
                Some((_, index)) => ok(index.clone()),
                None => ok(r#"{"schemaVersion":2,"manifests":[]}"#),
            });
        }
        if asked.path == "/v2/" {
            return Some(status(200));
        }
        artifacts
            .iter()
            .find_map(|a| a.answer(asked))
            .or_else(|| image.answer(asked))
    })
}

#[test]
fn what_refers_to_an_image_goes_where_it_goes_and_stays_as_long_as_it() {
    let Some(to) = Registry::plain("what_refers_to_an_image") else {
        return;
    };
    let image = Made::of(&[Archive::new().file("f", "x").end()]);
    let sbom = Artifact::of(&image.manifest, b"what is in it");
    let signature = Artifact::of(&sbom.manifest, b"who says so");
    let (sbom_digest, signature_digest) = (digest(&sbom.manifest), digest(&signature.manifest));
    let blob = digest(&sbom.blob);
    let subjects = [image.manifest.clone(), sbom.manifest.clone()];
    let from = registry(&image, [sbom, signature], subjects);
    let name = from.name("a/b:1");

    let s = TestStore::new(Who::Root);
    s.cmd(["pull", "-q", &name]).ok();
    let referrers = |s: &TestStore, name: &str| {
        parse(&s.cmd(["image", "inspect", name]).ok())[0]["Referrers"].clone()
    };
    assert_eq!(
        referrers(&s, &name),
        json!([]),
        "not unless they are asked for"
    );
    let told = parse(
        &s.cmd(["pull", "-q", "--referrers", "--format", "json", &name])
            .ok(),
    );
    let carried: Vec<&str> = told["Referrers"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|r| r["Digest"].as_str())
        .collect();
    assert_eq!(carried, [sbom_digest.as_str(), &signature_digest]);
    let shown = referrers(&s, &name);
    assert_eq!(shown[0]["ArtifactType"], "application/vnd.test.sbom");
    assert_eq!(shown[0]["Annotations"]["made"], "by a test");
    let index = parse(&s.cmd(["manifest", "inspect", "--referrers", &name]).ok());
    assert_eq!(index["manifests"][0]["digest"], sbom_digest.as_str());

    // Kept while the image is.
    s.cmd(["store", "gc"]).ok();
    let there = |s: &TestStore, digest: &str| {
        let hex = digest.trim_start_matches("sha256:");
        let list = pellicle_tests::Cmd::new({
            let mut find = std::process::Command::new("find");
            find.arg(s.root().join("blobs"))
                .args(["-name", &format!("*{}", &hex[4..])]);
            find
        });
        !list.ok().is_empty()
    };
    assert!(there(&s, &blob) && there(&s, &signature_digest));

    // To a registry that knows nothing of referrers, and back.
    let other = to.name("carried");
    let pushed = parse(
        &s.cmd([
            "push",
            "-q",
            "--referrers",
            "--format",
            "json",
            &name,
            &other,
        ])
        .ok(),
    );
    assert_eq!(pushed["Referrers"].as_array().map(Vec::len), Some(2));
    s.cmd(["push", "-q", "--referrers", &name, &other]).ok();
    let t = TestStore::new(Who::Root);
    let told = parse(
        &t.cmd(["pull", "-q", "--referrers", "--format", "json", &other])
            .ok(),
    );
    assert_eq!(
        told["Referrers"].as_array().map(Vec::len),
        Some(2),
        "each once: {told:#}"
    );
    assert_eq!(referrers(&t, &other)[0]["Digest"], sbom_digest.as_str());

    // And gone with it.
    s.cmd(["rmi", &name]).ok();
    s.cmd(["store", "gc"]).ok();
    assert!(!there(&s, &blob) && !there(&s, &signature_digest));
}

#[test]
fn what_refers_to_something_else_is_not_taken() {
    let image = Made::of(&[Archive::new().file("f", "x").end()]);
    let wrong = Artifact::of(b"another", b"a lie");
    let more = Artifact::of(b"another", b"a second");
    let subjects = [image.manifest.clone(), b"nothing".to_vec()];
    let from = registry(&image, [wrong, more], subjects);
    let s = TestStore::new(Who::Root);
    s.cmd(["pull", "--referrers", &from.name("a/b:1")])
        .run()
        .failed_clearly(1, &["referring to", "does not"]);
    s.cmd(["store", "verify"]).ok();
}
