//! Results as text, for a terminal.

use std::fmt::Write as _;

use crate::{
    model::{Bound, Figure, Measured, Report, Row, Verdict, extra},
    units::{bytes, ratio, seconds, short_ratio},
};

/// Kinds of messages that are told by name; the rest is in the file.
const KINDS: usize = 4;

/// Puts colour on text, or does not.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, text: &str, sgr: &str) -> String {
        if self.0 {
            format!("\x1b[{sgr}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn verdict(self, verdict: Verdict) -> String {
        match verdict {
            Verdict::Hit => self.with("hit", "32"),
            Verdict::Miss => self.with("miss", "31;1"),
        }
    }
}

/// A run: each workload with everything that was measured, then all of them in one table.
pub(crate) fn run(report: &Report, colour: bool) -> String {
    let paint = Paint(colour);
    let mut text = String::new();
    let who = if report.rootless {
        "an ordinary user"
    } else {
        "root"
    };
    let _ = writeln!(text, "{}; {}", report.machine, report.machine.date);
    let _ = writeln!(
        text,
        "medians of {} interleaved rounds by {who}, with the width of their middle half; ratios with 95 % intervals",
        report.rounds
    );
    for result in &report.results {
        details(&mut text, result, report.rounds, paint);
    }
    text.push('\n');
    text.push_str(&matrix(report, paint));
    if !report.figures.is_empty() {
        text.push('\n');
    }
    for figure in &report.figures {
        let _ = writeln!(text, "{}", figure_line(figure, paint));
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "{} {warning}", paint.with("warning:", "33"));
    }
    text
}

fn details(text: &mut String, result: &Measured, report_rounds: u32, paint: Paint) {
    let rounds = result.rows.iter().map(|row| row.summary.samples.len());
    let fewer = rounds.min().filter(|n| *n < report_rounds as usize);
    let fewer = fewer.map_or(String::new(), |n| format!(" ({n} rounds)"));
    let _ = writeln!(
        text,
        "\n{}  {}{fewer}",
        paint.with(&result.workload, "1"),
        result.about
    );
    for row in &result.rows {
        let told = match &row.ratio {
            Some(r) => format!(
                "{:>7} ({} - {})",
                ratio(r.value),
                ratio(r.low),
                ratio(r.high)
            ),
            None if row.driver == result.reference => "reference".to_owned(),
            None => String::new(),
        };
        let floor = match (result.floor, result.verdict(row)) {
            (Some(floor), Some(verdict)) => {
                format!("floor {}: {}", short_ratio(floor), paint.verdict(verdict))
            }
            _ => String::new(),
        };
        let line = format!(
            "  {:26} {:>10} ±{:<5} {told:26} {floor}",
            row.driver,
            seconds(row.summary.median),
            format!("{:.0} %", 100.0 * row.summary.spread / row.summary.median),
        );
        let _ = writeln!(text, "{}", line.trim_end());
        if let Some(more) = more(row) {
            let _ = writeln!(text, "    {more}");
        }
    }
    for left in &result.left_out {
        let what = if left.failed { "failed" } else { "left out" };
        let _ = writeln!(
            text,
            "  {} {}: {}",
            paint.with(what, "33"),
            left.driver,
            left.why
        );
    }
}

/// What a row has beside times and messages.
pub(crate) fn extras(row: &Row) -> Vec<String> {
    let told = |name: &str| {
        let value = *row.extra.get(name)?;
        Some(match name {
            extra::SPACE => format!("{} on disk", bytes(value)),
            extra::SPACE_RATIO => format!("{value:.2} of the bytes of all files"),
            extra::OVER_BASE => format!("{value:.2} of the base and their own files"),
            extra::COPIED_UP => format!("{} copied up", bytes(value)),
            extra::WIRE => format!("{} over the wire", bytes(value)),
            extra::RESIDENT => format!("{value:.1} MiB resident"),
            _ => format!("{value:.1} MiB page cache"),
        })
    };
    let order = [
        extra::SPACE,
        extra::SPACE_RATIO,
        extra::OVER_BASE,
        extra::COPIED_UP,
        extra::WIRE,
        extra::RESIDENT,
        extra::PAGE_CACHE,
    ];
    order.into_iter().filter_map(told).collect()
}

/// What a row has beside times.
fn more(row: &Row) -> Option<String> {
    let mut parts = Vec::new();
    if !row.messages.is_empty() {
        let mut kinds: Vec<(&String, &u64)> = row.messages.iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let sum: u64 = row.messages.values().sum();
        let named: Vec<String> = kinds
            .iter()
            .take(KINDS)
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        parts.push(format!("{sum} messages ({})", named.join(", ")));
    }
    parts.extend(extras(row));
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Drivers that one table has side by side at most.
const COLUMNS: usize = 6;

/// All workloads that have one reference: the reference's time, everyone's ratio. With many drivers
/// there are several such tables.
fn matrix(report: &Report, paint: Paint) -> String {
    let results: Vec<&Measured> = report
        .results
        .iter()
        .filter(|result| result.reference == report.reference && !result.rows.is_empty())
        .collect();
    let mut drivers: Vec<&str> = Vec::new();
    for row in results.iter().flat_map(|result| &result.rows) {
        if row.driver != report.reference && !drivers.contains(&row.driver.as_str()) {
            drivers.push(&row.driver);
        }
    }
    let tables: Vec<String> = drivers
        .chunks(COLUMNS)
        .map(|drivers| table(report, &results, drivers, paint))
        .collect();
    tables.join("\n")
}

fn table(report: &Report, results: &[&Measured], drivers: &[&str], paint: Paint) -> String {
    let mut text = String::new();
    let mut head = format!("{:18} {:>10}", "workload", report.reference);
    for driver in drivers {
        let _ = write!(head, "  {driver:>8}");
    }
    head.push_str("    floor");
    let _ = writeln!(text, "{}", paint.with(&head, "1"));
    for result in results {
        let base = result.row(&report.reference);
        let base = base.map_or_else(String::new, |row| seconds(row.summary.median));
        let _ = write!(text, "{:18} {base:>10}", result.workload);
        for driver in drivers {
            let cell = result
                .row(driver)
                .and_then(|row| row.ratio.as_ref())
                .map_or_else(|| "-".to_owned(), |r| ratio(r.value));
            let _ = write!(text, "  {cell:>0$}", driver.len().max(8));
        }
        if let Some(floor) = result.floor {
            let _ = write!(text, "  {:>7}", short_ratio(floor));
            let ours = |row: &&Row| row.ours && drivers.contains(&row.driver.as_str());
            let first = result.rows.iter().find(ours);
            if let Some(verdict) = first.and_then(|row| result.verdict(row)) {
                let _ = write!(text, "  {}", paint.verdict(verdict));
            }
        }
        text.push('\n');
    }
    text
}

fn figure_line(figure: &Figure, paint: Paint) -> String {
    let value = match figure.unit.as_str() {
        "x" => format!("{} x", ratio(figure.value)),
        unit => format!("{:.1} {unit}", figure.value),
    };
    let bound = match figure.bound {
        Some(Bound::AtMost(most)) => format!(" (at most {most})"),
        Some(Bound::AtLeast(least)) => format!(" (at least {least})"),
        None => String::new(),
    };
    let verdict = figure
        .verdict()
        .map_or_else(String::new, |v| format!(" {}", paint.verdict(v)));
    format!("{}: {value}{bound}{verdict}", figure.what)
}

/// Two runs, side by side.
pub(crate) fn compare(before: &Report, after: &Report, only: Option<&str>, colour: bool) -> String {
    let paint = Paint(colour);
    let mut text = String::new();
    let _ = writeln!(text, "before: {}; {}", before.machine, before.machine.date);
    let _ = writeln!(text, "after:  {}; {}", after.machine, after.machine.date);
    if before.machine.kernel != after.machine.kernel || before.machine.cpu != after.machine.cpu {
        let _ = writeln!(
            text,
            "{} other machines: compare the ratios, not the times",
            paint.with("warning:", "33")
        );
    }
    if before.rootless != after.rootless {
        let _ = writeln!(
            text,
            "{} one is by root, the other is not",
            paint.with("warning:", "33")
        );
    }
    let head = format!(
        "{:18} {:26} {:>10} {:>10} {:>7}   ratio to the reference",
        "workload", "driver", "before", "after", "change"
    );
    let _ = writeln!(text, "\n{}", paint.with(&head, "1"));
    let mut any = false;
    for new in &after.results {
        let Some(old) = before.results.iter().find(|r| r.workload == new.workload) else {
            continue;
        };
        for row in &new.rows {
            if only.is_some_and(|only| only != row.driver) {
                continue;
            }
            if let Some(was) = old.row(&row.driver) {
                any = true;
                compare_row(&mut text, &new.workload, was, row, paint);
            }
        }
    }
    if !any {
        text.push_str("nothing that both have measured\n");
    }
    text
}

fn compare_row(text: &mut String, workload: &str, was: &Row, is: &Row, paint: Paint) {
    let change = is.summary.median / was.summary.median;
    // Where the rounds of both overlap, it may be chance.
    let sure = is.summary.max < was.summary.min || is.summary.min > was.summary.max;
    let mut told = format!("{:>7}", ratio(change));
    if sure {
        told = paint.with(&told, if change < 1.0 { "32" } else { "31;1" });
    }
    let ratios = match (&was.ratio, &is.ratio) {
        (Some(was), Some(is)) => format!("{} -> {}", ratio(was.value), ratio(is.value)),
        _ => String::new(),
    };
    let note = if sure { "" } else { "  (within the noise)" };
    let _ = writeln!(
        text,
        "{workload:18} {:26} {:>10} {:>10} {told}   {ratios}{note}",
        is.driver,
        seconds(was.summary.median),
        seconds(is.summary.median),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::report;

    #[test]
    fn a_run_is_told_with_ratios_floors_and_reasons() {
        let text = run(&report(), false);
        assert!(!text.contains('\x1b'), "{text}");
        let row = |start: &str| {
            let line = text.lines().rfind(|line| line.starts_with(start));
            let words = line.unwrap_or_default().split_whitespace();
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            row("untar "),
            ["untar", "2.00", "s", "4.00", "2.00", "1.5", "miss"]
        );
        assert_eq!(
            row("walk-fresh "),
            ["walk-fresh", "2.00", "s", "4.00", "1.00", "1.5", "hit"]
        );
        assert!(text.contains("left out plain: it is <not> there"), "{text}");
        assert!(
            text.contains("7 messages (7 READ); 4 KiB on disk"),
            "{text}"
        );
        assert!(text.contains("(at least 3) hit"), "{text}");
        assert!(run(&report(), true).contains("\x1b[32mhit\x1b[0m"));
    }

    #[test]
    fn two_runs_are_compared_row_by_row() {
        let before = report();
        let mut after = report();
        after.machine.kernel = "7.0".to_owned();
        after.results.retain(|result| result.workload == "untar");
        let slower = &mut after.results[0].rows[2].summary;
        (slower.median, slower.min, slower.max) = (8.0, 8.0, 8.0);
        let text = compare(&before, &after, None, false);
        assert!(text.contains("other machines"), "{text}");
        let changed: Vec<&str> = text
            .lines()
            .filter(|l| l.contains("pellicle-ring"))
            .collect();
        assert_eq!(changed.len(), 1, "{text}");
        assert!(changed[0].contains("4.00 s") && changed[0].contains("8.00 s"));
        assert!(changed[0].contains("2.00 -> 2.00") && !changed[0].contains("noise"));
        assert_eq!(text.matches("within the noise").count(), 2, "{text}");
        let one = compare(&before, &after, Some("overlayfs"), false);
        assert!(!one.contains("pellicle-ring"), "{one}");
        after.results.clear();
        let none = compare(&before, &after, None, false);
        assert!(none.contains("nothing that both"), "{none}");
    }
}
