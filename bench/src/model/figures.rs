//! What follows from several results together.

use serde::{Deserialize, Serialize};

use super::{LEAST_OF_A_PULL, Measured, Report, Verdict, extra};
use crate::stats::geometric_mean;

/// A number that is no single row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) value: f64,
    /// `x` for ratios.
    pub(crate) unit: String,
    pub(crate) bound: Option<Bound>,
}

/// What a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    /// How it stands to its bound.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        let holds = match self.bound? {
            Bound::AtMost(most) => self.value <= most,
            Bound::AtLeast(least) => self.value >= least,
        };
        Some(if holds { Verdict::Hit } else { Verdict::Miss })
    }
}

/// The figures of issue 4 below its table.
pub(crate) fn derive(report: &Report) -> Vec<Figure> {
    let mut figures = Vec::new();
    if let Some(subject) = report.subject() {
        figures.extend(means(report, subject));
        figures.extend(depth(&report.results, subject));
    }
    figures.extend(starts(&report.results));
    figures.extend(exchange(&report.results));
    figures
}

/// Registries and builds beside other programs. Nothing is asked of these but that they are told.
fn exchange(results: &[Measured]) -> Vec<Figure> {
    let result = |workload: &str| results.iter().find(|r| r.workload == workload);
    let against = |workload: &str, peer: &str| {
        let result = result(workload)?;
        let (ours, theirs) = (result.row("pellicle")?, result.row(peer)?);
        Some((ours.summary.median, theirs.summary.median))
    };
    let figure = |what: String, value: f64| Figure {
        what,
        value,
        unit: "x".to_owned(),
        bound: None,
    };
    let mut figures = Vec::new();
    for (workload, peer) in [
        ("pull", "podman"),
        ("pull-shared", "podman"),
        ("push-shared", "podman"),
        ("build", "buildah"),
        ("rebuild", "buildah"),
    ] {
        if let Some((ours, theirs)) = against(workload, peer) {
            let what = format!("{workload}, pellicle faster than {peer}");
            figures.push(figure(what, theirs / ours));
        }
    }
    if let Some((ours, least)) = against("pull", LEAST_OF_A_PULL) {
        let what = format!("pull, time of pellicle beside {LEAST_OF_A_PULL}");
        figures.push(figure(what, ours / least));
    }
    let ten = result("ten-images").and_then(|r| r.row("pellicle"));
    if let Some(ratio) = ten.and_then(|row| row.extra.get(extra::OVER_BASE)) {
        let what = "disk of 10 images on one base, beside that of the base and their own files";
        figures.push(figure(what.to_owned(), *ratio));
    }
    figures
}

/// How many times faster than each fuse-overlayfs, over the workloads that both did.
fn means(report: &Report, subject: &str) -> Vec<Figure> {
    let peers = report.drivers();
    let peers = peers
        .iter()
        .filter(|name| name.starts_with("fuse-overlayfs"));
    peers
        .filter_map(|peer| {
            let speeds: Vec<f64> = report
                .results
                .iter()
                .filter_map(|result| {
                    let (ours, theirs) = (result.row(subject)?, result.row(peer)?);
                    Some(theirs.summary.median / ours.summary.median)
                })
                .collect();
            Some(Figure {
                what: format!(
                    "geometric mean over {} workloads, {subject} faster than {peer}",
                    speeds.len()
                ),
                value: geometric_mean(&speeds)?,
                unit: "x".to_owned(),
                bound: peer
                    .starts_with("fuse-overlayfs-2")
                    .then_some(Bound::AtLeast(3.0)),
            })
        })
        .collect()
}

/// What the deepest stack costs beside a single layer, on one driver.
fn depth(results: &[Measured], subject: &str) -> Option<Figure> {
    let mut points: Vec<(f64, f64)> = results
        .iter()
        .filter_map(|result| {
            let point = result.point.as_ref().filter(|p| p.series == "depth")?;
            Some((point.x, result.row(subject)?.summary.median))
        })
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ((one, low), (many, high)) = (points.first()?, points.last()?);
    (one < many).then(|| Figure {
        what: format!("depth {many} against depth {one}, {subject}"),
        value: high / low,
        unit: "x".to_owned(),
        bound: Some(Bound::AtMost(1.1)),
    })
}

/// Starting and importing beside other programs, and what a container's supervisor takes.
fn starts(results: &[Measured]) -> Vec<Figure> {
    let mut figures = Vec::new();
    let against = |workload: &str, peer: &str, bound: f64| {
        let result = results.iter().find(|r| r.workload == workload)?;
        let (ours, theirs) = (result.row("pellicle")?, result.row(peer)?);
        Some(Figure {
            what: format!("{workload}, pellicle faster than {peer}"),
            value: theirs.summary.median / ours.summary.median,
            unit: "x".to_owned(),
            bound: Some(Bound::AtLeast(bound)),
        })
    };
    figures.extend(against("run-true", "podman", 8.0));
    figures.extend(against("import-image", "podman", 3.0));
    let one = results.iter().find(|r| r.workload == "containers/1");
    let resident = one
        .and_then(|r| r.row("pellicle"))
        .and_then(|row| row.extra.get(extra::RESIDENT));
    figures.extend(resident.map(|mib| Figure {
        what: "resident memory of a container's supervisor".to_owned(),
        value: *mib,
        unit: "MiB".to_owned(),
        bound: Some(Bound::AtMost(12.0)),
    }));
    let sizes = results.iter().find(|r| r.workload == "mount-size");
    let resident = |name: &str| sizes?.row(name)?.extra.get(extra::RESIDENT).copied();
    if let (Some(large), Some(small)) = (resident("1,000,000 entries"), resident("1,000 entries")) {
        figures.push(Figure {
            what: "memory that an image of 1,000,000 entries adds to one of 1,000".to_owned(),
            value: large - small,
            unit: "MiB".to_owned(),
            bound: Some(Bound::AtMost(8.0)),
        });
    }
    figures
}
