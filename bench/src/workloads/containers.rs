//! Many containers of one image at once: how long they take to start, and what memory each takes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{Host, Plan, peers::id_said};
use crate::{
    measure::{Entrant, Rounds, Sample, interleave},
    model::{LeftOut, Measured, Point, extra},
    processes,
    setup::{Lower, Setup, Who, program_missing, quiet, succeed},
};

const COUNTS: [u32; 4] = [1, 10, 50, 100];
/// How long all may take until each has done its work.
const PATIENCE: Duration = Duration::from_secs(120);
/// What each does: a program that reads some of the image, then a file that says so.
const SCRIPT: &str = "python3 -c 'import json, re, socket, subprocess, urllib.request' && \
                      : >\"/ready/$0\" && exec sleep 600";

struct Containers(u32);

pub(super) fn all() -> impl Iterator<Item = Box<dyn Host>> {
    COUNTS
        .into_iter()
        .map(|count| Box::new(Containers(count)) as Box<dyn Host>)
}

impl Host for Containers {
    fn name(&self) -> String {
        format!("containers/{}", self.0)
    }

    fn about(&self) -> String {
        let one = if self.0 == 1 {
            "container"
        } else {
            "containers"
        };
        format!(
            "start {} {one} of the image until python has started in each, by an ordinary user",
            self.0
        )
    }

    fn measure(&self, setup: &mut Setup, plan: &Plan) -> Result<Measured> {
        let mut measured = Measured {
            workload: self.name(),
            about: self.about(),
            reference: "bubblewrap".to_owned(),
            floor: None,
            point: Some(Point {
                series: "containers".to_owned(),
                x: f64::from(self.0),
                unit: "containers".to_owned(),
            }),
            rows: Vec::new(),
            left_out: Vec::new(),
        };
        let image = setup.import("user-store", true)?;
        let mut entrants = vec![Entrant::new("pellicle", true)];
        let mut rootfs = PathBuf::new();
        let missing = if setup.who == Who::User {
            Some("the unpacked root that it starts in is made by root only".to_owned())
        } else {
            program_missing("bwrap")
        };
        match missing {
            Some(why) => measured.left_out.push(LeftOut::missing("bubblewrap", why)),
            None => {
                rootfs = setup.stack(&Lower::Image)?.merged.clone();
                entrants.push(Entrant::new("bubblewrap", false));
            }
        }
        let rounds = Rounds {
            count: plan.rounds.min(3),
            warm_up: true,
        };
        let (name, count) = (self.name(), self.0);
        let each = |setup: &mut Setup, n: usize| {
            let mut crowd = Crowd::new(
                setup,
                if n == 0 {
                    Kind::Pellicle(image)
                } else {
                    Kind::Bubblewrap(&rootfs)
                },
            )?;
            let sample = crowd.fill(setup, count);
            let ended = crowd.end(setup);
            let sample = sample?;
            ended?;
            Ok(sample)
        };
        let (rows, left_out) = interleave(setup, &name, &entrants, rounds, "bubblewrap", each)?;
        measured.rows = rows;
        measured.left_out.extend(left_out);
        Ok(measured)
    }
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    /// Of this image.
    Pellicle(&'a str),
    /// Over this root.
    Bubblewrap(&'a Path),
}

/// Containers that run.
struct Crowd<'a> {
    kind: Kind<'a>,
    ready: PathBuf,
    ids: Vec<String>,
    children: Vec<Child>,
}

impl<'a> Crowd<'a> {
    fn new(setup: &Setup, kind: Kind<'a>) -> Result<Self> {
        let ready = setup.path("ready");
        let _ = fs::remove_dir_all(&ready);
        Ok(Self {
            kind,
            ready: setup.users_directory("ready")?,
            ids: Vec::new(),
            children: Vec::new(),
        })
    }

    /// Starts `count`, waits until all are ready, and looks at the memory.
    fn fill(&mut self, setup: &Setup, count: u32) -> Result<Sample> {
        let program = match self.kind {
            Kind::Pellicle(_) => "pellicle",
            Kind::Bubblewrap(_) => "bwrap",
        };
        // Others that run already are none of ours.
        let others = processes::running(program);
        let before = processes::page_cache_mib()?;
        let start = Instant::now();
        for n in 0..count {
            setup.go_on()?;
            self.start(setup, n)?;
        }
        while fs::read_dir(&self.ready)?.count() < count as usize {
            if start.elapsed() > PATIENCE {
                bail!("not all of {count} containers were ready after {PATIENCE:?}");
            }
            setup.go_on()?;
            thread::sleep(Duration::from_millis(1));
        }
        let seconds = start.elapsed().as_secs_f64();
        let ours = processes::running(program);
        let ours = ours.into_iter().filter(|id| !others.contains(id));
        // One that ends just now takes nothing.
        let resident: f64 = ours.filter_map(|id| processes::resident_mib(id).ok()).sum();
        let per = f64::from(count);
        let cached = (processes::page_cache_mib()? - before).max(0.0);
        Ok(Sample {
            seconds,
            extra: BTreeMap::from([
                (extra::RESIDENT.to_owned(), resident / per),
                (extra::PAGE_CACHE.to_owned(), cached / per),
            ]),
            ..Sample::default()
        })
    }

    fn start(&mut self, setup: &Setup, n: u32) -> Result<()> {
        let name = n.to_string();
        match self.kind {
            Kind::Pellicle(image) => {
                let mut command = setup.pellicle("user-store");
                command
                    .args(["run", "-d", "--rm", "-v"])
                    .arg(format!("{}:/ready", self.ready.display()))
                    .args([image, "/bin/sh", "-c", SCRIPT, &name]);
                setup.as_user(&mut command)?;
                self.ids.push(id_said(&mut command)?);
            }
            Kind::Bubblewrap(rootfs) => {
                let mut command = quiet("bwrap");
                command
                    .args(["--unshare-all", "--die-with-parent", "--ro-bind"])
                    .arg(rootfs)
                    .args(["/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/mnt"])
                    .arg("--bind")
                    .arg(&self.ready)
                    // The root is read-only: the point is one that it has.
                    .arg("/srv")
                    .args(["/bin/sh", "-c", &SCRIPT.replace("/ready/", "/srv/"), &name])
                    .stderr(std::process::Stdio::null());
                setup.as_user(&mut command)?;
                self.children
                    .push(command.spawn().context("cannot run bwrap")?);
            }
        }
        Ok(())
    }

    /// Ends them all.
    fn end(&mut self, setup: &Setup) -> Result<()> {
        for mut child in self.children.drain(..) {
            child.kill()?;
            child.wait()?;
        }
        let ids: Vec<String> = self.ids.drain(..).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut command: Command = setup.pellicle("user-store");
        command.args(["rm", "-f"]).args(&ids);
        setup.as_user(&mut command)?;
        succeed(&mut command)
    }
}
