//! Starting a container that does nothing, beside bubblewrap, crun and podman on the same root.

use std::{process::Command, time::Instant};

use anyhow::{Context as _, Result};

use super::{Host, Plan, import_image, peers::Peers};
use crate::{
    measure::{Entrant, Rounds, Sample, interleave},
    model::{LeftOut, Measured},
    setup::{Lower, Setup, Who, program_missing, quiet, succeed},
    stats::median,
};

/// Starts per round; the round's sample is their median.
const STARTS: u32 = 15;
/// podman is slower, and steadier.
const STARTS_OF_PODMAN: u32 = 1;
/// By the way that a kernel offers which nobody has told to offer io_uring.
const OVER_DEV: &str = "pellicle-dev";

struct Launch {
    as_user: bool,
}

pub(super) fn all() -> impl Iterator<Item = Box<dyn Host>> {
    let of = |as_user| Box::new(Launch { as_user }) as Box<dyn Host>;
    [true, false].into_iter().map(of)
}

impl Host for Launch {
    fn name(&self) -> String {
        if self.as_user {
            "run-true"
        } else {
            "run-true-root"
        }
        .to_owned()
    }

    fn about(&self) -> String {
        let who = if self.as_user {
            "an ordinary user"
        } else {
            "root"
        };
        format!("`run --rm IMAGE /bin/true` by {who}, against bubblewrap, crun and podman")
    }

    fn measure(&self, setup: &mut Setup, plan: &Plan) -> Result<Measured> {
        let mut measured = Measured {
            workload: self.name(),
            about: self.about(),
            reference: "bubblewrap".to_owned(),
            floor: Some(2.0),
            point: None,
            rows: Vec::new(),
            left_out: Vec::new(),
        };
        if !self.as_user && setup.who != Who::Root {
            let why = "starting containers as root needs root";
            measured.left_out.push(LeftOut::missing("all", why));
            return Ok(measured);
        }
        let starter = Starter::new(setup, self.as_user, &mut measured.left_out)?;
        let rounds = Rounds {
            count: plan.rounds,
            warm_up: true,
        };
        let name = self.name();
        let (rows, left_out) = interleave(
            setup,
            &name,
            &starter.entrants,
            rounds,
            "bubblewrap",
            |setup, n| {
                let entrant = starter.entrants.get(n).context("no such program")?;
                starter.round(setup, &entrant.name)
            },
        )?;
        measured.rows = rows;
        measured.left_out.extend(left_out);
        Ok(measured)
    }
}

/// Who starts what.
struct Starter {
    as_user: bool,
    store: &'static str,
    image: &'static str,
    rootfs: std::path::PathBuf,
    peers: Peers,
    entrants: Vec<Entrant>,
}

impl Starter {
    fn new(setup: &mut Setup, as_user: bool, left_out: &mut Vec<LeftOut>) -> Result<Self> {
        let store = if as_user { "user-store" } else { "root-store" };
        let image = setup.import(store, as_user)?;
        let mut entrants = vec![Entrant::new("pellicle", true), Entrant::new(OVER_DEV, true)];
        let mut rootfs = std::path::PathBuf::new();
        let peers = Peers::new(setup, as_user)?;
        if setup.who == Who::User {
            let why = "the unpacked root that it starts in is made by root only";
            left_out.push(LeftOut::missing("bubblewrap", why));
            left_out.push(LeftOut::missing("crun", why));
        } else {
            rootfs = setup.stack(&Lower::Image)?.merged.clone();
            for (program, name) in [("bwrap", "bubblewrap"), ("crun", "crun")] {
                match program_missing(program) {
                    Some(why) => left_out.push(LeftOut::missing(name, why)),
                    None => entrants.push(Entrant::new(name, false)),
                }
            }
        }
        match podman_image(setup, &peers) {
            Ok(()) => entrants.push(Entrant::new("podman", false)),
            Err(error) => left_out.push(LeftOut::missing("podman", format!("{error:#}"))),
        }
        Ok(Self {
            as_user,
            store,
            image,
            rootfs,
            peers,
            entrants,
        })
    }

    fn round(&self, setup: &Setup, name: &str) -> Result<Sample> {
        let bundle = (name == "crun")
            .then(|| self.peers.bundle(&self.rootfs))
            .transpose()?;
        let starts = if name == "podman" {
            STARTS_OF_PODMAN
        } else {
            STARTS
        };
        let mut times = Vec::new();
        for start in 0..starts {
            setup.go_on()?;
            let mut command = match (&bundle, name) {
                (Some(bundle), _) => self.peers.crun_run(bundle, start)?,
                (None, "podman") => self.peers.podman_run(import_image::NAME)?,
                (None, "bubblewrap") => self.bubblewrap(setup)?,
                _ => self.pellicle(setup, name)?,
            };
            let begun = Instant::now();
            succeed(&mut command)?;
            times.push(begun.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok(Sample {
            seconds: median(&times).context("nothing was started")?,
            ..Sample::default()
        })
    }

    fn pellicle(&self, setup: &Setup, name: &str) -> Result<Command> {
        let mut command = setup.pellicle(self.store);
        command.args(["run", "--rm"]);
        if name == OVER_DEV {
            command.args(["--transport", "dev"]);
        }
        command.args([self.image, "/bin/true"]);
        if self.as_user {
            setup.as_user(&mut command)?;
        }
        Ok(command)
    }

    fn bubblewrap(&self, setup: &Setup) -> Result<Command> {
        let mut command = quiet("bwrap");
        command
            .args(["--unshare-all", "--bind"])
            .arg(&self.rootfs)
            .args(["/", "true"]);
        if self.as_user {
            setup.as_user(&mut command)?;
        }
        Ok(command)
    }
}

/// Has podman pull the image, and start it once.
fn podman_image(setup: &mut Setup, peers: &Peers) -> Result<()> {
    if let Some(why) = program_missing("podman") {
        anyhow::bail!(why);
    }
    let layout = import_image::layout(setup)?;
    succeed(&mut import_image::podman_pull(peers, &layout)?)?;
    succeed(&mut peers.podman_run(import_image::NAME)?)
}
