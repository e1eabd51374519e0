//! Images from and to a registry on this machine, and what many images of one base take.

mod images;
mod pull;
mod registry;
mod shared;
mod ten;

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::{Host, Plan, peers::Peers};
use crate::{
    measure::{Entrant, Rounds, Sample, interleave},
    model::{LeftOut, Measured},
    setup::{Setup, Who, program_missing, quiet, succeed},
};
use images::{FIRST, Images, SECOND};
use registry::{PROGRAM, Registry};

pub(super) fn all() -> [Box<dyn Host>; 4] {
    [
        Box::new(pull::Pull),
        Box::new(shared::Shared::PULL),
        Box::new(shared::Shared::PUSH),
        Box::new(ten::TenImages),
    ]
}

const OURS: &str = "pellicle";
const PODMAN: &str = "podman";
/// Where both images are at the registry.
const REPOSITORY: &str = "bench/image";
const STORE: &str = "exchange-store";

/// A registry that has both images, and those who pull from it, each with a storage of its own.
struct Stand {
    registry: Registry,
    images: Images,
    peers: Peers,
    as_user: bool,
}

impl Stand {
    /// What it cannot do without, if that is missing.
    fn missing() -> Option<String> {
        [PROGRAM, "skopeo", "setpriv"]
            .into_iter()
            .find_map(program_missing)
    }

    fn new(setup: &Setup, plan: &Plan) -> Result<Self> {
        let as_user = plan.rootless || setup.who != Who::Root;
        let stand = Self {
            images: Images::make(setup, plan.image_bytes)?,
            registry: Registry::start(setup)?,
            peers: Peers::new(setup, as_user)?,
            as_user,
        };
        setup.say("filling the registry")?;
        for tag in [FIRST, SECOND] {
            stand.upload(tag)?;
        }
        Ok(stand)
    }

    fn name(&self, tag: &str) -> String {
        format!("{}/{REPOSITORY}:{tag}", self.registry.host)
    }

    /// Gives the registry what it does not have of the image `tag`, by none of those that are measured.
    fn upload(&self, tag: &str) -> Result<()> {
        let mut skopeo = quiet("skopeo");
        skopeo
            .args(["--insecure-policy", "copy", "--quiet", "--preserve-digests"])
            .arg("--dest-tls-verify=false")
            .arg(format!("oci:{}:{tag}", self.images.layout.display()))
            .arg(format!("docker://{}", self.name(tag)));
        succeed(&mut skopeo)
    }

    /// `pellicle` on the store of this stand.
    fn pellicle(&self, setup: &Setup) -> Result<Command> {
        let mut command = setup.pellicle(STORE);
        if self.as_user {
            setup.users_directory(STORE)?;
            setup.as_user(&mut command)?;
        }
        Ok(command)
    }

    /// `pull` or `push` of the image `tag` by `client`.
    fn client(&self, setup: &Setup, client: &str, verb: &str, tag: &str) -> Result<Command> {
        let mut command = match client {
            OURS => self.pellicle(setup)?,
            PODMAN => self.peers.command(PODMAN)?,
            other => bail!("{other} does not {verb}"),
        };
        command
            .args([verb, "--quiet", "--tls-verify=false"])
            .arg(self.name(tag));
        Ok(command)
    }

    /// Forgets all that clients have.
    fn clear(&self, setup: &Setup) -> Result<()> {
        self.peers.set_aside(&setup.path(STORE))?;
        self.peers.clear()
    }
}

/// Measures ours and `peers`, each a name and its program and the first the reference, at a stand that is
/// cleared before each round; `once` is one round of the one of that name.
fn at_stand(
    workload: &dyn Host,
    setup: &mut Setup,
    plan: &Plan,
    peers: &[(&str, &str)],
    count: u32,
    once: impl Fn(&Stand, &Setup, &str) -> Result<Sample>,
) -> Result<Measured> {
    let reference = peers.first().map_or(OURS, |(name, _)| *name);
    let mut measured = nothing_yet(workload, reference);
    if let Some(why) = Stand::missing() {
        measured.left_out.push(LeftOut::missing("all", why));
        return Ok(measured);
    }
    let entrants = entrants(peers, &mut measured.left_out);
    let stand = Stand::new(setup, plan)?;
    let rounds = Rounds {
        count,
        warm_up: false,
    };
    let each = |setup: &mut Setup, n: usize| {
        let entrant = entrants.get(n).context("no such program")?;
        stand.clear(setup)?;
        once(&stand, setup, &entrant.name)
    };
    let name = workload.name();
    let (rows, failed) = interleave(setup, &name, &entrants, rounds, reference, each)?;
    stand.clear(setup)?;
    measured.rows = rows;
    measured.left_out.extend(failed);
    Ok(measured)
}

/// A result without rows.
fn nothing_yet(workload: &dyn Host, reference: &str) -> Measured {
    Measured {
        workload: workload.name(),
        about: workload.about(),
        reference: reference.to_owned(),
        floor: None,
        point: None,
        rows: Vec::new(),
        left_out: Vec::new(),
    }
}

/// Those of `others` that are installed, after ours.
fn entrants(others: &[(&str, &str)], left_out: &mut Vec<LeftOut>) -> Vec<Entrant> {
    let mut entrants = vec![Entrant::new(OURS, true)];
    for (name, program) in others {
        match program_missing(program) {
            Some(why) => left_out.push(LeftOut::missing(*name, why)),
            None => entrants.push(Entrant::new(*name, false)),
        }
    }
    entrants
}

/// Standard output as text, of a command that has to succeed.
fn output(command: &mut Command) -> Result<String> {
    crate::setup::said(command.stdout(Stdio::piped()))
}
