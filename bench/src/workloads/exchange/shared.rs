//! Pulling and pushing an image of which the other side has all layers but one: only that one may cross
//! the wire.

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Context as _, Result, bail};

use super::{FIRST, Host, Images, OURS, PODMAN, Plan, REPOSITORY, SECOND, Stand, at_stand};
use crate::{
    measure::Sample,
    model::{Measured, extra},
    setup::{Setup, succeed},
};

/// Bytes beside the layer, the configuration and the manifest: answers to questions about the registry.
const SLACK: u64 = 4096;

pub(super) struct Shared {
    push: bool,
}

impl Shared {
    pub(super) const PULL: Self = Self { push: false };
    pub(super) const PUSH: Self = Self { push: true };
}

impl Host for Shared {
    fn name(&self) -> String {
        if self.push {
            "push-shared"
        } else {
            "pull-shared"
        }
        .to_owned()
    }

    fn about(&self) -> String {
        let (what, who) = if self.push {
            ("pushing", "the registry")
        } else {
            ("pulling", "the store")
        };
        format!(
            "{what} an image of which {who} has 4 of 5 layers, against podman; only the fifth may be sent"
        )
    }

    fn measure(&self, setup: &mut Setup, plan: &Plan) -> Result<Measured> {
        let once = |stand: &Stand, setup: &Setup, name: &str| self.once(setup, stand, name);
        at_stand(self, setup, plan, &[(PODMAN, PODMAN)], plan.rounds, once)
    }
}

impl Shared {
    fn once(&self, setup: &Setup, stand: &Stand, client: &str) -> Result<Sample> {
        succeed(&mut stand.client(setup, client, "pull", FIRST)?)?;
        let verb = if self.push {
            // Of the rounds before, everything is there.
            stand.upload(SECOND)?;
            succeed(&mut stand.client(setup, client, "pull", SECOND)?)?;
            stand.forget_second()?;
            "push"
        } else {
            "pull"
        };
        nix::unistd::sync();
        let mark = stand.registry.mark()?;
        let start = Instant::now();
        succeed(&mut stand.client(setup, client, verb, SECOND)?)?;
        let seconds = start.elapsed().as_secs_f64();
        let traffic = stand.registry.traffic_since(mark)?;
        let moved = if self.push {
            traffic.received
        } else {
            traffic.sent
        };
        if client == OURS {
            only_the_fifth(moved, &stand.images)?;
        }
        Ok(Sample {
            seconds,
            extra: [(extra::WIRE.to_owned(), moved as f64)].into(),
            ..Sample::default()
        })
    }
}

/// An error if another number of bytes was moved than the second image has for itself.
fn only_the_fifth(moved: u64, images: &Images) -> Result<()> {
    let second = &images.second;
    let fifth = second
        .layers
        .last()
        .context("an image without layers")?
        .size;
    let least = fifth + second.config.size + second.manifest.size;
    if !(least..=least + SLACK).contains(&moved) {
        bail!(
            "{moved} bytes crossed the wire, and {least} were to: those of the fifth layer, \
             the configuration and the manifest"
        );
    }
    Ok(())
}

impl Stand {
    /// Has the registry forget what only the second image has.
    fn forget_second(&self) -> Result<()> {
        let first = &self.images.first;
        let blobs = first.layers.iter().chain([&first.config, &first.manifest]);
        let digests: BTreeSet<&str> = blobs.map(|blob| blob.digest.as_str()).collect();
        self.registry.keep_only(REPOSITORY, FIRST, &digests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::{Blob, Described};

    #[test]
    fn more_or_less_than_the_fifth_layer_is_a_failure() {
        let blob = |size| Blob {
            digest: format!("sha256:{size}"),
            size,
        };
        let described = Described {
            manifest: blob(500),
            config: blob(300),
            layers: vec![blob(90_000), blob(70_000)],
            diff_ids: Vec::new(),
        };
        let images = Images {
            layout: std::path::PathBuf::new(),
            first: described.clone(),
            second: described,
            content_bytes: 0,
        };
        assert!(only_the_fifth(70_800, &images).is_ok());
        assert!(only_the_fifth(70_802, &images).is_ok());
        for wrong in [0, 70_799, 160_800] {
            let why = only_the_fifth(wrong, &images).unwrap_err().to_string();
            assert!(why.contains(&wrong.to_string()), "{why}");
        }
    }
}
