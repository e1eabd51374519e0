use std::collections::BTreeMap;

use super::*;

fn machine() -> Machine {
    Machine {
        kernel: "6.18".to_owned(),
        cpu: "a <processor> & more".to_owned(),
        cpus: 2,
        memory_mib: 1024,
        host_file_system: "ext4".to_owned(),
        load: 0.1,
        root: true,
        versions: BTreeMap::from([("podman".to_owned(), "4.3.1".to_owned())]),
        date: "2026-11-27 12:00".to_owned(),
    }
}

fn row(driver: &str, ours: bool, seconds: f64, base: f64) -> Row {
    Row {
        driver: driver.to_owned(),
        ours,
        summary: Summary::of(vec![seconds; 3]).unwrap(),
        ratio: (driver != "overlayfs").then(|| Ratio::of(&[seconds; 3], &[base; 3]).unwrap()),
        messages: BTreeMap::from([("READ".to_owned(), 7)]),
        extra: BTreeMap::from([
            (extra::SPACE.to_owned(), 4096.0),
            (extra::RESIDENT.to_owned(), 10.0 * seconds),
            (extra::PAGE_CACHE.to_owned(), 3.0 * seconds),
        ]),
    }
}

fn measured(workload: &str, point: Option<(&str, f64, &str)>, ours: f64) -> Measured {
    Measured {
        workload: workload.to_owned(),
        about: format!("what {workload} does"),
        reference: "overlayfs".to_owned(),
        floor: Some(1.5),
        point: point.map(|(series, x, unit)| Point {
            series: series.to_owned(),
            x,
            unit: unit.to_owned(),
        }),
        rows: vec![
            row("overlayfs", false, 2.0, 2.0),
            row("fuse-overlayfs-2.0.0", false, 8.0, 2.0),
            row("pellicle-ring", true, ours, 2.0),
        ],
        left_out: vec![LeftOut::missing("plain", "it is <not> there")],
    }
}

/// A run with something of everything.
pub(crate) fn report() -> Report {
    let mut report = Report {
        format: FORMAT,
        machine: machine(),
        rounds: 3,
        rootless: false,
        reference: "overlayfs".to_owned(),
        warnings: vec!["noisy <here>".to_owned()],
        results: vec![
            measured("walk-fresh", None, 2.0),
            measured("untar", None, 4.0),
            measured(
                "first-byte/4KiB",
                Some(("first-byte", 4096.0, "bytes")),
                0.5,
            ),
            measured(
                "first-byte/1GiB",
                Some(("first-byte", 1.0e9, "bytes")),
                0.001,
            ),
            measured("depth/1", Some(("depth", 1.0, "layers")), 1.0),
            measured("depth/128", Some(("depth", 128.0, "layers")), 1.05),
            measured("containers/1", Some(("containers", 1.0, "containers")), 1.0),
            Measured {
                reference: "podman".to_owned(),
                floor: None,
                rows: vec![
                    row("pellicle", true, 2.0, 6.0),
                    row("podman", false, 6.0, 6.0),
                    row(LEAST_OF_A_PULL, false, 1.0, 6.0),
                ],
                ..measured("pull", None, 1.0)
            },
            measured(
                "containers/100",
                Some(("containers", 100.0, "containers")),
                9.0,
            ),
        ],
        figures: Vec::new(),
    };
    report.figures = derive(&report);
    report
}

#[test]
fn what_is_written_is_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.json");
    let mut report = report();
    // What serde_json reads may differ in the last digit.
    report.figures.iter_mut().for_each(|f| f.value = 12.5);
    report.write(&path).unwrap();
    let again = Report::read(&path).unwrap();
    let json = |report: &Report| serde_json::to_value(report).unwrap();
    assert_eq!(json(&report), json(&again));
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_is_no_result_is_refused_with_its_name_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd.json");
    let mut other = serde_json::to_value(report()).unwrap();
    other["format"] = 99.into();
    for (text, word) in [
        ("".to_owned(), "pellicle-bench run"),
        ("{}".to_owned(), "pellicle-bench run"),
        (other.to_string(), "99"),
    ] {
        fs::write(&path, text).unwrap();
        let error = format!("{:#}", Report::read(&path).unwrap_err());
        assert!(
            error.contains("odd.json") && error.contains(word),
            "{error}"
        );
    }
    let missing = format!("{:#}", Report::read(&dir.path().join("none")).unwrap_err());
    assert!(missing.contains("none"), "{missing}");
    let nowhere = dir.path().join("no/such/dir.json");
    assert!(report().write(&nowhere).is_err());
}

#[test]
fn a_floor_is_for_ours_and_needs_a_reference() {
    let result = measured("w", None, 3.0);
    let verdict = |driver: &str| result.verdict(result.row(driver).unwrap());
    assert_eq!(verdict("pellicle-ring"), Some(Verdict::Hit));
    assert_eq!(verdict("fuse-overlayfs-2.0.0"), None);
    assert_eq!(verdict("overlayfs"), None);
    let slow = measured("w", None, 3.1);
    let row = slow.row("pellicle-ring").unwrap();
    assert_eq!(slow.verdict(row), Some(Verdict::Miss));
    let mut alone = row.clone();
    alone.ratio = None;
    assert_eq!(slow.verdict(&alone), None);
}

#[test]
fn a_missed_floor_and_a_failure_are_seen_in_the_whole() {
    let mut report = report();
    assert_eq!(report.subject(), Some("pellicle-ring"));
    assert!(report.missed(), "untar is above its floor");
    report.results.retain(|r| r.workload == "walk-fresh");
    report.figures.clear();
    assert!(!report.missed() && !report.failed());
    report.results[0].left_out[0].failed = true;
    assert!(report.failed());
}

#[test]
fn figures_follow_from_the_rows() {
    let report = report();
    let value = |start: &str| {
        let figure = report.figures.iter().find(|f| f.what.contains(start));
        figure.map(|f| (f.value, f.verdict()))
    };
    // 8/2, 8/4, 16, 8000, 8, 8/1.05, 8, 8/9
    let (mean, verdict) = value("geometric mean over 8").unwrap();
    assert!((11.5..12.5).contains(&mean), "{mean}");
    assert_eq!(verdict, Some(Verdict::Hit));
    let (depth, verdict) = value("depth 128 against depth 1").unwrap();
    assert!((depth - 1.05).abs() < 1e-9);
    assert_eq!(verdict, Some(Verdict::Hit));
    assert_eq!(value("run-true"), None);
    assert_eq!(
        value("pull, pellicle faster than podman"),
        Some((3.0, None))
    );
    assert_eq!(
        value("pull, time of pellicle beside curl"),
        Some((2.0, None))
    );
    assert_eq!(value("disk of 10 images"), None);
}
