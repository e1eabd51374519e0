//! Building an image of ten steps, from nothing and once more without a change, beside buildah.

use std::{fs, path::PathBuf, process::Command, time::Instant};

use anyhow::{Context as _, Result};

use super::{Host, Plan, import_image, peers::Peers};
use crate::{
    measure::{Entrant, Rounds, Sample, interleave},
    model::{LeftOut, Measured},
    setup::{Setup, Who, program_missing, succeed},
    stats::median,
};

const OURS: &str = "pellicle";
const BUILDAH: &str = "buildah";
/// Builds per round when nothing has changed; the round's sample is their median.
const AGAIN: u32 = 5;
/// Small files in the context.
const FILES: u32 = 200;

/// Ten steps: files from the context, commands that make, change and remove files, settings.
const CONTAINERFILE: &str = "\
ARG BASE
FROM $BASE
ENV LANG=C.UTF-8
WORKDIR /app
COPY files /app/files
RUN mkdir out && cp -r files out/copy && ls -R /usr/lib >out/list
RUN for n in 0 1 2 3 4 5 6 7 8 9; do echo $n >out/$n; done && chmod -R go-w /app
COPY one two /app/
RUN rm -r out/copy && sort out/list >out/sorted && echo changed >>one
LABEL made=bench
CMD [\"/bin/true\"]
";

struct Build {
    again: bool,
}

pub(super) fn all() -> impl Iterator<Item = Box<dyn Host>> {
    let of = |again| Box::new(Build { again }) as Box<dyn Host>;
    [false, true].into_iter().map(of)
}

impl Host for Build {
    fn name(&self) -> String {
        if self.again { "rebuild" } else { "build" }.to_owned()
    }

    fn about(&self) -> String {
        let what = if self.again {
            "again without a change"
        } else {
            "from nothing"
        };
        format!("building a Containerfile of 10 steps {what}, against `buildah bud --layers`")
    }

    fn measure(&self, setup: &mut Setup, plan: &Plan) -> Result<Measured> {
        let mut measured = Measured {
            workload: self.name(),
            about: self.about(),
            reference: BUILDAH.to_owned(),
            floor: None,
            point: None,
            rows: Vec::new(),
            left_out: Vec::new(),
        };
        let as_user = plan.rootless || setup.who != Who::Root;
        let builders = Builders::new(setup, as_user)?;
        let mut entrants = vec![Entrant::new(OURS, true)];
        match builders.prepare_buildah(setup) {
            Ok(()) => entrants.push(Entrant::new(BUILDAH, false)),
            Err(why) => measured.left_out.push(LeftOut::missing(BUILDAH, why)),
        }
        if self.again {
            for entrant in &entrants {
                builders.build(setup, &entrant.name, false)?;
            }
        }
        let rounds = Rounds {
            count: plan.rounds,
            warm_up: true,
        };
        let each = |setup: &mut Setup, n: usize| {
            let entrant = entrants.get(n).context("no such program")?;
            self.round(setup, &builders, &entrant.name)
        };
        let (rows, failed) = interleave(setup, &self.name(), &entrants, rounds, BUILDAH, each)?;
        measured.rows = rows;
        measured.left_out.extend(failed);
        Ok(measured)
    }
}

impl Build {
    fn round(&self, setup: &Setup, builders: &Builders, name: &str) -> Result<Sample> {
        // What earlier rounds wrote is not to be written back during this one.
        nix::unistd::sync();
        let mut times = Vec::new();
        for _ in 0..if self.again { AGAIN } else { 1 } {
            setup.go_on()?;
            times.push(builders.build(setup, name, !self.again)?);
        }
        times.sort_by(f64::total_cmp);
        Ok(Sample {
            seconds: median(&times).context("nothing was built")?,
            ..Sample::default()
        })
    }
}

/// Those who build, each with the base in a storage of its own.
struct Builders {
    store: &'static str,
    image: &'static str,
    as_user: bool,
    peers: Peers,
    context: PathBuf,
}

impl Builders {
    fn new(setup: &mut Setup, as_user: bool) -> Result<Self> {
        let store = if as_user { "user-store" } else { "root-store" };
        Ok(Self {
            store,
            image: setup.import(store, as_user)?,
            as_user,
            peers: Peers::new(setup, as_user)?,
            context: context(setup)?,
        })
    }

    /// Gives buildah the base; an error is why it takes no part.
    fn prepare_buildah(&self, setup: &mut Setup) -> Result<(), String> {
        let missing = [BUILDAH, "podman"].into_iter().find_map(program_missing);
        if let Some(why) = missing {
            return Err(why);
        }
        let given = import_image::layout(setup)
            .and_then(|layout| succeed(&mut import_image::podman_pull(&self.peers, &layout)?));
        given.map_err(|error| format!("{error:#}"))
    }

    /// One build; its seconds.
    fn build(&self, setup: &Setup, name: &str, from_nothing: bool) -> Result<f64> {
        let (mut command, base): (Command, &str) = if name == OURS {
            let mut command = setup.pellicle(self.store);
            command.arg("build");
            if self.as_user {
                setup.as_user(&mut command)?;
            }
            (command, self.image)
        } else {
            let mut command = self.peers.command(BUILDAH)?;
            // What an engine's containers need besides is not what is compared.
            command
                .env("BUILDAH_ISOLATION", "chroot")
                .args(["bud", "--layers"]);
            (command, import_image::NAME)
        };
        if from_nothing {
            command.arg("--no-cache");
        }
        command
            .args(["--quiet", "--tag", "localhost/built:1", "--build-arg"])
            .arg(format!("BASE={base}"))
            .arg(&self.context);
        let start = Instant::now();
        succeed(&mut command)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

fn context(setup: &Setup) -> Result<PathBuf> {
    let dir = setup.users_directory("build-context")?;
    let files = setup.users_directory("build-context/files")?;
    let write = |path: PathBuf, text: &str| {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    for n in 0..FILES {
        write(
            files.join(format!("f{n}")),
            &format!("file {n}\n").repeat(50),
        )?;
    }
    write(dir.join("one"), "one\n")?;
    write(dir.join("two"), "two\n")?;
    write(dir.join("Containerfile"), CONTAINERFILE)?;
    Ok(dir)
}
