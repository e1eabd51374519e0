//! `pellicle store verify`: is everything as it was written, and with `--repair`, make it so.

use std::{fs, process::ExitCode};

use clap::Args;
use pellicle_store::{Damage, Outcome, Quarantine, Repaired, VerifyReport};

use super::{
    needs::{Needs, add_missing, sources},
    report::{Finding, print},
};
use crate::{
    CliError, Context,
    commands::format::FormatArg,
    container::{
        health::{self, Health},
        registry::Registry,
        state::now,
    },
    image::{ImageError, Images, Record},
    output,
};

/// Read everything and compare it with its digests; exit code 1 if anything is damaged
#[derive(Args, Debug)]
#[command(
    after_help = "Looked at are file contents, trees, blobs, the list of images, and the containers' own files: \
state, journal, and whether each data file is there (what is in those has no checksum).

With --repair, what is damaged is set aside in the store's directory quarantine/, with a report \
of what, when and why, and made again from what is intact: contents and trees from the blobs of \
their layers, image trees from those of their layers. What cannot be made again is named with the \
images that miss it; importing or loading those again brings it back. A damaged journal is cut \
where it is damaged if nothing else helps; without --repair it is told what that would lose. \
Containers and imports may run meanwhile; the journal of a container that runs is left alone.

Exit code: 0 if nothing is damaged, or all is well again; 1 if something is, or stays so.

Examples:
  pellicle store verify
  pellicle store verify --repair
  pellicle store verify --format json | jq -r .Images"
)]
pub struct VerifyArgs {
    /// Set aside what is damaged, and make again what can be
    #[arg(long)]
    repair: bool,
    /// How to print
    #[command(flatten)]
    format: FormatArg,
}

/// One run of the command.
struct Verify<'a> {
    cx: &'a Context,
    images: Images,
    registry: Registry,
    /// Where to set things aside, if that is to be done.
    quarantine: Option<Quarantine>,
    findings: Vec<Finding>,
}

/// Runs the command.
///
/// # Errors
/// If the store cannot be read, or not be changed with `--repair`; if something stays damaged.
pub(super) fn run(cx: &Context, args: &VerifyArgs) -> Result<ExitCode, CliError> {
    let format = args.format.parse()?;
    let images = cx.images()?;
    let root = images.store().root().to_owned();
    let quarantine = args.repair.then(|| Quarantine::new(&root, now()));
    let mut verify = Verify {
        cx,
        registry: Registry::new(&root),
        images,
        quarantine,
        findings: Vec::new(),
    };
    verify.all()?;
    print(&cx.out, &format, &verify.findings)?;
    if let Some(dir) = verify.quarantine.as_ref().and_then(Quarantine::dir) {
        cx.out.note(format_args!("set aside in {}", dir.display()));
    }
    let bad = verify.findings.iter().filter(|f| !f.well).count();
    if bad == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let error = CliError::failed(match args.repair {
        false => format!("the store is damaged in {bad} places"),
        true => format!("{bad} things are still damaged or missing"),
    });
    Err(match args.repair {
        false => error.with_hint(
            "`pellicle store verify --repair` sets aside what is damaged and makes again what it can",
        ),
        true => error.with_hint("do what `next:` says of each, then verify again"),
    })
}

impl Verify<'_> {
    fn all(&mut self) -> Result<(), CliError> {
        self.open_directories()?;
        let report = self.read_everything()?;
        let records = self.records()?;
        let images: Vec<Needs> = records
            .into_iter()
            .map(|record| Needs::of_image(&self.images, record))
            .collect();
        for image in images.iter().filter(|i| i.unreadable.is_some()) {
            self.findings.push(Finding {
                kind: "image",
                detail: image.unreadable.clone().unwrap_or_default(),
                path: self.images.store().root().join("blobs"),
                images: vec![image.name.clone()],
                next: import_again(std::slice::from_ref(&image.name), &[]),
                ..Finding::default()
            });
        }
        let mut containers = self.containers()?;
        let users: Vec<Needs> = containers.iter().map(Needs::of_container).collect();
        let all: Vec<&Needs> = images.iter().chain(&users).collect();
        let mut damaged = report.damaged;
        add_missing(&mut damaged, &all, self.images.store());
        let done = self.repair(damaged, &all)?;
        for (damage, repaired) in done {
            self.add(&damage, repaired, &images, &users);
        }
        self.repair_containers(&mut containers)?;
        for health in containers {
            self.add_container(health);
        }
        Ok(())
    }

    fn open_directories(&mut self) -> Result<(), CliError> {
        let Some(quarantine) = &self.quarantine else {
            return Ok(());
        };
        for opened in self.images.store().open_directories()? {
            let what = opened.path.display().to_string();
            quarantine.note(&what, &format!("{}; it was changed", opened.detail))?;
            self.findings.push(Finding {
                kind: "directory",
                path: opened.path,
                detail: opened.detail,
                outcome: Some("its mode was put right".to_owned()),
                well: true,
                ..Finding::default()
            });
        }
        Ok(())
    }

    fn read_everything(&mut self) -> Result<VerifyReport, CliError> {
        let step = self.cx.out.step("verify", None);
        let store = self.images.store();
        let report = store.verify(&mut |_, bytes| step.advance(bytes))?;
        step.done(format_args!(
            "{} objects, {} blobs, {} trees, {} read",
            report.objects,
            report.blobs,
            report.trees,
            output::bytes(report.bytes)
        ));
        for dir in &report.directories {
            self.findings.push(Finding {
                kind: "directory",
                path: dir.path.clone(),
                detail: format!("{}; what is in it was not read", dir.detail),
                next: "see that it is a directory that its owner can use, then verify again".into(),
                ..Finding::default()
            });
        }
        Ok(report)
    }

    /// The list of images, made again if it is damaged and that is asked for.
    fn records(&mut self) -> Result<Vec<Record>, CliError> {
        let (path, detail) = match self.images.records() {
            Err(ImageError::Index { path, detail }) => (path, detail),
            other => return Ok(other?),
        };
        let mut finding = Finding {
            kind: "list",
            path,
            detail: format!("it is the list of images, and {detail}"),
            next: "`pellicle store verify --repair` makes it again of what can be read".to_owned(),
            ..Finding::default()
        };
        if let Some(quarantine) = &self.quarantine {
            let mut aside = None;
            let salvaged = self.images.salvage(&mut |path| {
                aside = Some(quarantine.keep(path, "images/index.json", &finding.detail)?);
                Ok(quarantine.sync()?)
            })?;
            finding.aside = aside;
            finding.outcome = Some(format!(
                "made again: {} images as they were listed, {} others that are in the store, \
                 without names",
                salvaged.kept, salvaged.nameless
            ));
            finding.next = "look at the names (`pellicle images`) and give those back that are \
                            missing (`pellicle tag`)"
                .to_owned();
            finding.well = true;
        }
        let made = finding.well;
        self.findings.push(finding);
        Ok(if made {
            self.images.records()?
        } else {
            Vec::new()
        })
    }

    fn containers(&self) -> Result<Vec<Health>, CliError> {
        let store = self.images.store();
        let mut ids = self.registry.ids()?;
        ids.sort();
        let step = self.cx.out.step("containers", None);
        let all = ids
            .iter()
            .filter_map(|id| {
                let health = health::look(store, &self.registry, id)?;
                let journal = self.registry.dir(id).join("upper/journal");
                step.advance(fs::metadata(journal).map_or(0, |m| m.len()));
                Some(health)
            })
            .collect();
        drop(step);
        Ok(all)
    }

    /// Repairs `damaged`, if that is to be done; gives each with what became of it.
    fn repair(
        &self,
        damaged: Vec<Damage>,
        all: &[&Needs],
    ) -> Result<Vec<(Damage, Option<Repaired>)>, CliError> {
        let Some(quarantine) = self.quarantine.as_ref().filter(|_| !damaged.is_empty()) else {
            return Ok(damaged.into_iter().map(|d| (d, None)).collect());
        };
        let step = self.cx.out.step("repair", None);
        let store = self.images.store();
        let done = store.repair(&damaged, &sources(all), quarantine, &|n| step.advance(n))?;
        let well = done.iter().filter(|r| r.outcome.is_well()).count();
        step.done(format_args!("{well} of {} well again", done.len()));
        let pair = |repaired: Repaired| (repaired.damage.clone(), Some(repaired));
        Ok(done.into_iter().map(pair).collect())
    }

    fn repair_containers(&self, containers: &mut [Health]) -> Result<(), CliError> {
        let Some(quarantine) = &self.quarantine else {
            return Ok(());
        };
        for health in containers {
            health::repair(self.images.store(), &self.registry, health, quarantine)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        damage: &Damage,
        repaired: Option<Repaired>,
        images: &[Needs],
        containers: &[Needs],
    ) {
        let touched = |all: &[Needs]| -> Vec<String> {
            let touched = all.iter().filter(|n| n.touched_by(damage));
            touched.map(|n| n.name.clone()).collect()
        };
        let (images, containers) = (touched(images), touched(containers));
        let next = match &repaired {
            None => String::new(),
            Some(r) if r.outcome.is_well() => String::new(),
            Some(Repaired {
                outcome: Outcome::Left(why),
                ..
            }) => why.clone(),
            Some(_) => import_again(&images, &containers),
        };
        let (outcome, aside) = repaired.map(|r| (r.outcome, r.aside)).unzip();
        self.findings.push(Finding {
            kind: damage.what,
            id: damage.id.to_string(),
            path: damage.path.clone(),
            detail: damage.detail.clone(),
            images,
            containers,
            well: outcome.as_ref().is_some_and(Outcome::is_well),
            outcome: outcome.map(|o| said(&o)),
            aside: aside.flatten(),
            next,
        });
    }

    fn add_container(&mut self, health: Health) {
        for fault in health.faults {
            self.findings.push(Finding {
                kind: fault.what,
                id: health.id.clone(),
                path: fault.path,
                detail: fault.detail,
                containers: vec![health.name.clone()],
                well: fault.mended.is_some(),
                outcome: fault.mended,
                next: fault.next,
                ..Finding::default()
            });
        }
    }
}

fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Restored(from) => format!("whole again, from {from}"),
        Outcome::NotNeeded => "taken away; nothing needs it".to_owned(),
        Outcome::Lost(None) => "nothing is there to make it of".to_owned(),
        Outcome::Lost(Some(tried)) => format!("it could not be made again: {tried}"),
        Outcome::Left(_) => "left as it is".to_owned(),
    }
}

fn import_again(images: &[String], containers: &[String]) -> String {
    match (images, containers) {
        ([], []) => String::new(),
        ([], containers) => format!(
            "import or load the image of {} again (`pellicle inspect` names it): that brings it back",
            containers.join(", ")
        ),
        (images, _) => format!(
            "import or load {} again: that brings it back; or drop what is not wanted \
             (`pellicle rmi -f`)",
            images.join(", ")
        ),
    }
}
