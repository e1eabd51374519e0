//! Importing the image from an OCI layout, beside the programs that do the same.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result};

use super::{Host, Plan, peers::Peers};
use crate::{
    measure::{Entrant, Rounds, Sample, interleave},
    model::{LeftOut, Measured},
    setup::{Layout, Setup, Who, program_missing, quiet, succeed},
};

/// What the image is called in the layout and by podman.
pub(super) const NAME: &str = "localhost/bench:1";
const TAG: &str = "1";

pub(super) struct ImportImage;

impl Host for ImportImage {
    fn name(&self) -> String {
        "import-image".to_owned()
    }

    fn about(&self) -> String {
        "importing the image from an OCI layout, against podman pull, skopeo with umoci, containerd"
            .to_owned()
    }

    fn measure(&self, setup: &mut Setup, plan: &Plan) -> Result<Measured> {
        let as_user = plan.rootless || setup.who != Who::Root;
        let layout = layout(setup)?;
        let peers = Peers::new(setup, as_user)?;
        let mut left_out = vec![LeftOut::missing("containerd", containerd(setup))];
        let mut entrants = vec![Entrant::new("pellicle", true)];
        for (name, programs) in [("podman", &["podman"][..]), ("umoci", &["skopeo", "umoci"])] {
            match programs.iter().find_map(|p| program_missing(p)) {
                Some(why) => left_out.push(LeftOut::missing(name, why)),
                None => entrants.push(Entrant::new(name, false)),
            }
        }
        let rounds = Rounds {
            count: plan.rounds,
            warm_up: false,
        };
        let each = |setup: &mut Setup, n: usize| {
            let name = entrants.get(n).map(|entrant| entrant.name.as_str());
            let seconds = once(setup, &peers, name.unwrap_or_default(), &layout, as_user);
            let cleared = clear(setup, &peers);
            let seconds = seconds?;
            cleared?;
            Ok(Sample {
                seconds,
                ..Sample::default()
            })
        };
        let (rows, failed) = interleave(setup, &self.name(), &entrants, rounds, "podman", each)?;
        left_out.extend(failed);
        Ok(Measured {
            workload: self.name(),
            about: self.about(),
            reference: "podman".to_owned(),
            floor: Some(1.0 / 3.0),
            point: None,
            rows,
            left_out,
        })
    }
}

const STORE: &str = "import-image-store";

fn once(setup: &mut Setup, peers: &Peers, name: &str, layout: &Path, as_user: bool) -> Result<f64> {
    if as_user {
        setup.users_directory(STORE)?;
    }
    // What earlier rounds wrote is not to be written back during this one.
    nix::unistd::sync();
    let start = Instant::now();
    match name {
        "podman" => succeed(&mut podman_pull(peers, layout)?)?,
        "umoci" => umoci(peers, layout, as_user)?,
        _ => {
            let mut command = setup.pellicle(STORE);
            command.args(["load", "-i"]).arg(layout);
            if as_user {
                setup.as_user(&mut command)?;
            }
            succeed(&mut command)?;
        }
    }
    Ok(start.elapsed().as_secs_f64())
}

fn clear(setup: &Setup, peers: &Peers) -> Result<()> {
    peers.set_aside(&setup.path(STORE))?;
    peers.clear()
}

/// `podman pull`, and the name that containers are started by. From within the layout's directory: podman makes
/// a name of the path, which then may have no capitals.
pub(super) fn podman_pull(peers: &Peers, layout: &Path) -> Result<Command> {
    let mut command = peers.command("sh")?;
    command.args([
        "-ec",
        "cd \"$1\" && cd .. && id=$(podman pull --quiet \"oci:${1##*/}:$2\") && podman tag \"$id\" \"$3\"",
        "sh",
    ]);
    command.arg(layout).args([TAG, NAME]);
    Ok(command)
}

/// A copy into a layout of its own, and that unpacked: what makes a root that crun can start in.
fn umoci(peers: &Peers, layout: &Path, as_user: bool) -> Result<()> {
    let own = peers.path("layout");
    let mut copy = peers.command("skopeo")?;
    copy.args(["copy", "--quiet"])
        .arg(format!("oci:{}:{TAG}", layout.display()))
        .arg(format!("oci:{}:{TAG}", own.display()));
    succeed(&mut copy)?;
    let mut unpack = peers.command("umoci")?;
    unpack.arg("unpack");
    if as_user {
        unpack.arg("--rootless");
    }
    unpack
        .arg("--image")
        .arg(format!("{}:{TAG}", own.display()))
        .arg(peers.path("unpacked"));
    succeed(&mut unpack)
}

/// Why containerd is not measured.
fn containerd(setup: &Setup) -> String {
    program_missing("ctr")
        .or_else(|| {
            let asked = quiet("ctr")
                .args(["--connect-timeout", "2s", "version"])
                .output();
            let answers = asked.is_ok_and(|out| out.status.success());
            (!answers || setup.who != Who::Root)
                .then(|| "its daemon does not answer; this program starts none".to_owned())
        })
        .unwrap_or_else(|| "its store is the machine's: this program leaves that alone".to_owned())
}

/// The image as an OCI layout with gzip layers (image-spec, image-layout.md).
pub(super) fn layout(setup: &mut Setup) -> Result<PathBuf> {
    let files = setup.layer_files()?;
    let dir = setup.directory("oci-layout")?;
    if Layout::is_at(&dir) {
        return Ok(dir);
    }
    setup.say("making an OCI layout of the image")?;
    let mut layout = Layout::create(&dir)?;
    let mut layers = Vec::new();
    for file in &files {
        setup.go_on()?;
        layers.push(layout.pack(&plain(file)?)?);
    }
    layout.tag(TAG, &layers.iter().collect::<Vec<_>>())?;
    layout.finish()?;
    Ok(dir)
}

/// The bytes of a layer, not compressed.
fn plain(file: &Path) -> Result<Vec<u8>> {
    let compressed = file.extension().is_some_and(|e| e == "gz");
    if compressed {
        let mut gzip = quiet("gzip");
        gzip.arg("-dc").arg(file).stdout(Stdio::piped());
        let out = gzip.output().context("cannot run gzip")?;
        anyhow::ensure!(out.status.success(), "{} is no gzip file", file.display());
        return Ok(out.stdout);
    }
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
