//! What ten images on one base take on disk, beside the base alone and the bytes of their own files.

use std::{fs, path::Path, process::Command, time::Instant};

use anyhow::{Context as _, Result};

use super::{FIRST, Host, OURS, Plan, STORE, Stand, at_stand};
use crate::{
    measure::Sample,
    model::{Measured, extra},
    setup::{Setup, large_file, succeed},
    tree,
};

const IMAGES: u64 = 10;
/// What an image has for itself, as a part of the base.
const PART: u64 = 50;
const BUILDAH: &str = "buildah";

pub(super) struct TenImages;

impl Host for TenImages {
    fn name(&self) -> String {
        "ten-images".to_owned()
    }

    fn about(&self) -> String {
        "building 10 images on one base: the disk they take, against the base and their own files"
            .to_owned()
    }

    fn measure(&self, setup: &mut Setup, plan: &Plan) -> Result<Measured> {
        let own = plan.image_bytes / PART;
        // What it takes is the same every time.
        let count = plan.rounds.min(3);
        let once = |stand: &Stand, setup: &Setup, name: &str| stand.build_ten(setup, name, own);
        at_stand(self, setup, plan, &[(BUILDAH, BUILDAH)], count, once)
    }
}

impl Stand {
    fn build_ten(&self, setup: &Setup, builder: &str, own: u64) -> Result<Sample> {
        let puller = if builder == OURS { OURS } else { super::PODMAN };
        succeed(&mut self.client(setup, puller, "pull", FIRST)?)?;
        let store = if builder == OURS {
            setup.path(STORE)
        } else {
            self.peers.path("storage")
        };
        let base = tree::disk_bytes(&store)?;
        let mut seconds = 0.0;
        for n in 0..IMAGES {
            setup.go_on()?;
            let context = context(setup, &self.name(FIRST), n, own)?;
            let mut command = self.build(setup, builder, &context, n)?;
            let start = Instant::now();
            succeed(&mut command)?;
            seconds += start.elapsed().as_secs_f64();
            fs::remove_dir_all(&context)?;
        }
        let space = tree::disk_bytes(&store)? as f64;
        let content = (self.images.content_bytes + IMAGES * own) as f64;
        let over_base = space / (base + IMAGES * own) as f64;
        Ok(Sample {
            seconds,
            extra: [
                (extra::SPACE.to_owned(), space),
                (extra::SPACE_RATIO.to_owned(), space / content),
                (extra::OVER_BASE.to_owned(), over_base),
            ]
            .into(),
            ..Sample::default()
        })
    }

    fn build(&self, setup: &Setup, builder: &str, context: &Path, n: u64) -> Result<Command> {
        let mut command = if builder == OURS {
            let mut command = self.pellicle(setup)?;
            command.arg("build");
            command
        } else {
            let mut command = self.peers.command(BUILDAH)?;
            command.args(["bud", "--layers"]);
            command
        };
        command
            .args(["--quiet", "--tag", &format!("localhost/own:{n}")])
            .arg(context);
        Ok(command)
    }
}

/// A context of a file that no other has.
fn context(setup: &Setup, base: &str, n: u64, own: u64) -> Result<std::path::PathBuf> {
    let context = setup.users_directory(&format!("context-{n}"))?;
    // Blocks are marked with the bytes that are left: another size is another content.
    large_file(&context.join("own"), own + n)?;
    let file = context.join("Containerfile");
    fs::write(&file, format!("FROM {base}\nCOPY own /own\n"))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(context)
}
