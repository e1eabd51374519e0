//! What is measured: work in a tree, which every driver shows, and work that other programs do as
//! well (starting containers, importing images).

mod append;
mod builds;
mod change;
mod containers;
mod custom;
mod depth;
mod engine;
mod exchange;
mod fio;
mod first_byte;
mod fsync;
mod git;
mod import;
mod import_image;
mod large_directory;
mod launch;
mod mount_size;
mod peers;
mod remove;
mod rename;
mod sqlite;
mod startup;
mod untar;
mod walk;

use anyhow::{Result, bail};

pub(crate) use custom::Custom;
use engine::{Caches, Round, Tree, Work, Writes};

use crate::{drivers::Driver, model::Measured, setup::Setup};

/// How a run measures.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) rootless: bool,
    pub(crate) drivers: Vec<Driver>,
    pub(crate) reference: String,
    /// Bytes of the files of the image that registries are measured with.
    pub(crate) image_bytes: u64,
}

/// Work that is not in a mount of ours and our peers'.
pub(crate) trait Host {
    fn name(&self) -> String;
    fn about(&self) -> String;
    fn measure(&self, setup: &mut Setup, plan: &Plan) -> Result<Measured>;
}

/// A workload.
pub(crate) enum Workload {
    Tree(Box<Tree>),
    Host(Box<dyn Host>),
}

impl Workload {
    /// As it is named on the command line.
    pub(crate) fn name(&self) -> String {
        match self {
            Workload::Tree(tree) => tree.name.clone(),
            Workload::Host(host) => host.name(),
        }
    }

    /// What it measures, in a line.
    pub(crate) fn about(&self) -> String {
        match self {
            Workload::Tree(tree) => tree.about.clone(),
            Workload::Host(host) => host.about(),
        }
    }

    /// Whether it is done in the image of tools/image, as far as trees go.
    pub(crate) fn needs_image(&self) -> bool {
        matches!(self, Workload::Tree(tree) if tree.needs_image())
    }

    /// Measures it.
    pub(crate) fn measure(&self, setup: &mut Setup, plan: &Plan) -> Result<Measured> {
        match self {
            Workload::Tree(tree) => tree.measure(setup, plan),
            Workload::Host(host) => host.measure(setup, plan),
        }
    }
}

/// All of them, in the order of issue 4's table.
pub(crate) fn all() -> Vec<Workload> {
    let trees = [
        walk::all(),
        git::status(),
        startup::all(),
        untar::all(),
        git::clone(),
        remove::all(),
        append::all(),
        change::all(),
        first_byte::all(),
        fio::all(),
        fsync::all(),
        sqlite::all(),
        rename::all(),
        depth::all(),
        large_directory::all(),
    ];
    let trees = trees.into_iter().flatten();
    let mut all: Vec<Workload> = trees.map(|tree| Workload::Tree(Box::new(tree))).collect();
    all.extend(launch::all().map(Workload::Host));
    all.extend(containers::all().map(Workload::Host));
    all.push(Workload::Host(Box::new(mount_size::MountSize)));
    all.push(Workload::Host(Box::new(import::Import)));
    all.push(Workload::Host(Box::new(import_image::ImportImage)));
    all.extend(exchange::all().map(Workload::Host));
    all.extend(builds::all().map(Workload::Host));
    all
}

/// Those that `words` name: a name, or a series (`first-byte`, `depth`).
pub(crate) fn choose(all: Vec<Workload>, words: &[String]) -> Result<Vec<Workload>> {
    let fits = |name: &str, word: &str| name == word || name.starts_with(&format!("{word}/"));
    for word in words {
        if !all.iter().any(|workload| fits(&workload.name(), word)) {
            bail!("no workload is called {word}: `pellicle-bench list` shows what there is");
        }
    }
    let chosen = all
        .into_iter()
        .filter(|workload| words.iter().any(|word| fits(&workload.name(), word)));
    Ok(chosen.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_workloads_have_one_name() {
        let mut names: Vec<String> = all().iter().map(Workload::name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(all().iter().all(|workload| !workload.about().is_empty()));
    }

    #[test]
    fn a_series_is_chosen_by_its_name_and_nonsense_is_refused() {
        let names = |words: &[&str]| -> Result<Vec<String>> {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            let chosen = choose(all(), &words)?;
            Ok(chosen.iter().map(Workload::name).collect())
        };
        assert_eq!(names(&["untar"]).unwrap(), ["untar"]);
        assert!(names(&["first-byte"]).unwrap().len() > 4);
        assert!(names(&["first"]).unwrap_err().to_string().contains("first"));
    }
}
