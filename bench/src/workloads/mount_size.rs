//! Mounting images of very different sizes: neither time nor memory may grow with the image.

use std::{collections::BTreeMap, path::Path, time::Instant};

use anyhow::{Context as _, Result};

use super::{Host, Plan};
use crate::{
    measure::{Entrant, Rounds, Sample, interleave},
    model::{Measured, extra},
    processes,
    setup::{Setup, Tar, succeed},
    stats::Random,
};

const SIZES: [(&str, u32); 2] = [("1,000,000 entries", 1_000_000), ("1,000 entries", 1_000)];
const FILES_IN_A_DIRECTORY: u32 = 1_000;
const STORE: &str = "sizes";

pub(super) struct MountSize;

impl Host for MountSize {
    fn name(&self) -> String {
        "mount-size".to_owned()
    }

    fn about(&self) -> String {
        "mounting an image of 1,000,000 entries, against one of 1,000".to_owned()
    }

    fn measure(&self, setup: &mut Setup, plan: &Plan) -> Result<Measured> {
        let at = setup.directory("mnt")?;
        for (name, entries) in SIZES {
            let (image, tar) = (image(entries), setup.path("synthetic.tar"));
            setup.say(format!("{}: importing an image of {name}", self.name()))?;
            synthetic(&tar, entries)?;
            succeed(setup.pellicle(STORE).arg("import").arg(&tar).arg(&image))?;
            std::fs::remove_file(&tar)?;
            // The first mount makes the image's tree.
            once(setup, &image, &at)?;
        }
        let entrants: Vec<Entrant> = SIZES
            .iter()
            .map(|(name, _)| Entrant::new(*name, true))
            .collect();
        let rounds = Rounds {
            count: plan.rounds,
            warm_up: false,
        };
        let small = "1,000 entries";
        let (rows, left_out) =
            interleave(setup, &self.name(), &entrants, rounds, small, |setup, n| {
                let (_, entries) = SIZES.get(n).context("no such size")?;
                once(setup, &image(*entries), &at)
            })?;
        let _ = std::fs::remove_dir_all(setup.path(STORE));
        Ok(Measured {
            workload: self.name(),
            about: self.about(),
            reference: small.to_owned(),
            floor: Some(3.0),
            point: None,
            rows,
            left_out,
        })
    }
}

/// Mounts and unmounts; the time is the mount's, the memory its server's.
fn once(setup: &Setup, image: &str, at: &Path) -> Result<Sample> {
    let start = Instant::now();
    succeed(setup.pellicle(STORE).arg("mount").arg(image).arg(at))?;
    let seconds = start.elapsed().as_secs_f64();
    let resident = processes::serving(at).map(processes::resident_mib);
    succeed(setup.pellicle(STORE).arg("umount").arg(at))?;
    Ok(Sample {
        seconds,
        extra: BTreeMap::from([(extra::RESIDENT.to_owned(), resident??)]),
        ..Sample::default()
    })
}

fn image(entries: u32) -> String {
    format!("entries-{entries}")
}

/// Writes a tar of `entries` empty files in directories of a thousand.
fn synthetic(path: &Path, entries: u32) -> Result<()> {
    let mut tar = Tar::create(path)?;
    let mut random = Random::new(6);
    for n in 0..entries {
        let dir = n / FILES_IN_A_DIRECTORY;
        if n % FILES_IN_A_DIRECTORY == 0 {
            tar.directory(&format!("d{dir}/"))?;
        }
        tar.file(&format!("d{dir}/f{n}"), 0, &mut random)?;
    }
    tar.finish(true)
}
