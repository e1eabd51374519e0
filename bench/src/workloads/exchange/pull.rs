//! Pulling an image into an empty store, beside the least that has to be done with its layers:
//! fetching, decompressing and hashing.

use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::{FIRST, Host, PODMAN, Plan, REPOSITORY, Stand, at_stand, output};
use crate::{
    measure::Sample,
    model::{LEAST_OF_A_PULL, Measured, extra},
    setup::{Setup, quiet, succeed},
};

pub(super) struct Pull;

impl Host for Pull {
    fn name(&self) -> String {
        "pull".to_owned()
    }

    fn about(&self) -> String {
        format!(
            "pulling an image of 5 layers until it can run, against podman and {LEAST_OF_A_PULL}"
        )
    }

    fn measure(&self, setup: &mut Setup, plan: &Plan) -> Result<Measured> {
        let peers = [(PODMAN, PODMAN), (LEAST_OF_A_PULL, "curl")];
        at_stand(self, setup, plan, &peers, plan.rounds, Stand::once)
    }
}

impl Stand {
    fn once(&self, setup: &Setup, name: &str) -> Result<Sample> {
        // What earlier rounds wrote is not to be written back during this one.
        nix::unistd::sync();
        let mark = self.registry.mark()?;
        let start = Instant::now();
        if name == LEAST_OF_A_PULL {
            self.fetch_and_hash()?;
        } else {
            succeed(&mut self.client(setup, name, "pull", FIRST)?)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let traffic = self.registry.traffic_since(mark)?;
        Ok(Sample {
            seconds,
            extra: [(extra::WIRE.to_owned(), traffic.sent as f64)].into(),
            ..Sample::default()
        })
    }

    /// All layers at once, as engines fetch them.
    fn fetch_and_hash(&self) -> Result<()> {
        let layers = &self.images.first.layers;
        let sums = std::thread::scope(|scope| {
            let running: Vec<_> = layers
                .iter()
                .map(|layer| {
                    let (host, digest) = (&self.registry.host, &layer.digest);
                    let url = format!("http://{host}/v2/{REPOSITORY}/blobs/{digest}");
                    scope.spawn(move || {
                        let script = "curl -fsS \"$1\" | gzip -dc | sha256sum";
                        output(quiet("sh").args(["-c", script, "sh", &url]))
                    })
                })
                .collect();
            let sums = running.into_iter().map(|one| match one.join() {
                Ok(sum) => sum,
                Err(_) => bail!("the thread of a layer ended"),
            });
            sums.collect::<Result<Vec<_>>>()
        })?;
        for (sum, diff_id) in sums.iter().zip(&self.images.first.diff_ids) {
            let sum = sum.split_whitespace().next().unwrap_or_default();
            ensure!(
                diff_id.strip_prefix("sha256:") == Some(sum),
                "a layer came with the sum {sum}, not {diff_id}"
            );
        }
        Ok(())
    }
}
