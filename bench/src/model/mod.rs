//! What a run leaves behind: what was measured, on what machine, and what it amounts to.
//!
//! Written as JSON by `run`, read again by `compare` and `report`.

mod figures;

pub(crate) use figures::{Bound, Figure, derive};

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    machine::Machine,
    stats::{Ratio, Summary},
};

/// What the JSON is; raised when an older program could misread it.
pub(crate) const FORMAT: u32 = 1;

/// Extra quantities of a row, by the names they have in the JSON. Units are part of the name.
pub(crate) mod extra {
    /// Bytes that the writable layer takes on the host's disk.
    pub(crate) const SPACE: &str = "space_bytes";
    /// Bytes of file content in the writable layer that the workload did not write itself.
    pub(crate) const COPIED_UP: &str = "copied_up_bytes";
    /// MiB of memory, shared pages divided among who shares them, that serving takes.
    pub(crate) const RESIDENT: &str = "resident_mib";
    /// MiB that the page cache grew by.
    pub(crate) const PAGE_CACHE: &str = "page_cache_mib";
    /// Bytes of blobs and manifests that a registry sent, or was given.
    pub(crate) const WIRE: &str = "wire_bytes";
    /// [`SPACE`], as a ratio to the bytes of all files that are in there, each content once.
    pub(crate) const SPACE_RATIO: &str = "space_ratio";
    /// [`SPACE`], as a ratio to what the base alone takes and the bytes of what is not in it.
    pub(crate) const OVER_BASE: &str = "space_over_base_ratio";
}

/// The row of `pull` that is the least that can be done with an image's layers.
pub(crate) const LEAST_OF_A_PULL: &str = "curl | gzip | sha256sum";

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    pub(crate) machine: Machine,
    pub(crate) rounds: u32,
    /// Measured by an ordinary user, in a user namespace.
    pub(crate) rootless: bool,
    /// The driver that ratios of trees are to.
    pub(crate) reference: String,
    pub(crate) warnings: Vec<String>,
    pub(crate) results: Vec<Measured>,
    /// What follows from several results together.
    pub(crate) figures: Vec<Figure>,
}

/// What came out of one workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) workload: String,
    pub(crate) about: String,
    /// The row that ratios are to.
    pub(crate) reference: String,
    /// What our rows are to be at most, as a ratio to the reference.
    pub(crate) floor: Option<f64>,
    /// Where this is in a series of like workloads.
    pub(crate) point: Option<Point>,
    pub(crate) rows: Vec<Row>,
    /// What could not be measured, and why.
    pub(crate) left_out: Vec<LeftOut>,
}

/// A workload's place on an axis, as a file size or a number of layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// The name of the series, which its workloads' names begin with.
    pub(crate) series: String,
    pub(crate) x: f64,
    /// `bytes`, `layers`, `containers`.
    pub(crate) unit: String,
}

/// One driver in one workload. Times are in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) driver: String,
    /// Whether it is Pellicle, so that floors are for it.
    pub(crate) ours: bool,
    pub(crate) summary: Summary,
    /// To the reference; none for the reference itself and where that is missing.
    pub(crate) ratio: Option<Ratio>,
    /// FUSE messages of the last round, by kind; of our drivers only.
    #[serde(default)]
    pub(crate) messages: BTreeMap<String, u64>,
    /// See [`extra`]; medians.
    #[serde(default)]
    pub(crate) extra: BTreeMap<String, f64>,
}

/// A driver that a workload was not measured on. `driver` is `all` where none could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    pub(crate) driver: String,
    pub(crate) why: String,
    /// It was tried and went wrong, where otherwise it cannot be had here.
    pub(crate) failed: bool,
}

impl LeftOut {
    /// What cannot be had here.
    pub(crate) fn missing(driver: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            driver: driver.into(),
            why: why.into(),
            failed: false,
        }
    }
}

/// Whether a floor is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Hit,
    Miss,
}

impl Measured {
    /// The row of `driver`.
    pub(crate) fn row(&self, driver: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.driver == driver)
    }

    /// How `row` stands to the floor; `None` without one, without a reference, and for peers.
    pub(crate) fn verdict(&self, row: &Row) -> Option<Verdict> {
        let (floor, ratio) = (self.floor?, row.ratio.as_ref()?);
        row.ours.then_some(if ratio.value <= floor {
            Verdict::Hit
        } else {
            Verdict::Miss
        })
    }
}

impl Report {
    /// Every driver that was measured, in the order of first sight.
    pub(crate) fn drivers(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in self.results.iter().flat_map(|result| &result.rows) {
            if !names.contains(&row.driver.as_str()) {
                names.push(&row.driver);
            }
        }
        names
    }

    /// The first of our drivers: the one that totals are told of.
    pub(crate) fn subject(&self) -> Option<&str> {
        let rows = self.results.iter().flat_map(|result| &result.rows);
        rows.filter(|row| row.ours)
            .map(|row| row.driver.as_str())
            .next()
    }

    /// Whether our first driver misses a floor, or a figure its bound.
    pub(crate) fn missed(&self) -> bool {
        let subject = self.subject();
        let rows = self.results.iter().any(|result| {
            let row = subject.and_then(|name| result.row(name));
            row.and_then(|row| result.verdict(row)) == Some(Verdict::Miss)
        });
        rows || self
            .figures
            .iter()
            .any(|f| f.verdict() == Some(Verdict::Miss))
    }

    /// Whether something that was tried went wrong.
    pub(crate) fn failed(&self) -> bool {
        let mut left_out = self.results.iter().flat_map(|result| &result.left_out);
        left_out.any(|left| left.failed)
    }

    /// Reads what `run --output` wrote.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let report: Self = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is not a result of this program: make one with `pellicle-bench run --output FILE.json`",
                path.display()
            )
        })?;
        if report.format != FORMAT {
            bail!(
                "{} has format {}, this program reads {FORMAT}: measure again with this version",
                path.display(),
                report.format
            );
        }
        Ok(report)
    }

    /// Writes it, whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        write_whole(path, &text)
    }
}

/// Puts `text` at `path` by rename, so that no reader sees half of it.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<()> {
    let fail = || format!("cannot write {}", path.display());
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".pellicle-bench-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)
        .with_context(fail)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).with_context(fail)?;
    file.persist(path).with_context(fail)?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
